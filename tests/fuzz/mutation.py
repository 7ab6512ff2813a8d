"""Changed files: bytes that mean something, and documents with another value somewhere."""

import hashlib
import io
import json
import random
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

from hostile import VALUES

Change = Callable[[bytes, random.Random], bytes]

TOKENS = [
    b"{", b"}", b"[", b"]", b"&a ", b"*a", b"!ref <a>", b"<<: ", b"? ", b"- ", b": ", b"\n", b"\0",
    b"\xff", b'"', b"'", b"99999999999999999999", b"1e999", b"-1", b"null", b".nan", b"0x1f", b"a",
    b"!new:torch.x ", b"!!int ", b"\\ud800", b"(", b")", b".", b"t", b"R", b"b", b"Q", b"h\x00",
    b"q\x00", b"\x80\x04", b"\x8a\x08", b"\x88", b"ccopyreg\n_reconstructor\n", b"PK\x01\x02",
]  # fmt: skip
_LENGTH_BYTES = 8  # of the header of a safetensors file
_MORE_VALUES = (1, 2, 7, 1 << 16, 1 << 31, (1 << 64) - 1, -(1 << 63), 1e-300, False, "0", [1], [-1])


def mutated(data: bytes, seed: int) -> bytes:
    """A few bytes flipped, cut out, repeated or replaced by something that means something."""
    return mixed(data, random.Random(seed))


def mixed(data: bytes, rng: random.Random) -> bytes:
    """As `mutated`, with random numbers of the caller's."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        start = rng.randrange(len(changed) + 1)
        length = rng.choice((0, 1, 1, 2, 4, 16, len(changed) // 2))
        piece = bytes(changed[start : start + length])
        other = bytes(
            changed[(at := rng.randrange(len(changed) + 1)) : at + rng.choice((1, 4, 32))]
        )
        changed[start : start + length] = rng.choice(
            (b"", piece * 2, rng.randbytes(length or 1), rng.choice(TOKENS), other)
        )
    return bytes(changed)


def paths(tree: Any) -> list[list[Any]]:
    """Where every value of a tree is."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found: list[list[Any]] = []
    for key, value in items:
        found.append([key])
        if isinstance(value, dict | list):
            found += [[key, *path] for path in paths(value)]
    return found


def as_json(tree: Any) -> str:
    """Whatever its numbers are: Python limits the digits that it writes."""
    if isinstance(tree, int) and abs(tree) > 1 << 64:
        return ("-" if tree < 0 else "") + "9" * (abs(tree).bit_length() // 3)
    if isinstance(tree, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{as_json(v)}" for k, v in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(map(as_json, tree)) + "]"
    return json.dumps(tree)


def document(data: bytes, rng: random.Random) -> bytes:
    """A JSON document with other values in it; ValueError if it is none."""
    return as_json(_elsewhere(json.loads(data), rng)).encode(errors="surrogatepass")


def manifest(data: bytes, rng: random.Random) -> bytes:
    """A manifest with other values and the right hash, in the one way to write it."""
    tree = _elsewhere(json.loads(data), rng)
    rest = {key: value for key, value in tree.items() if key != "sha256"}
    text = (json.dumps(rest, indent=1, ensure_ascii=False) + "\n").encode(errors="surrogatepass")
    return f'{{\n "sha256": "{hashlib.sha256(text).hexdigest()}",'.encode() + text[1:]


def safetensors(data: bytes, rng: random.Random) -> bytes:
    """Arrays with other names, types, shapes and places, behind a header of the right length."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    header, rest = data[_LENGTH_BYTES:][:length], data[_LENGTH_BYTES:][length:]
    tree = json.loads(header)
    if rng.randrange(2):
        tree = _elsewhere(tree, rng)
    else:
        _reshaped(tree[rng.choice(list(tree))], rng)
    changed = as_json(tree).encode(errors="surrogatepass")
    return len(changed).to_bytes(_LENGTH_BYTES, "little") + changed + rest


def archive(data: bytes, rng: random.Random) -> bytes:
    """A zip archive with an entry that was changed, and the right checksums."""
    with warnings.catch_warnings(), zipfile.ZipFile(io.BytesIO(data)) as old:
        warnings.simplefilter("ignore")  # of two entries with one name
        entries = [(info.filename, old.read(info)) for info in old.infolist()]
        if not entries:
            raise ValueError("nothing in it")
        number = rng.randrange(len(entries))
        name, content = entries[number]
        action = rng.randrange(10)
        if action == 0:
            del entries[number]
        elif action == 1:
            entries.append((name, content))
        elif action == 2:
            entries[number] = (mixed(name.encode(), rng).decode("latin-1"), content)
        else:
            entries[number] = (name, mixed(content, rng))
        packed = io.BytesIO()
        kind = zipfile.ZIP_DEFLATED if action == 3 else zipfile.ZIP_STORED
        with zipfile.ZipFile(packed, "w", kind) as new:
            for name, content in entries:
                new.writestr(zipfile.ZipInfo(name), content, kind)
    return packed.getvalue()


def _elsewhere(tree: Any, rng: random.Random) -> Any:
    """The tree with another value, or none, in one or two places."""
    for _ in range(rng.choice((1, 1, 2))):
        places = paths(tree)
        if not places:
            break
        *steps, last = rng.choice(places)
        node = tree
        for step in steps:
            node = node[step]
        action = rng.randrange(8)
        if action == 0:
            del node[last]
        elif action == 1 and isinstance(node, dict):
            node[rng.choice(("", "x", "../x", "\ud800", f"{last}2"))] = node.pop(last)
        elif action == 2 and isinstance(node[last], list):
            node[last] = node[last] * rng.choice((2, 50))
        else:
            node[last] = rng.choice((*VALUES, *_MORE_VALUES))
    return tree


def _reshaped(entry: Any, rng: random.Random) -> None:
    """The same bytes as an array of another type or shape."""
    sizes = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "U8": 1, "BOOL": 1}
    kind = entry["dtype"] = rng.choice(list(sizes))
    start, end = entry["data_offsets"]
    count = (end - start) // sizes[kind]
    entry["shape"] = rng.choice(([count], [1, count], [count, 1], [1, 1, count], [0, count], []))
