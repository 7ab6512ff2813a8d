"""Pickles as programs: what torch.save writes is read, and nothing else does anything."""

import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch_zip_writer as writer
from bounded import refused_within, within

from edgepack.errors import IntegrityError
from edgepack.model.checkpoint import torch_zip

PROTO = b"\x80\x02"
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
PARAMETER = b"ctorch._utils\n_rebuild_parameter\n"
ORDERED = b"ccollections\nOrderedDict\n"
SIZE = b"ctorch\nSize\n"
HOOKS = ORDERED + b")R"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def whole(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    size = (value.bit_length() + 8) // 8
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def tuple_of(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def storage(kind: str = "FloatStorage", count: int = 4) -> bytes:
    """The persistent record of the storage `0`."""
    named = f"ctorch\n{kind}\n".encode()
    return tuple_of(text("storage"), named, text("0"), text("cpu"), whole(count)) + b"Q"


def tensor(source: bytes, offset: int, size: list[int], stride: list[int]) -> bytes:
    shape, steps = (tuple_of(*map(whole, numbers)) for numbers in (size, stride))
    return TENSOR + tuple_of(source, whole(offset), shape, steps, b"\x89", HOOKS) + b"R"


def put(folder: Path, program: bytes) -> Path:
    """A `.pt` file whose pickle is `program`, with one storage of four float32."""
    path = folder / "x.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x/data.pkl", program)
        file.writestr("x/data/0", np.arange(4, dtype=np.float32).tobytes())
    return path


def load(folder: Path, program: bytes) -> Any:
    return torch_zip.load(put(folder, program))


def refused(folder: Path, program: bytes, match: str) -> None:
    with pytest.raises(IntegrityError, match=match):
        load(folder, program)


def test_a_tensor_is_read(tmp_path: Path) -> None:
    found = load(tmp_path, PROTO + tensor(storage(), 1, [3], [1]) + b".")
    assert found.tolist() == [1, 2, 3]


# An earlier view in place of a storage: with a stride of 0 it has a size, and no values behind it.
VIEW = tensor(storage(), 3, [4], [0])
VIEWS = {
    "view": tensor(VIEW, 0, [4], [1]),
    "view of a view": tensor(tensor(VIEW, 3, [4], [1]), 3, [4], [1]),
    "parameter": tensor(PARAMETER + tuple_of(VIEW, b"\x89", HOOKS) + b"R", 0, [4], [1]),
    "remembered": VIEW + b"q\x00" + tensor(b"h\x00", 0, [4], [1]) + b"\x86",
    "number": tensor(whole(7), 0, [4], [1]),
    "text": tensor(text("0"), 0, [4], [1]),
    "tuple": tensor(tuple_of(storage()), 0, [1], [1]),
}


@pytest.mark.parametrize("kind", VIEWS)
def test_only_a_storage_is_a_storage(tmp_path: Path, kind: str) -> None:
    path = put(tmp_path, PROTO + VIEWS[kind] + b".")
    refused_within(torch_zip.load, path, match=r"a call of torch._utils._rebuild_tensor_v2 with")


HALF = b"G?\xe0\0\0\0\0\0\0"
LAST = (1 << 63) - 1
BOUNDS = {
    "beyond": (tensor(storage(), 1, [4], [1]), "beyond its storage"),
    "offset": (tensor(storage(), 4, [1], [1]), "beyond its storage"),
    "largest offset": (tensor(storage(), LAST, [1], [1]), "beyond its storage"),
    "wrapped offset": (tensor(storage(), LAST, [2], [LAST]), "beyond its storage"),
    "wrapped strides": (tensor(storage(), 0, [3, 3], [LAST, LAST]), "beyond its storage"),
    "product": (tensor(storage(), 0, [1 << 32, 1 << 32], [0, 0]), "larger than its storage"),
    "axes of zero": (tensor(storage(), 0, [0, LAST, LAST], [1, 1, 1]), "an empty tensor of"),
    "negative stride": (tensor(storage(), 3, [4], [-1]), "negative"),
    "negative size": (tensor(storage(), 0, [-1], [1]), "negative"),
    "two negative sizes": (tensor(storage(), 0, [-2, -2], [1, 1]), "negative"),
    "negative offset": (tensor(storage(), -1, [1], [1]), "negative"),
    "strides": (tensor(storage(), 0, [2, 2], [2]), "2 lengths and 1 strides"),
    "fraction": (
        TENSOR + tuple_of(storage(), b"K\x00", HALF + b"\x85", b"K\x01\x85", b"\x89", HOOKS) + b"R",
        "other arguments",
    ),
    "boolean": (
        TENSOR + tuple_of(storage(), b"K\x00", b"\x88\x85", b"K\x01\x85", b"\x89", HOOKS) + b"R",
        "other arguments",
    ),
    "many axes": (tensor(storage(), 0, [1] * 33, [1] * 33), "other arguments"),
    "storage": (tensor(storage(count=5), 0, [1], [1]), "shorter than its record"),
    "negative storage": (tensor(storage(count=-1), 0, [1], [1]), "shorter than its record"),
    "largest storage": (tensor(storage(count=LAST), 0, [1], [1]), "shorter than its record"),
    "wide storage": (tensor(storage("DoubleStorage"), 0, [1], [1]), "shorter than its record"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BOUNDS)
def test_bounds_are_whole_numbers_that_do_not_wrap(tmp_path: Path, kind: str) -> None:
    program, reason = BOUNDS[kind]
    refused(tmp_path, PROTO + program + b".", reason)


def test_a_stride_that_is_never_taken_may_be_any(tmp_path: Path) -> None:
    found = load(tmp_path, PROTO + tensor(storage(), 0, [1, 4], [LAST, 1]) + b".")
    assert found.tolist() == [[0, 1, 2, 3]]


DTYPE = b"ctorch\nBFloat16Storage\n"
UNPACKED = PARAMETER + tuple_of(DTYPE, b"\x89", HOOKS) + b"R"
STATES = {
    "dtype": UNPACKED + b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
    "storage type": DTYPE + b"}b",
    "array": tensor(storage(), 0, [4], [1]) + tuple_of(b"K\x01", b"K\x04\x85", DTYPE) + b"b",
    "storage": storage() + b"}b",
    "function": TENSOR + b"}" + text("__defaults__") + b"Nsb",
    "class": ORDERED + b"}" + text("fromkeys") + b"Nsb",
    "method": ORDERED + b")R}" + text("items") + b"Nsb",
    "slots": ORDERED + b")RN}" + text("_metadata") + b"Ns\x86b",
    "list": b"]}b",
    "text": text("a") + b"}b",
}  # fmt: skip


@pytest.mark.parametrize("kind", STATES)
def test_state_changes_nothing(tmp_path: Path, kind: str) -> None:
    before = repr(np.dtype(ml_dtypes.bfloat16)), ml_dtypes.bfloat16(1.5).tobytes()
    refused(tmp_path, PROTO + STATES[kind] + b".", "state for something else|a call of|other arg")
    assert (repr(np.dtype(ml_dtypes.bfloat16)), ml_dtypes.bfloat16(1.5).tobytes()) == before
    assert callable(OrderedDict().items)


OTHER = {
    "a type alone": DTYPE,
    "a type in a dict": b"}" + text("a") + DTYPE + b"s",
    "a storage in a list": b"]" + storage() + b"a",
    "a function in a tuple": TENSOR + b"\x85",
    "a called type": DTYPE + b")R",
    "a called storage": storage() + b")R",
    "a called text": text("OrderedDict") + b")R",
    "a size of a storage": SIZE + storage() + b"\x85R",
    "a size of a size": SIZE + SIZE + b"\x85R",
    "a size of a tensor": SIZE + tensor(storage(), 0, [4], [1]) + b"\x85R",
    "a dict of pairs": ORDERED + b"]" + b"\x85R",
    "a parameter of a type": UNPACKED,
    "a parameter of a storage": PARAMETER + tuple_of(storage(), b"\x89", HOOKS) + b"R",
    "a count that is none": storage().replace(whole(4), b"\x88"),
    "a tensor for a record": storage().replace(text("storage"), tensor(storage(), 0, [4], [1])),
    "another record": storage().replace(text("storage"), text("module")),
    "a record of no type": storage().replace(b"ctorch\nFloatStorage\n", ORDERED),
    "a record that is text": text("0") + b"Q",
    "a record with a path": storage().replace(text("0"), text("../0")),
    "a missing storage": storage().replace(text("0"), text("1")),
    "a key that is a tuple": b"}" + b"K\x01\x85K\x01s",
    "a key that is a tensor": b"}" + tensor(storage(), 0, [4], [1]) + b"K\x01s",
    "a key that is a fraction": b"}G\x7f\xf8\0\0\0\0\0\0K\x01s",
    "an item of a tuple": b")K\x01a",
    "an item of a tensor": tensor(storage(), 0, [4], [1]) + b"K\x01a",
    "an entry of a list": b"]K\x01K\x01s",
    "half an entry": b"}(K\x01u",
    "no mark": b"K\x01t",
    "nothing to pop": b"\x85",
    "nothing to remember": b"q\x00",
    "nothing remembered": b"h\x00",
    "an open mark": b"N(",
    "two values": b"NN",
    "nothing": b"",
    "more after the end": b"N.N",
    "a protocol of later": b"\x80\x06N",
    "text that is none": b"X\x02\0\0\0\xff\xff",
    "half a pair": b"X\x03\0\0\0\xed\xa0\x80",
    "a global without an end": b"ctorch",
    "a global of a number": b"K\x01K\x01\x93",
    "a list in itself": b"]q\x00h\x00a",
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHER)
def test_nothing_else_is_a_value(tmp_path: Path, kind: str) -> None:
    refused(tmp_path, PROTO + OTHER[kind] + b".", r"x\.pt: (unsafe: |storage '.*' is missing)")


KNOWN = {*b".JKMGXN](})tbasequrhjcQR", 0x88, 0x89, 0x8A, 0x8C, *b"\x85\x86\x87\x93\x94\x95\x80"}


def test_every_other_opcode_is_refused(tmp_path: Path) -> None:
    for code in set(range(256)) - KNOWN:
        with pytest.raises(IntegrityError, match=f"has opcode {code:#04x} at byte 4"):
            load(tmp_path, PROTO + b"N" + bytes([code]) + b".")


def shared(levels: int, kind: bytes) -> bytes:
    """A value that holds the one before it twice, and so on: 2^levels leaves of a few bytes."""
    program = b"K\x01q\x00"
    for i in range(levels):
        slot = bytes([i])
        pair = {b"t": b"h" + slot + b"h" + slot + b"\x86", b"]": b"](h" + slot + b"h" + slot + b"e"}
        program += pair[kind] + b"q" + bytes([i + 1])
    return PROTO + tuple_of(program) + b"."


BOMBS = {
    "shared tuples": shared(25, b"t"),
    "shared lists": shared(25, b"]"),
    "lists": PROTO + b"](" + b"]" * (7 << 20) + b"e.",
    "marks": PROTO + b"(" * (7 << 20),
    "nested": PROTO + b"]" * 50_000 + b"a" * 49_999 + b".",
    "long size": PROTO + tuple_of(b"K\x00" * 100_000) + b"q\x00"
    + (SIZE + b"h\x00\x85R") * 20_000 + b".",
    "long state": PROTO + b"}(" + b"".join(whole(i) + b"N" for i in range(100_000)) + b"uq\x00"
    + b"}h\x00b" * 20_000 + b".",
    "long keys": PROTO + b"}" + shared(200, b"t")[2:-1] + b"Ns.",
    "size of a storage": PROTO + SIZE + storage() + b"\x85R.",
}  # fmt: skip


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_pickle_stays_small(tmp_path: Path, kind: str) -> None:
    refused_within(torch_zip.load, put(tmp_path, BOMBS[kind]), match="unsafe: ")


def test_what_is_shared_a_little_is_read(tmp_path: Path) -> None:
    voice = {"embedding": np.arange(4, dtype=np.float32)}
    writer.save(tmp_path / "x.pt", {"a": voice, "b": voice})
    found = torch_zip.load(tmp_path / "x.pt")
    assert found["a"]["embedding"].tolist() == found["b"]["embedding"].tolist() == [0, 1, 2, 3]


def test_metadata_of_a_state_dict_is_ignored(tmp_path: Path) -> None:
    tree: Any = OrderedDict(a=np.ones(2, np.float32))
    tree._metadata = OrderedDict([("", {"version": 1})])
    writer.save(tmp_path / "x.pt", tree)
    assert b"_metadata" in (tmp_path / "x.pt").read_bytes()
    assert list(torch_zip.load(tmp_path / "x.pt")) == ["a"]


VALUES: dict[Any, Any] = {
    "text": "ä",
    "none": None, "yes": True, "no": False, "list": [1, [2]], "pairs": ((), (1,), (1, 2)),
    "triple": (1, 2, 3), "four": (1, 2, 3, 4), "numbers": [0, 255, 65535, -1, 1 << 40, -(1 << 62)],
    "fraction": -0.5, 3: "three", "empty": [{}, [], OrderedDict()], "long": "x" * 300,
}  # fmt: skip


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values_of_every_protocol_are_read(tmp_path: Path, protocol: int) -> None:
    found = load(tmp_path, pickle.dumps(VALUES, protocol))
    assert found == VALUES
    assert type(found["yes"]) is bool


def test_a_parameter_is_its_tensor(tmp_path: Path) -> None:
    value = tensor(storage(), 0, [4], [1])
    found = load(tmp_path, PROTO + PARAMETER + tuple_of(value, b"\x88", HOOKS) + b"R.")
    assert found.tolist() == [0, 1, 2, 3]


def test_a_size_is_a_tuple(tmp_path: Path) -> None:
    assert load(tmp_path, PROTO + SIZE + tuple_of(b"K\x02", b"K\x03") + b"\x85R.") == (2, 3)


def test_many_tensors_are_read_at_once(tmp_path: Path) -> None:
    """Fifteen times as many as a full-size checkpoint has."""
    many = b"".join(text(f"t{i}") + tensor(storage(), 0, [4], [1]) for i in range(5000))
    path = put(tmp_path, PROTO + b"}(" + many + b"u.")
    assert len(within(torch_zip.load, path)) == 5000
