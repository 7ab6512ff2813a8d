"""`.pt` files: what can be read, and what is refused."""

import hashlib
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch_zip_writer as writer
from bounded import refused_within
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepack.errors import EdgepackError, IntegrityError, UnsupportedError
from edgepack.model.checkpoint import torch_zip
from edgepack.model.checkpoint.folder import open_checkpoint


def saved(folder: Path, tree: Any) -> Path:
    path = folder / "x.pt"
    writer.save(path, tree)
    return path


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.int32])
def test_reads_every_dtype(tmp_path: Path, dtype: np.typing.DTypeLike) -> None:
    value: np.ndarray = np.arange(-6, 6).reshape(3, 4).astype(dtype)
    loaded = torch_zip.load(saved(tmp_path, {"a": value}))
    assert loaded["a"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(loaded["a"].astype(np.float64), value.astype(np.float64))


def test_shared_storage_and_strided_views(tmp_path: Path) -> None:
    storage = writer.Storage(np.dtype(np.float32), 24, lambda: np.arange(24, dtype=np.float32))
    tree = {
        "whole": writer.Tensor(storage, (4, 6)),
        "transposed": writer.Tensor(storage, (6, 4), 0, (1, 6)),
        "tail": writer.Tensor(storage, (2, 3), 12, (6, 2)),
    }
    loaded = torch_zip.load(saved(tmp_path, tree))
    whole = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(loaded["whole"], whole)
    np.testing.assert_array_equal(loaded["transposed"], whole.T)
    np.testing.assert_array_equal(loaded["tail"], whole[2:, ::2])
    assert np.shares_memory(loaded["whole"], loaded["transposed"])


def test_arrays_are_maps_of_the_file(tmp_path: Path) -> None:
    loaded = torch_zip.load(saved(tmp_path, {"a": np.ones((1000, 1000), np.float32)}))
    assert not loaded["a"].flags.owndata
    assert not loaded["a"].flags.writeable


@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    dtype=st.sampled_from([np.float32, np.float16, np.int64]),
)
@settings(max_examples=25, deadline=None)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, shape: list[int], dtype: np.typing.DTypeLike
) -> None:
    value: np.ndarray = np.random.default_rng(0).normal(size=shape).astype(dtype)
    tree = OrderedDict(a=value, nested={"b": value, "epoch": 3})
    loaded = torch_zip.load(saved(tmp_path_factory.mktemp("pt"), tree))
    np.testing.assert_array_equal(loaded["a"], value)
    np.testing.assert_array_equal(loaded["nested"]["b"], value)
    assert loaded["nested"]["epoch"] == 3


class Evil:
    """Runs a command when it is unpickled by an ordinary unpickler."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def archive(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return path


def test_a_pickle_that_calls_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    data = pickle.dumps({"w": Evil(marker)}, protocol=2)
    path = archive(tmp_path / "x.pt", {"x/data.pkl": data, "x/version": b"3"})
    with pytest.raises(IntegrityError, match=r"asks for (posix|os)\.system"):
        torch_zip.load(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins.eval",
        "torch._utils._rebuild_wrapper_subclass",
        "numpy.core.multiarray._reconstruct",
    ],
)
def test_unknown_globals_are_named(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    data = b"\x80\x02c" + f"{module}\n{attribute}\n".encode() + b"."
    path = archive(tmp_path / "x.pt", {"x/data.pkl": data})
    with pytest.raises(IntegrityError, match=name.replace(".", r"\.")):
        torch_zip.load(path)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "x/../../evil", "x\\evil"])
def test_entries_outside_the_archive_are_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "x.pt", {"x/data.pkl": pickle.dumps({}), name: b"x"})
    with pytest.raises(IntegrityError, match="outside"):
        torch_zip.load(path)


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": np.ones((64, 64), np.float32)})
    whole = path.read_bytes()
    for length in range(0, len(whole), 997):
        path.write_bytes(whole[:length])
        with pytest.raises(EdgepackError):
            torch_zip.load(path)


def test_tensor_beyond_its_storage(tmp_path: Path) -> None:
    storage = writer.Storage(np.dtype(np.float32), 4, lambda: np.zeros(4, np.float32))
    path = saved(tmp_path, {"a": writer.Tensor(storage, (2, 4))})
    with pytest.raises(IntegrityError, match="beyond its storage"):
        torch_zip.load(path)


def test_negative_stride(tmp_path: Path) -> None:
    storage = writer.Storage(np.dtype(np.float32), 4, lambda: np.zeros(4, np.float32))
    path = saved(tmp_path, {"a": writer.Tensor(storage, (4,), 3, (-1,))})
    with pytest.raises(IntegrityError, match="negative"):
        torch_zip.load(path)


def test_storage_shorter_than_it_says(tmp_path: Path) -> None:
    storage = writer.Storage(np.dtype(np.float32), 400, lambda: np.zeros(4, np.float32))
    with pytest.raises(IntegrityError, match="shorter"):
        torch_zip.load(saved(tmp_path, {"a": writer.Tensor(storage, (400,))}))


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": np.ones(4000, np.float32)})
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    with pytest.raises(IntegrityError, match="compressed or encrypted; torch"):
        torch_zip.load(archive(path, entries, zipfile.ZIP_DEFLATED))


def test_old_containers_are_unsupported(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2))
    with pytest.raises(UnsupportedError, match=r"pre-1\.6"):
        torch_zip.load(path)


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(IntegrityError, match="not a zip"):
        torch_zip.load(path)


def flipped(path: Path, name: str) -> None:
    """Change one bit in the middle of an entry."""
    with zipfile.ZipFile(path) as file:
        info = file.getinfo(name)
    data = bytearray(path.read_bytes())
    names = int.from_bytes(data[info.header_offset + 26 : info.header_offset + 28], "little")
    extra = int.from_bytes(data[info.header_offset + 28 : info.header_offset + 30], "little")
    data[info.header_offset + 30 + names + extra + info.file_size // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["x/data.pkl", "x/byteorder"])
def test_what_describes_the_tensors_is_what_its_checksum_says(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, {"a": np.ones(100, np.float32)})
    flipped(path, name)
    with pytest.raises(IntegrityError, match=f"'{name}' is not what its checksum says"):
        torch_zip.load(path)


def test_weights_are_what_their_checksum_says(tmp_path: Path) -> None:
    (tmp_path / "cosyvoice2.yaml").write_text("a: 1")
    checkpoint = open_checkpoint(tmp_path)
    path = saved(tmp_path, {"a": np.ones(100, np.float32)})
    torch_zip.check(path)
    assert checkpoint.sha256("x.pt") == hashlib.sha256(path.read_bytes()).hexdigest()
    flipped(path, "x/data/0")
    with pytest.raises(IntegrityError, match=r"x\.pt: 'x/data/0' is not what its checksum says"):
        checkpoint.sha256("x.pt")


@pytest.mark.parametrize("name", ["x/data/0", "x/data.pkl", "x/byteorder"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, {"a": np.ones(4, np.float32)})
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"little")
    with pytest.raises(IntegrityError, match="two zip entries have one name"):
        torch_zip.load(path)


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": np.ones(4, np.float32)})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"data\.pkl' is compressed or encrypted"):
        torch_zip.load(path)


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """Each of many names with the same megabytes would be checked, which takes for ever."""
    path = saved(tmp_path, {"a": np.zeros(1 << 18, np.float32)})
    with zipfile.ZipFile(path, "a") as whole:
        (data,) = (i for i in whole.infolist() if i.filename.endswith("data/0"))
        for number in range(1, 2000):
            other = zipfile.ZipInfo(data.filename.removesuffix("0") + str(number))
            other.header_offset, other.CRC = data.header_offset, data.CRC
            other.file_size = other.compress_size = data.file_size
            whole.filelist.append(other)
        whole._didModify = True  # type: ignore[attr-defined]
    for read in (torch_zip.load, torch_zip.check):
        refused_within(read, path, match="zip entries share their bytes")
