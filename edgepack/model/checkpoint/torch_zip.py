"""PyTorch `.pt` archives as numpy arrays, without PyTorch and without running the pickle's code.

A `.pt` file is a zip archive: `<root>/data.pkl` describes the objects, `<root>/data/<key>` holds
the raw storages. torch.save compresses neither. Storages are memory-mapped; tensors are views into
the map. The pickle is read by `pickle_program`, which can do nothing but describe tensors.
Source: torch/serialization.py, `_save` and `_load`.
"""

import mmap
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from edgepack.errors import IntegrityError, UnsupportedError
from edgepack.model.checkpoint import pickle_program

_MAX_PICKLE_BYTES = 8 << 20
_TOO_MUCH = (2 << 20) + 1  # bytes of a directory; 2 MiB are enough for 20,000 tensors
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 1
_CHECKED_AT_ONCE = 16 << 20


def load(path: Path) -> Any:
    """The object tree of a `.pt` file, every tensor a read-only memory-mapped array.

    Raises IntegrityError for a truncated, unsafe or inconsistent file, and UnsupportedError for
    the pre-1.6 container or a big-endian archive.
    """
    with _opened(path) as (entries, data):
        root = _root(entries)
        order = entries.get(f"{root}byteorder")
        if order and _small(order, data) != b"little":
            raise UnsupportedError("big-endian archive")
        cache: dict[str, np.ndarray] = {}

        def read(key: str, dtype: np.dtype[Any], count: int) -> np.ndarray:
            name = f"{root}data/{key}"
            if name not in entries:
                raise IntegrityError(f"storage {key[:64]!r} is missing")
            raw = cache.get(key)
            if raw is None:
                raw = cache[key] = _stored(data, entries[name])
            if not 0 <= count * dtype.itemsize <= raw.size:
                raise IntegrityError(f"storage {key} is shorter than its record says")
            return raw[: count * dtype.itemsize].view(dtype)

        return pickle_program.run(_small(entries[f"{root}data.pkl"], data), read)


def check(path: Path) -> None:
    """Read all of a `.pt` file; raises IntegrityError if the CRC-32 of an entry does not match."""
    with _opened(path) as (entries, data):
        for entry in entries.values():
            _check(entry, _stored(data, entry))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Mapping[str, zipfile.ZipInfo], mmap.mmap]]:
    """Entries of an archive by name, and the file as a map; errors inside name the file."""
    with path.open("rb") as file:
        head = file.read(4)
        if head[:2] != b"PK":
            if head[:1] == b"\x80":
                raise UnsupportedError(
                    f"{path}: PyTorch's pre-1.6 container; save it again with a current torch.save"
                )
            raise IntegrityError(f"{path}: not a zip archive; download the file again")
        try:
            yield _directory(file), mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (IntegrityError, UnsupportedError) as error:
            raise type(error)(f"{path}: {error}; refused") from None
        except Exception as error:  # zipfile may fail in any way on a corrupt file
            raise IntegrityError(
                f"{path}: corrupt archive ({type(error).__name__}: {error}); download it again"
            ) from None


class _Bounded:
    """A file for zipfile that refuses to read more at once than a sound zip directory needs."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self.seekable, self._file = file.seek, file.tell, file.seekable, file

    def read(self, count: int = -1) -> bytes:
        data = self._file.read(min(count, _TOO_MUCH) if count >= 0 else _TOO_MUCH)
        if len(data) == _TOO_MUCH:
            raise IntegrityError("unsafe: the archive has a directory of more than 2 MiB")
        return data


def _directory(file: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    with zipfile.ZipFile(_Bounded(file)) as archive:
        found = archive.infolist()
    entries = {info.filename: info for info in found}
    for name in entries:
        if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
            raise IntegrityError(f"unsafe: zip entry {name!r} points outside the archive")
    if len(entries) < len(found):
        raise IntegrityError("unsafe: two zip entries have one name")
    in_order = sorted(found, key=lambda info: info.header_offset)
    for one, other in pairwise(in_order):
        if one.header_offset + _LOCAL_HEADER.size + one.compress_size > other.header_offset:
            raise IntegrityError("unsafe: zip entries share their bytes")
    return entries


def _root(entries: Mapping[str, zipfile.ZipInfo]) -> str:
    """The top folder of the archive, which holds all entries, with a slash at its end."""
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise IntegrityError("not one data.pkl inside")
    return pickles[0].removesuffix("data.pkl")


def _small(info: zipfile.ZipInfo, data: mmap.mmap) -> bytes:
    """The whole content of a small entry, its checksum verified."""
    raw = _stored(data, info)
    if raw.size > _MAX_PICKLE_BYTES:
        name = PurePosixPath(info.filename).name
        raise IntegrityError(f"unsafe: {name} is larger than 8 MiB")
    _check(info, raw)
    return raw.tobytes()


def _check(info: zipfile.ZipInfo, raw: np.ndarray) -> None:
    """Verify the checksum of an entry, reading it piece by piece."""
    found = 0
    for start in range(0, raw.size, _CHECKED_AT_ONCE):
        found = zlib.crc32(raw[start : start + _CHECKED_AT_ONCE].data, found)
    if found != info.CRC:
        raise IntegrityError(f"{info.filename!r} is not what its checksum says; download it again")


def _stored(data: mmap.mmap, info: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of one entry, as a view into the map."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & _ENCRYPTED:
        raise IntegrityError(
            f"unsafe: {info.filename!r} is compressed or encrypted; torch.save does neither"
        )
    magic, name_length, extra_length = _LOCAL_HEADER.unpack_from(data, info.header_offset)
    start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if magic != b"PK\x03\x04" or start + info.file_size > len(data):
        raise IntegrityError(f"zip entry {info.filename!r} is cut off")
    return np.frombuffer(data, np.uint8, info.file_size, start)
