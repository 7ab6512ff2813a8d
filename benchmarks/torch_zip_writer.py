"""Writes `.pt` files as `torch.save` would, without PyTorch, one tensor in memory at a time."""

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

_STORAGE_NAMES = {
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.int32): "IntStorage",
}
_ALIGNMENT = 64


@dataclass(frozen=True)
class Storage:
    """Raw values of a tensor, made when they are written. Two tensors may share one."""

    dtype: np.dtype[Any]
    size: int
    make: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Tensor:
    """A strided view of a storage, offset and strides counted in values."""

    storage: Storage
    shape: tuple[int, ...]
    offset: int = 0
    strides: tuple[int, ...] | None = None

    def row_major(self) -> tuple[int, ...]:
        """The strides, contiguous unless given."""
        if self.strides is not None:
            return self.strides
        steps = [1]
        for n in self.shape[:0:-1]:
            steps.append(steps[-1] * n)
        return tuple(reversed(steps)) if self.shape else ()


def tensor(value: np.ndarray) -> Tensor:
    """A tensor over the values of an array."""
    value = np.asarray(value)
    return Tensor(Storage(value.dtype, value.size, lambda: value), value.shape)


def save(path: Path, tree: Any, root: str | None = None) -> None:
    """Write a tree of dicts, numbers and `Tensor`s (or arrays) to a `.pt` file."""
    root = root or path.stem
    keys: dict[int, tuple[str, Storage]] = {}
    stream = io.BytesIO()
    with _torch_names() as torch_names:
        _Pickler(stream, keys, torch_names).dump(tree)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        _write(archive, f"{root}/data.pkl", stream.getvalue())
        _write(archive, f"{root}/byteorder", b"little")
        for key, storage in keys.values():
            _write(archive, f"{root}/data/{key}", np.ascontiguousarray(storage.make()))
        _write(archive, f"{root}/version", b"3\n")


def _write(archive: zipfile.ZipFile, name: str, payload: bytes | np.ndarray) -> None:
    """One stored entry whose payload starts at a multiple of 64 bytes, as PyTorch aligns it."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    data = payload if isinstance(payload, bytes) else payload.view(np.uint8).reshape(-1).data
    size = len(data)
    start = archive.start_dir + 30 + len(name.encode())
    big = size >= zipfile.ZIP64_LIMIT
    start += 20 if big else 0
    padding = -(start + 4) % _ALIGNMENT
    info.extra = b"FB" + padding.to_bytes(2, "little") + bytes(padding)
    info.file_size = size
    with archive.open(info, "w", force_zip64=big) as entry:
        for offset in range(0, size, 1 << 24):
            entry.write(data[offset : offset + (1 << 24)])


class _Pickler(pickle.Pickler):
    def __init__(
        self,
        stream: io.BytesIO,
        keys: dict[int, tuple[str, Storage]],
        names: Mapping[str, Any],
    ) -> None:
        super().__init__(stream, protocol=2)
        self._keys, self._names = keys, names

    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, Storage):
            return None
        key, _ = self._keys.setdefault(id(obj), (str(len(self._keys)), obj))
        return ("storage", self._names[_STORAGE_NAMES[obj.dtype]], key, "cpu", obj.size)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray):
            obj = tensor(obj)
        if isinstance(obj, Tensor):
            rebuild = self._names["_rebuild_tensor_v2"]
            hooks: OrderedDict[str, Any] = OrderedDict()
            arguments = (obj.storage, obj.offset, obj.shape, obj.row_major(), False, hooks)
            return rebuild, arguments
        return NotImplemented


@contextmanager
def _torch_names() -> Iterator[dict[str, Any]]:
    """Importable stand-ins for the torch names a `.pt` pickle mentions."""
    utils, torch = types.ModuleType("torch._utils"), types.ModuleType("torch")
    names: dict[str, Any] = {
        name: type(name, (), {"__module__": "torch"}) for name in _STORAGE_NAMES.values()
    }

    def _rebuild_tensor_v2() -> None: ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    vars(torch).update(names)
    vars(utils)["_rebuild_tensor_v2"] = _rebuild_tensor_v2
    hidden = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules.update({"torch": torch, "torch._utils": utils})
    try:
        yield names | {"_rebuild_tensor_v2": _rebuild_tensor_v2}
    finally:
        for name, module in hidden.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
