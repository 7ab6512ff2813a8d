"""PyTorch `.pt` archives as numpy arrays, without PyTorch and without running the pickle's code.

A `.pt` file is a zip archive: `<root>/data.pkl` describes the objects, `<root>/data/<key>` holds
the raw storages, uncompressed. Storages are memory-mapped; tensors are views into the map.
Only the globals in `_ALLOWED` are resolved, and none of them does more than describe a tensor.
Source: torch/serialization.py, `_save` and `_load`.
"""

import collections
import io
import math
import mmap
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, cast

import ml_dtypes
import numpy as np

from edgepack.errors import IntegrityError, UnsupportedError

_MAX_PICKLE_BYTES = 64 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")

_STORAGES: Mapping[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


class _StorageType(NamedTuple):
    dtype: np.dtype[Any]


def _rebuild_tensor(
    storage: np.ndarray, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> np.ndarray:
    """A strided view of a storage (`torch._utils._rebuild_tensor_v2`); bounds are checked."""
    if not isinstance(storage, np.ndarray) or len(size) != len(stride):
        raise ValueError("malformed tensor record")
    if min((offset, *size, *stride)) < 0:
        raise ValueError("negative tensor offset, size or stride")
    if math.prod(size) == 0:
        return np.empty(size, storage.dtype)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if last >= storage.size:
        raise ValueError(f"tensor of {size} reaches beyond its storage of {storage.size} values")
    if math.prod(size) > storage.size:
        raise ValueError(f"tensor of {size} is larger than its storage of {storage.size} values")
    view = np.lib.stride_tricks.as_strided(
        storage[offset:], size, [s * storage.itemsize for s in stride], writeable=False
    )
    return np.asarray(view)


def _rebuild_parameter(data: np.ndarray, *_: object) -> np.ndarray:
    """A parameter is its data (`torch._utils._rebuild_parameter`)."""
    return data


_ALLOWED: Mapping[tuple[str, str], Callable[..., Any] | _StorageType] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, storage: Callable[[str, np.dtype[Any], int], Any]):
        super().__init__(stream)
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise IntegrityError(f"unsafe: the pickle asks for {module}.{name}") from None

    def persistent_load(self, pid: Any) -> np.ndarray:
        tag, kind, key, _location, numel = pid
        if tag != "storage" or not isinstance(kind, _StorageType):
            raise ValueError("unknown persistent record")
        return self._storage(str(key), kind.dtype, int(numel))


def load(path: Path) -> Any:
    """The object tree of a `.pt` file, every tensor a read-only memory-mapped array.

    Raises IntegrityError for a truncated, unsafe or inconsistent file, and UnsupportedError for
    the pre-1.6 container or a big-endian archive.
    """
    with path.open("rb") as file:
        head = file.read(4)
        if head[:2] != b"PK":
            if head[:1] == b"\x80":
                raise UnsupportedError(
                    f"{path}: PyTorch's pre-1.6 container; save it again with a current torch.save"
                )
            raise IntegrityError(f"{path}: not a zip archive; download the file again")
        try:
            return _load(file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (IntegrityError, UnsupportedError) as error:
            raise type(error)(f"{path}: {error}; refused") from None
        except Exception as error:  # any parser may fail in any way on a corrupt file
            raise IntegrityError(
                f"{path}: corrupt archive ({type(error).__name__}: {error}); download it again"
            ) from None


def _load(file: BinaryIO, data: mmap.mmap) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        for name in entries:
            if name.startswith("/") or ".." in PurePosixPath(name).parts or "\\" in name:
                raise IntegrityError(f"unsafe: zip entry {name!r} points outside the archive")
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("no data.pkl inside")
        root = pickles[0].removesuffix("data.pkl")
        for name in (pickles[0], f"{root}byteorder"):
            if name in entries and entries[name].file_size > _MAX_PICKLE_BYTES:
                raise IntegrityError(f"unsafe: {name.removeprefix(root)} is larger than 64 MiB")
        if f"{root}byteorder" in entries and archive.read(f"{root}byteorder") != b"little":
            raise UnsupportedError("big-endian archive")
        stream = _described(archive.read(pickles[0]))

    cache: dict[str, np.ndarray] = {}

    def storage(key: str, dtype: np.dtype[Any], numel: int) -> np.ndarray:
        raw = cache.get(key)
        if raw is None:
            raw = cache[key] = _stored(data, entries[f"{root}data/{key}"])
        if numel < 0 or numel * dtype.itemsize > raw.size:
            raise ValueError(f"storage {key} is shorter than its record says")
        return raw[: numel * dtype.itemsize].view(dtype)

    return _Unpickler(stream, storage).load()


def _described(data: bytes) -> io.BytesIO:
    """A pickle whose memo is not larger than itself: its slots are allocated by their number."""
    for operation, argument, _ in pickletools.genops(data):
        if operation.name.endswith("PUT") and cast(int, argument) > len(data):
            raise IntegrityError(f"unsafe: the pickle asks for {argument} memo slots")
    return io.BytesIO(data)


def _stored(data: mmap.mmap, info: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of one uncompressed entry, as a view into the map."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise UnsupportedError(f"compressed zip entry {info.filename!r}")
    magic, name_length, extra_length = _LOCAL_HEADER.unpack_from(data, info.header_offset)
    start = info.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if magic != b"PK\x03\x04" or start + info.file_size > len(data):
        raise ValueError(f"zip entry {info.filename!r} is cut off")
    return np.frombuffer(data, np.uint8, info.file_size, start)
