"""Every reader over changed files: a value or an error of ours, never anything else."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_zip_writer as writer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from support import DATA

from edgepack.checkpoint import pickle_program, safetensors, tokenizer, torch_zip
from edgepack.checkpoint.config import Config
from edgepack.checkpoint.folder import Checkpoint
from edgepack.choices import read_choices, read_solvers
from edgepack.errors import EdgepackError
from edgepack.families.cosyvoice2 import FAMILY

SOURCE = DATA / "checkpoints" / "cosyvoice2-s2"
QWEN = "CosyVoice-BlankEN"
SOLVER = {"steps": [{"time": 0.0, "guided": False, "conditional": [1.0], "free": []}]}

EXAMPLES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small valid file of each kind, under the names of a checkpoint."""
    folder = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(0)
    weights = {f"w.{i}": rng.random((2, 3)).astype(np.float32) for i in range(3)}
    writer.save(folder / "llm.pt", weights)
    writer.save(folder / "spk2info.pt", {"a": {"embedding": weights["w.0"]}, "n": [1, (2.5, "x")]})
    save_file(weights, folder / "flow.safetensors")
    (folder / "cosyvoice2.yaml").write_bytes((SOURCE / "cosyvoice2.yaml").read_bytes())
    (folder / "recipe.yaml").write_text("ort: {speech_lm: nbits8, default: fp16}\n")
    (folder / "solver.json").write_text(json.dumps(SOLVER))
    (folder / QWEN).mkdir()
    vocabulary = {chr(97 + i): i for i in range(26)} | {"ab": 26, "abc": 27}
    (folder / QWEN / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / QWEN / "merges.txt").write_text("#version: 0.2\na b\nab c\n")
    added = {"28": {"content": "<x>"}}
    (folder / QWEN / "tokenizer_config.json").write_text(
        json.dumps({"added_tokens_decoder": added})
    )
    (folder / QWEN / "config.json").write_bytes((SOURCE / QWEN / "config.json").read_bytes())
    whole = tokenizer.build(Checkpoint(folder, "cosyvoice2.yaml"), QWEN, ["<y>"], 64)
    (folder / "whole" / QWEN).mkdir(parents=True)
    (folder / "whole" / QWEN / "tokenizer.json").write_text(whole)
    return folder


def host(path: Path) -> object:
    return FAMILY.host(Checkpoint(path.parent, path.name))


def text(path: Path) -> object:
    return tokenizer.build(Checkpoint(path.parent.parent, ""), QWEN, ["<y>"], 64)


def rows(path: Path) -> object:
    return FAMILY.text_rows(Checkpoint(path.parent.parent, ""))


def solvers(path: Path) -> object:
    return read_solvers(path, ["ort"])


def archive(path: Path) -> object:
    torch_zip.check(path)
    return torch_zip.load(path)


READERS: dict[str, Callable[[Path], object]] = {
    "llm.pt": torch_zip.load,
    "spk2info.pt": archive,
    "flow.safetensors": safetensors.load,
    "cosyvoice2.yaml": host,
    "recipe.yaml": read_choices,
    "solver.json": solvers,
    f"{QWEN}/vocab.json": text,
    f"{QWEN}/merges.txt": text,
    f"{QWEN}/tokenizer_config.json": text,
    f"{QWEN}/config.json": rows,
    f"whole/{QWEN}/tokenizer.json": text,
}
TOKENS = [
    b"{", b"}", b"[", b"]", b"&a ", b"*a", b"!ref <a>", b"<<: ", b"? ", b"- ", b": ", b"\n", b"\0",
    b"\xff", b'"', b"'", b"99999999999999999999", b"1e999", b"-1", b"null", b".nan", b"0x1f", b"a",
    b"!new:torch.x ", b"!!int ", b"\\ud800", b"(", b")", b".", b"t", b"R", b"b", b"Q", b"h\x00",
    b"q\x00", b"\x80\x04", b"\x8a\x08", b"\x88", b"ccopyreg\n_reconstructor\n", b"PK\x01\x02",
]  # fmt: skip


def mutated(data: bytes, seed: int) -> bytes:
    """A few bytes flipped, cut out, repeated or replaced by something that means something."""
    rng = random.Random(seed)
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


@pytest.mark.parametrize("name", READERS)
@given(seed=st.integers(0, 1 << 32))
@EXAMPLES
def test_a_changed_file_is_a_value_or_an_error_of_ours(small: Path, name: str, seed: int) -> None:
    path = small / name
    data = path.read_bytes()
    try:
        path.write_bytes(mutated(data, seed))
        with suppress(EdgepackError):
            READERS[name](path)
    finally:
        path.write_bytes(data)


@given(seed=st.integers(0, 1 << 32))
@EXAMPLES
def test_a_changed_pickle_is_a_value_or_an_error_of_ours(small: Path, seed: int) -> None:
    """Behind the checksum of the archive, which a change of its bytes does not get past."""
    program = pickled(small / "spk2info.pt")

    def read(key: str, dtype: np.dtype[Any], count: int) -> np.ndarray:
        return np.zeros(min(max(count, 0), 64), dtype)

    with suppress(EdgepackError):
        pickle_program.run(mutated(program, seed), read)


def pickled(path: Path) -> bytes:
    data = path.read_bytes()
    start = data.index(b"\x80\x02")
    return data[start : data.index(b"PK", start)]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**400, -(10**400), -(10**4000), 1 << 63, float("nan"), 1e308]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)
KINDS = st.sampled_from([int, float, str, bool, list, dict])


@given(value=VALUES, kind=KINDS)
def test_an_entry_has_its_type_or_is_an_error_of_ours(value: Any, kind: type[Any]) -> None:
    config = Config("a.yaml", {"key": value, "num_hidden_layers": value})
    reads: list[Callable[[], object]] = [
        lambda: config.get("key", kind),
        lambda: config.positive("key"),
        lambda: config.positive("num_hidden_layers"),
        lambda: config.section("key"),
        lambda: config.expect(key="silu"),
    ]
    for read in reads:
        with suppress(EdgepackError):
            read()


def paths(tree: Any) -> list[list[Any]]:
    """Where every value of a tree is."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found: list[list[Any]] = []
    for key, value in items:
        found.append([key])
        if isinstance(value, dict | list):
            found += [[key, *path] for path in paths(value)]
    return found


@pytest.mark.parametrize("name", [n for n in READERS if n.endswith(".json")])
@given(seed=st.integers(0, 1 << 32), value=VALUES)
@EXAMPLES
def test_another_value_anywhere_is_a_value_or_an_error_of_ours(
    small: Path, name: str, seed: int, value: Any
) -> None:
    path = small / name
    data = path.read_bytes()
    tree = node = json.loads(data)
    *steps, last = random.Random(seed).choice(paths(tree))
    for step in steps:
        node = node[step]
    node[last] = value
    try:
        path.write_text(as_json(tree), "utf-8")
        with suppress(EdgepackError):
            READERS[name](path)
    finally:
        path.write_bytes(data)


def as_json(tree: Any) -> str:
    """Whatever its numbers are: Python limits the digits that it writes."""
    if isinstance(tree, int) and abs(tree) > 1 << 64:
        return ("-" if tree < 0 else "") + "9" * (abs(tree).bit_length() // 3)
    if isinstance(tree, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{as_json(v)}" for k, v in tree.items()) + "}"
    if isinstance(tree, list):
        return "[" + ",".join(map(as_json, tree)) + "]"
    return json.dumps(tree)


def test_the_files_that_are_changed_are_read(small: Path) -> None:
    for name, read in READERS.items():
        assert read(small / name)


@pytest.mark.parametrize("line", [0, 7, 17, 23, 40, 79, 81, 86, 89])
@given(value=VALUES)
@EXAMPLES
def test_a_setting_is_a_value_or_an_error_of_ours(small: Path, line: int, value: Any) -> None:
    path = small / "cosyvoice2.yaml"
    data = path.read_bytes()
    lines = data.decode().splitlines()
    lines[line] = lines[line].partition(":")[0] + ": " + as_json(value)
    try:
        path.write_text("\n".join(lines), "utf-8")
        with suppress(EdgepackError):
            host(path)
    finally:
        path.write_bytes(data)
