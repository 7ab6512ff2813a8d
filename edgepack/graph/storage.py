"""How a finished graph's weights are stored."""

import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgepack.errors import UnsupportedError
from edgepack.graph.net import save_model
from edgepack.graph.rewrite import read_through_cast

_SMALLEST = 1024
_FLOAT16_MAX = float(np.finfo(np.float16).max)


def store_as_float16(model: Path, target: Path, leave: Collection[str] = ()) -> Path:
    """Write `model` to `target` with its weights in float16, cast to float32 where they are used.

    Vectors and small tables stay float32, as they take no space and norms need the precision. So do
    inputs of the operators `leave`, and scales of rows.
    Raises UnsupportedError if a weight does not fit into float16.
    """
    graph_model = ir.load(model)
    graph = graph_model.graph
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is None or tensor.dtype != ir.DataType.FLOAT:
            continue
        if len(tuple(tensor.shape)) < 2 or tensor.size < _SMALLEST or 1 in tensor.shape:
            continue
        if any(user.op_type in leave for user, _ in value.uses()):
            continue
        read_through_cast(graph, value, f"{value.name}.float16", _half(tensor))
    save_model(graph_model, target)
    return target


def _half(tensor: ir.TensorProtocol) -> ir.LazyTensor:
    def convert() -> ir.TensorProtocol:
        values = tensor.numpy()
        if np.abs(values).max() > _FLOAT16_MAX:
            raise UnsupportedError(f"{tensor.name} exceeds the range of float16; use fp32")
        return ir.tensor(values.astype(np.float16), name=tensor.name)

    shape = ir.Shape(tensor.numpy().shape)
    return ir.LazyTensor(convert, ir.DataType.FLOAT16, shape, name=tensor.name)


def parts(model: Path) -> list[Path]:
    """The files of a model: itself and, if it exists, its file of weights."""
    weights = model.with_name(f"{model.name}.data")
    return [model, weights] if weights.exists() else [model]


def values(tensor: ir.TensorProtocol) -> np.ndarray:
    """The values of a weight, memory-mapped from its file even if that has several hard links."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor.numpy()
    shape = tuple(int(n) for n in tensor.shape.numpy())
    return np.memmap(tensor.path, tensor.dtype.numpy(), "r", tensor.offset or 0, shape)


def unlinked(model: Path, folder: Path) -> Path:
    """The model, or a copy in `folder` if its weights have hard links, which onnx_ir refuses."""
    files = parts(model)
    if all(file.stat().st_nlink == 1 for file in files):
        return model
    for file in files:
        shutil.copyfile(file, folder / file.name)
    return folder / model.name
