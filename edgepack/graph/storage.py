"""How a finished graph's weights are stored."""

import shutil
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgepack.errors import UnsupportedError
from edgepack.graph.net import save_model

_SMALLEST = 1024
_FLOAT16_MAX = float(np.finfo(np.float16).max)


def store_as_float16(model: Path, target: Path, leave: Collection[str] = ()) -> Path:
    """Write `model` to `target` with its weights in float16, cast to float32 where they are used.

    Vectors and small tables stay float32: they weigh nothing, and norms need the precision. So do
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
        half = ir.Value(
            name=f"{value.name}.float16",
            shape=value.shape,
            type=ir.TensorType(ir.DataType.FLOAT16),
            const_value=_half(tensor),
        )
        cast = ir.node("Cast", [half], {"to": ir.DataType.FLOAT})
        cast.outputs[0].shape, cast.outputs[0].type = value.shape, value.type
        ir.convenience.replace_all_uses_with(value, cast.outputs[0])
        del graph.initializers[str(value.name)]
        graph.register_initializer(half)
        graph.insert_before(graph[0], cast)
        cast.outputs[0].name = value.name
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
    """A model file and, where there is one, its weights."""
    weights = model.with_name(f"{model.name}.data")
    return [model, weights] if weights.exists() else [model]


def values(tensor: ir.TensorProtocol) -> np.ndarray:
    """The numbers of a weight of ours, mapped from its file even if that has a second name."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor.numpy()
    shape = tuple(int(n) for n in tensor.shape.numpy())
    return np.memmap(tensor.path, tensor.dtype.numpy(), "r", tensor.offset or 0, shape)


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A small weight of a finished graph, registered once by its name."""
    if name not in graph.initializers:
        tensor = ir.tensor(array, name=name)
        graph.register_initializer(
            ir.Value(
                name=name,
                shape=ir.Shape(array.shape),
                type=ir.TensorType(tensor.dtype),
                const_value=tensor,
            )
        )
    return graph.initializers[name]


def drop_unread(graph: ir.Graph) -> None:
    """Remove weights that no node reads any more."""
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            del graph.initializers[name]


def unlinked(model: Path, folder: Path) -> Path:
    """The model, or a copy in `folder` if its weights have a second name, which onnx_ir refuses."""
    files = parts(model)
    if all(file.stat().st_nlink == 1 for file in files):
        return model
    for file in files:
        shutil.copyfile(file, folder / file.name)
    return folder / model.name
