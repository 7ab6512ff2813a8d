"""The walk over an ONNX graph that writes a LiteRT file; what each operator becomes is a table."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgepack import discovery
from edgepack.builder.lowering.flatbuffer import Dims, Model, StoredWeight, Tensor
from edgepack.errors import UnsupportedError
from edgepack.graph.net import BATCH
from edgepack.graph.storage import values

Node = ir.Node
Operator = Callable[["Lowering", Node], Tensor | Sequence[Tensor]]

PACKAGE = "edgepack.builder.lowering.operators"
OPERATORS: dict[str, Operator] = {}

IMAGE = ":image"  # ends the name of a tensor that is one
_LARGE = 256  # elements of a constant that is loaded late


def lowers(*names: str) -> Callable[[Operator], Operator]:
    """Register a function as what ONNX operators become."""

    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


@dataclass
class Lowering:
    """The state of one walk: the model so far, and a tensor for every ONNX value seen."""

    stage: str
    model: Model = field(default_factory=Model)
    tensors: dict[ir.Value, Tensor] = field(default_factory=dict)
    done: set[Node] = field(default_factory=set)

    def refuse(self, node: Node, why: str) -> UnsupportedError:
        """The error for a node that cannot be lowered."""
        return UnsupportedError(f"{self.stage}: LiteRT lowering of {node.op_type}: {why}")

    def dims(self, value: ir.Value | None) -> Dims:
        """Axes of an ONNX value, None for those known only when it runs."""
        shape = present(value).shape
        if shape is None:
            raise UnsupportedError(f"{self.stage}: the number of axes of {value} is unknown")
        return tuple(n if isinstance(n, int) else None for n in shape)

    def array(self, value: ir.Value | None) -> np.ndarray | None:
        """The value of a constant, 64-bit integers as 32-bit; None for what is computed."""
        if value is None or value.const_value is None:
            return None
        return narrow(values(value.const_value))

    def get(self, value: ir.Value | None) -> Tensor:
        """The tensor of a value, in whatever layout it has."""
        value = present(value)
        if value not in self.tensors:
            self.tensors[value] = self._constant(value)
        return self.tensors[value]

    def plain(self, value: ir.Value | None) -> Tensor:
        """The tensor of a value with its axes in ONNX order."""
        value = present(value)
        tensor = self.get(value)
        if tensor.image:
            batch, _, time, channels = tensor.dims
            flat = self.reshape(tensor, (batch, time, channels))
            tensor = self.emit("TRANSPOSE", [flat, integers([0, 2, 1])], self.dims(value))
            self.tensors[value] = tensor
        return tensor

    def image(self, value: ir.Value | None) -> Tensor:
        """The tensor of a value of three axes as an image."""
        value = present(value)
        tensor = self.get(value)
        if not tensor.image:
            batch, channels, time = tensor.dims
            turned = self.emit("TRANSPOSE", [tensor, integers([0, 2, 1])], (batch, time, channels))
            tensor = self.reshape(turned, (batch, 1, time, channels), image=True)
            self.tensors[value] = tensor
        return tensor

    def reshape(self, tensor: Tensor, dims: Dims, *, image: bool = False) -> Tensor:
        """The same numbers with other axes, one of unknown length at most."""
        shape = [-1 if n is None else n for n in dims]
        if shape.count(-1) > 1:
            raise UnsupportedError(f"{self.stage}: LiteRT cannot reshape to {dims}")
        return self.emit("RESHAPE", [tensor, integers(shape)], dims, image=image, newShape=shape)

    def emit(
        self,
        code: str,
        inputs: Sequence[Tensor | np.ndarray | None],
        dims: Dims,
        *,
        dtype: Any = None,
        image: bool = False,
        **options: Any,
    ) -> Tensor:
        """Append an operator; its result has the element type of its first input by default."""
        tensors = [self.model.constant(i) if isinstance(i, np.ndarray) else i for i in inputs]
        first = next(tensor.dtype for tensor in tensors if tensor is not None)
        made = self.model.tensor("", dims, dtype or first)
        output = Tensor(made.index, made.dims, made.dtype, image)
        self.model.operator(code, tensors, output, **options)
        return output

    def only_user(self, value: ir.Value | None, operator: str) -> Node | None:
        """The single node that reads a value, if it is of that operator."""
        users = list(present(value).uses())
        if len(users) != 1 or present(value).is_graph_output() or users[0][0].op_type != operator:
            return None
        return users[0][0]

    def _constant(self, value: ir.Value) -> Tensor:
        tensor = value.const_value
        if tensor is None:
            raise UnsupportedError(f"{self.stage}: {value.name} is read before it is computed")
        if tensor.size < _LARGE:
            return self.model.constant(narrow(values(tensor)))
        narrowed = narrow(np.zeros(0, tensor.dtype.numpy())).dtype
        shape = tuple(int(n) for n in tensor.shape.numpy())
        name = str(value.name)
        weight = StoredWeight(name, "plain", shape, narrowed, lambda: narrow(values(tensor)))
        return self.model.weight(weight)


def present(value: ir.Value | None) -> ir.Value:
    """An input that has to be there; raises UnsupportedError if it is left out."""
    if value is None:
        raise UnsupportedError("LiteRT lowering: an operator lacks an input that it needs")
    return value


def narrow(value: np.ndarray) -> np.ndarray:
    """64-bit integers as 32-bit, as LiteRT computes with them."""
    if value.dtype != np.int64:
        return value
    limits = np.iinfo(np.int32)
    return np.clip(value, limits.min, limits.max).astype(np.int32)


def integers(values: Sequence[int]) -> np.ndarray:
    """A constant of 32-bit integers."""
    return np.array(values, np.int32)


def _one_row(graph: ir.Graph) -> None:
    """Give the axis of rows the length 1."""
    for value in (*graph.inputs, *graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape(1 if str(n) == BATCH else n for n in value.shape)


def lower(stage: str, source: Path, target: Path, signatures: Sequence[str]) -> None:
    """Write an ONNX file as a LiteRT file; raises UnsupportedError for what the table has not.

    Rows of a batch are computed one a call: XNNPACK's reshapes know one axis that changes, and that
    is time.
    """
    loaded = ir.load(source)
    _one_row(loaded.graph)
    ShapeInferencePass(data_prop=True)(loaded)
    graph = loaded.graph
    for module in discovery.names(PACKAGE):
        importlib.import_module(f"{PACKAGE}.{module}")
    missing = sorted({node.op_type for node in graph} - set(OPERATORS))
    if missing:
        raise UnsupportedError(f"{stage}: no LiteRT lowering for {', '.join(missing)}")
    c = Lowering(stage)
    inputs = {}
    for value in graph.inputs:
        dtype = (value.dtype or ir.DataType.UNDEFINED).numpy()
        tensor = c.model.tensor(str(value.name), c.dims(value), dtype)
        inputs[str(value.name)] = tensor
        if dtype == np.int64:
            tensor = c.emit("CAST", [tensor], tensor.dims, dtype=np.int32)
        c.tensors[value] = tensor
    for node in graph:
        if node in c.done:
            continue
        made = OPERATORS[node.op_type](c, node)
        tensors = [made] if isinstance(made, Tensor) else made
        for output, tensor in zip(node.outputs, tensors, strict=True):
            c.tensors.setdefault(output, tensor)
    results = {str(value.name): c.plain(value) for value in graph.outputs}
    named = {tensor.index for tensor in inputs.values()}
    for value, tensor in c.tensors.items():
        if value.producer() is not None and tensor.index not in named:
            named.add(tensor.index)
            c.model.rename(tensor, f"{value.name}{IMAGE if tensor.image else ''}")
    c.model.save(target, signatures, inputs, results)
