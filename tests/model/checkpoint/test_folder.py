"""Checkpoint folders: what is there, what is missing, and state dicts in either container."""

import codecs
import hashlib
import json
import os
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch_zip_writer as writer
from bounded import refused_within
from safetensors.numpy import save_file
from support import DATA

from edgepack.builder.planning import checkpoint_folder
from edgepack.errors import IntegrityError, UsageError
from edgepack.model.checkpoint.folder import Checkpoint, open_checkpoint
from edgepack.model.families.cosyvoice2 import FAMILY

CONFIG = "cosyvoice2.yaml"
DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """A folder with a configuration and nothing else."""
    (tmp_path / CONFIG).write_text("sample_rate: 24000\n", "utf-8")
    return open_checkpoint(tmp_path)


def test_a_folder_is_known_by_its_configuration(checkpoint: Checkpoint) -> None:
    assert checkpoint.config_name == CONFIG
    assert checkpoint.config.positive("sample_rate") == 24000


def test_opening_reads_nothing(tmp_path: Path) -> None:
    for name in (CONFIG, "llm.pt"):
        (tmp_path / name).write_bytes(b"a: [")
    opened = open_checkpoint(tmp_path)
    with pytest.raises(UsageError, match=f"{CONFIG}: not valid YAML"):
        opened.config.section("llm")


@pytest.mark.parametrize("kind", ["nothing", "file", "empty", "other"])
def test_what_is_no_checkpoint_folder_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model"
    if kind == "file":
        path.write_bytes(b"")
    elif kind != "nothing":
        path.mkdir()
        (path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"no such checkpoint folder|not a CosyVoice checkpoint"):
        open_checkpoint(path)


def test_a_missing_file_is_named(checkpoint: Checkpoint) -> None:
    for ask in (checkpoint.file, checkpoint.sha256, checkpoint.json, checkpoint.objects):
        with pytest.raises(UsageError, match=r"a/b\.json is missing; is the download complete"):
            ask("a/b.json")
    with pytest.raises(UsageError, match=r"llm\.pt is missing"):
        checkpoint.tensors("llm")
    assert not checkpoint.has("a/b.json")


def test_a_folder_in_place_of_a_file_is_missing(checkpoint: Checkpoint) -> None:
    (checkpoint.folder / "llm.pt").mkdir()
    with pytest.raises(UsageError, match=r"llm\.pt is missing"):
        checkpoint.tensors("llm")


def test_a_hash_is_of_the_file(checkpoint: Checkpoint) -> None:
    wanted = hashlib.sha256(b"sample_rate: 24000\n").hexdigest()
    assert checkpoint.sha256(CONFIG) == wanted


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("container", ["pt", "safetensors"])
def test_state_dicts_keep_names_values_and_dtype(
    checkpoint: Checkpoint, container: str, dtype: np.typing.DTypeLike
) -> None:
    value: np.ndarray = np.linspace(-2, 2, 12).reshape(3, 4).astype(dtype)
    path = checkpoint.folder / f"flow.{container}"
    tree = {"b.weight": value, "a.bias": value[0].copy()}
    (writer.save if container == "pt" else lambda p, t: save_file(t, p))(path, tree)
    loaded = checkpoint.tensors("flow")
    assert set(loaded) == set(tree)
    for name, wanted in tree.items():
        assert loaded[name].dtype == np.dtype(dtype)
        assert loaded[name].tobytes() == wanted.tobytes()


def test_the_released_container_comes_first(checkpoint: Checkpoint) -> None:
    writer.save(checkpoint.folder / "llm.pt", {"a": np.zeros(1, np.float32)})
    save_file({"b": np.zeros(1, np.float32)}, checkpoint.folder / "llm.safetensors")
    assert set(checkpoint.tensors("llm")) == {"a"}


def test_numbers_of_a_training_checkpoint_are_left_out(checkpoint: Checkpoint) -> None:
    tree = {"a": np.zeros(1, np.float32), "epoch": 3, "step": 1.5}
    writer.save(checkpoint.folder / "llm.pt", tree)
    assert set(checkpoint.tensors("llm")) == {"a"}


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ([np.zeros(1, np.float32)], "holds a list, expected a state dict"),
        ({"model": {"a": np.zeros(1, np.float32)}}, "'model' is not a tensor"),
        ({"name": "x"}, "'name' is not a tensor"),
    ],
    ids=["list", "nested", "text"],
)
def test_what_is_no_state_dict_is_refused(
    checkpoint: Checkpoint, tree: object, reason: str
) -> None:
    writer.save(checkpoint.folder / "llm.pt", tree)
    with pytest.raises(UsageError, match=reason):
        checkpoint.tensors("llm")


@pytest.mark.parametrize("header", ['{"a": 1', '{"a": {"dtype": "F8_E4M3"}}', None])
def test_a_damaged_safetensors_file_is_refused(checkpoint: Checkpoint, header: str | None) -> None:
    entry = {"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
    data = (header or json.dumps(entry)).encode()
    path = checkpoint.folder / "llm.safetensors"
    path.write_bytes(len(data).to_bytes(8, "little") + data + bytes(4))
    with pytest.raises(IntegrityError, match=r"llm\.safetensors: not a readable"):
        checkpoint.tensors("llm")


def test_every_truncation_of_a_safetensors_file_is_an_error(checkpoint: Checkpoint) -> None:
    path = checkpoint.folder / "llm.safetensors"
    save_file({"a": np.ones((8, 8), np.float32)}, path)
    whole = path.read_bytes()
    for length in range(0, len(whole), 41):
        path.write_bytes(whole[:length])
        with pytest.raises(IntegrityError):
            checkpoint.tensors("llm")


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "3", "\udcff", '{"a": NaN}', '{"a": ' + "9" * 5000 + "}"]
)
def test_a_file_that_is_no_json_object_is_refused(checkpoint: Checkpoint, text: str) -> None:
    path = checkpoint.folder / "config.json"
    path.write_text(text, "utf-8", errors="surrogateescape")
    with pytest.raises(UsageError, match=r"config\.json: (not valid JSON|not UTF-8|the top level)"):
        checkpoint.json("config.json")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[" * 40 + "]" * 40, '{"a":' * 33 + "1" + "}" * 33]
)
def test_a_json_file_without_end_is_refused(checkpoint: Checkpoint, text: str) -> None:
    (checkpoint.folder / "config.json").write_text(text)
    refused_within(checkpoint.json, "config.json", match=r"config\.json: nested too deeply")


def test_a_json_file_of_any_size_is_not_read(checkpoint: Checkpoint) -> None:
    with (checkpoint.folder / "config.json").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        checkpoint.json("config.json")


def test_the_object_tree_of_another_file_is_as_it_was_saved(checkpoint: Checkpoint) -> None:
    speakers = open_checkpoint(DATA / "checkpoints" / "cosyvoice2-s1").objects("spk2info.pt")
    assert set(speakers) == {"spk_sft", "spk_zero_shot"}
    assert speakers["spk_sft"]["embedding"].shape == (1, 192)


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path) -> None:
    """As editors of Windows put it before all files of text."""
    demo = checkpoint_folder("demo")
    shutil.copytree(demo, tmp_path / "demo", copy_function=os.link)
    original = open_checkpoint(demo)
    marked = open_checkpoint(tmp_path / "demo")
    texts = [p for p in marked.folder.rglob("*") if p.suffix in (".json", ".yaml", ".txt")]
    assert {"config.json", "vocab.json", "merges.txt", CONFIG} <= {path.name for path in texts}
    for path in texts:
        data = path.read_bytes()
        path.unlink()  # it is the same file as the demo voice's
        path.write_bytes(codecs.BOM_UTF8 + data)
    for each in (False, True):
        if each:
            (marked.folder / "CosyVoice-BlankEN" / "tokenizer.json").unlink()
        assert FAMILY.tokenizer(marked) == FAMILY.tokenizer(original)
    assert FAMILY.host(marked) == FAMILY.host(original)
    for name in ("config.json", "generation_config.json"):
        name = f"CosyVoice-BlankEN/{name}"
        assert marked.json(name) == original.json(name)


@pytest.mark.parametrize("name", [CONFIG, "config.json"])
def test_a_file_that_is_not_utf8_says_how_to_convert_it(tmp_path: Path, name: str) -> None:
    (tmp_path / CONFIG).touch()
    (tmp_path / name).write_bytes('{"name": "你好"}'.encode("gbk"))
    opened = open_checkpoint(tmp_path)
    with pytest.raises(UsageError, match=rf"{name}: not UTF-8 text; convert it first"):
        opened.config.section("x") if name == CONFIG else opened.json(name)
