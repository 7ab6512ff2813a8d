"""Every reader over changed files: a value or an error of ours, never anything else."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.mutation import as_json, mutated, paths
from fuzz.readers import QWEN
from fuzz.seeds import pickled, small_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepack.builder.choices import read_choices, read_solvers
from edgepack.errors import EdgepackError
from edgepack.model.checkpoint import pickle_program, safetensors, tokenizer, torch_zip
from edgepack.model.checkpoint.config import Config
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.families.cosyvoice2 import FAMILY

EXAMPLES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small valid file of each kind, under the names of a checkpoint."""
    folder = tmp_path_factory.mktemp("small")
    small_checkpoint(folder)
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
