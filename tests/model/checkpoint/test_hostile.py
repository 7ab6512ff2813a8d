"""Checkpoints made to harm: nothing in them is run, and nothing outside them is read."""

import io
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch_zip_writer as writer
from bounded import refused_within, within
from onnx import TensorProto, helper
from support import DATA

from edgepack.builder.carried import carry
from edgepack.cli import main
from edgepack.errors import EdgepackError, IntegrityError, UsageError
from edgepack.model.checkpoint import torch_zip
from edgepack.model.inspection import inspect_checkpoint

SOURCE = DATA / "checkpoints" / "cosyvoice2-s2"
FILES = ("llm.pt", "flow.pt", "hift.pt", "spk2info.pt")
EXTERNAL = TensorProto.EXTERNAL


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint to change, by replacing files; `executed` would appear in the folder above."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(SOURCE, tmp_path / "model", copy_function=os.link))


def archive(description: bytes, **entries: bytes) -> bytes:
    """A `.pt` file around a pickle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("x/data.pkl", description)
        for name, data in entries.items():
            file.writestr(f"x/{name}", data)
    return stream.getvalue()


def put(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(data)


class Evil:
    """Runs a command when an ordinary unpickler reads it."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


CALL = b"(X\x0e\x00\x00\x00touch executed"
PICKLES = {
    "reduce": pickle.dumps({"w": Evil()}, 2),
    "protocol 0": pickle.dumps({"w": Evil()}, 0),
    "framed": pickle.dumps({"w": Evil()}, 5),
    "inst": CALL + b"ios\nsystem\n.",
    "object": b"(cos\nsystem\nX\x0e\x00\x00\x00touch executedo.",
    "dotted": b"\x80\x04\x8c\x0bcollections\x8c\x12OrderedDict.__init__\x93.",
    "importing": b"c__builtin__\n__import__\n(X\x02\x00\x00\x00ostR.",
    "extension": b"\x80\x02\x82\x01.",
    "kind": b"\x80\x02(X\x07\x00\x00\x00storagecos\nsystem\nX\x01\x00\x00\x000NK\x01tQ.",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", PICKLES)
def test_a_pickle_with_code_is_refused_and_not_run(folder: Path, name: str, kind: str) -> None:
    put(folder / name, archive(PICKLES[kind]))
    with pytest.raises(IntegrityError, match=name) as caught:
        inspect_checkpoint(folder)
    assert "\n" not in str(caught.value)
    assert not Path("executed").exists()


def test_these_pickles_would_run_in_an_ordinary_unpickler(folder: Path) -> None:
    for kind in ("reduce", "protocol 0", "framed", "inst", "object"):
        pickle.loads(PICKLES[kind])
        Path("executed").unlink()


@pytest.mark.parametrize("command", ["inspect", "build"])
@pytest.mark.parametrize("name", [*FILES, "cosyvoice2.yaml"])
def test_the_command_line_refuses_in_one_line(
    folder: Path, capfd: pytest.CaptureFixture[str], name: str, command: str
) -> None:
    data = archive(PICKLES["reduce"])
    if name.endswith(".yaml"):
        data = b"a: !apply:os.system ['touch executed']"
    put(folder / name, data)
    options = ["-t", "intel-cpu", "-o", "out", "--quiet"] if command == "build" else ["--quiet"]
    code = main([command, "model", *options])
    assert code == IntegrityError.exit_code
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("edgepack: ")
    assert err.count("\n") == 1
    assert name in err
    assert not list(Path().rglob("executed"))
    assert not [path for path in Path().rglob("*") if path.name == "manifest.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [0, 3, 1000, -1])
def test_a_cut_off_file_is_refused(folder: Path, name: str, size: int) -> None:
    put(folder / name, (SOURCE / name).read_bytes()[:size])
    with pytest.raises(IntegrityError, match=name):
        inspect_checkpoint(folder)


HUGE = struct.pack("<I", 1 << 28)
SIZES = {
    "memo slots in text": (b"Np268435456\n.", "opcode 0x70"),
    "bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b".", "opcode 0x8e"),
    "text": (b"\x80\x02X" + HUGE + b".", "268435456 bytes to read but ends"),
    "bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b".", "opcode 0x96"),
    "number": (b"\x80\x02\x8b" + HUGE + b".", "opcode 0x8b"),
    "frame": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.", "a frame that is cut off"),
}


@pytest.mark.parametrize("kind", SIZES)
def test_a_declared_size_allocates_nothing(tmp_path: Path, kind: str) -> None:
    data, reason = SIZES[kind]
    put(tmp_path / "x.pt", archive(data))
    with pytest.raises(IntegrityError, match=f"the pickle has {reason} at byte"):
        torch_zip.load(tmp_path / "x.pt")


def test_the_number_of_a_memo_slot_allocates_nothing(tmp_path: Path) -> None:
    put(tmp_path / "x.pt", archive(b"\x80\x02Nr\xff\xff\xff\xff."))
    assert within(torch_zip.load, tmp_path / "x.pt", seconds=0.1, megabytes=20) is None


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((1 << 40,), (0,)), ((1 << 40, 1 << 40), (0, 0)), ((4, 4), (1, 0)), ((1 << 62,), (1,))],
)
def test_a_tensor_is_never_larger_than_its_storage(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    storage = writer.Storage(np.dtype(np.float32), 4, lambda: np.zeros(4, np.float32))
    writer.save(tmp_path / "x.pt", {"a": writer.Tensor(storage, shape, 0, strides)})
    with pytest.raises(IntegrityError, match="storage"):
        torch_zip.load(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["data.pkl", "byteorder"])
def test_what_would_unpack_to_a_lot_is_refused(tmp_path: Path, name: str) -> None:
    for kind, reason in ((zipfile.ZIP_DEFLATED, "compressed"), (zipfile.ZIP_STORED, "8 MiB")):
        with zipfile.ZipFile(tmp_path / "x.pt", "w") as file:
            for entry, data in {"data.pkl": b"N.", name: bytes(9 << 20)}.items():
                file.writestr(f"x/{entry}", data, kind if entry == name else None)
        refused_within(torch_zip.load, tmp_path / "x.pt", match=reason)


def test_a_file_that_is_a_pipe_or_a_device_is_not_read(folder: Path) -> None:
    (folder / "llm.pt").unlink()
    os.mkfifo(folder / "llm.pt")
    with pytest.raises(UsageError, match=r"llm\.pt is missing"):
        inspect_checkpoint(folder)
    (folder / "llm.pt").unlink()
    (folder / "llm.pt").symlink_to("/dev/zero")
    with pytest.raises(UsageError, match=r"llm\.pt is missing"):
        inspect_checkpoint(folder)


def test_links_that_lead_nowhere_or_in_circles_are_refused(folder: Path) -> None:
    for target in ("nowhere", "llm.pt"):
        (folder / "llm.pt").unlink()
        (folder / "llm.pt").symlink_to(target)
        with pytest.raises(EdgepackError) as caught:
            inspect_checkpoint(folder)
        assert caught.value.exit_code == UsageError.exit_code


def external(place: str) -> onnx.ModelProto:
    """A network that takes a weight from a file outside its folder."""
    weight = TensorProto(name="w", dims=[2], data_type=TensorProto.FLOAT, data_location=EXTERNAL)
    weight.external_data.add(key="location", value="../secret")
    inner = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    nodes, initializers = [helper.make_node("Identity", ["w"], ["y"])], [weight]
    if place != "graph":
        constant = helper.make_node("Constant", [], ["w"], value=weight)
        body = [constant, nodes[0]] if place == "attribute in a branch" else nodes
        weights = [] if place == "attribute in a branch" else initializers
        branch = helper.make_graph(body, "branch", [], [inner], weights)
        nodes = [helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)]
        initializers = []
    graph = helper.make_graph(nodes, "g", [flag], [inner], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("place", ["graph", "branch", "attribute in a branch"])
def test_a_network_that_reads_other_files_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "secret").write_bytes(bytes(8))
    source = tmp_path / "model" / "campplus.onnx"
    source.write_bytes(external(place).SerializeToString())
    with pytest.raises(IntegrityError, match=r"campplus\.onnx: keeps weights in other"):
        carry(source, tmp_path, "enrolment/x.onnx")
    assert not (tmp_path / "enrolment").exists()
