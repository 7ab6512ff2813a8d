"""A network computed in float16, with islands of float32, and its float32 twin.

Both graphs share one file of weights. The twin repeats calls that overflow in float16 all the same.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgepack.errors import UnsupportedError
from edgepack.graph.net import save_model
from edgepack.graph.rewrite import add_weight, cast, constant, drop_unread, read_through_cast

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
LARGEST = float(np.finfo(np.float16).max)
SATURATED = 2.0**12  # what stands for a larger constant: as an exponent it is as good as infinity

_LARGEST_EXPONENT = 5.5
_STATES_ITS_TYPE = {"Cast", "ConstantOfShape", "Range"}
_TAKES_ANY = {"Shape", "Size"}
_SMALLEST_BYTES = 1024  # what is smaller is stored within the graphs


def twin_of(model: Path) -> Path:
    """The path of the float32 twin of a float16 network."""
    return model.with_suffix(".fp32.onnx")


def is_float(value: ir.Value | None) -> bool:
    """Whether it is a floating-point tensor of the fp32 hub or of what was made of it."""
    return value is not None and value.dtype in (FLOAT, HALF)


def exceeds(value: ir.Value | None, limit: float = LARGEST) -> bool:
    """Whether it is a weight with an entry that is larger than `limit`."""
    tensor = value.const_value if value is not None else None
    if tensor is None or tensor.dtype != FLOAT:
        return False
    return bool(np.abs(tensor.numpy()).max(initial=0.0) > limit)


def saturate(model: ir.Model) -> list[str]:
    """Replace constants beyond float16 by ±4096, in place; returns the names of those changed.

    Such constants mask positions in a softmax, for which ±4096 is large enough.
    """
    changed = []
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.size != 1 or not exceeds(value):
            continue
        number = np.clip(tensor.numpy(), -SATURATED, SATURATED).astype(np.float32)
        value.const_value = ir.tensor(number, name=value.name)
        changed.append(str(value.name))
    return changed


def limit_exponents(model: ir.Model) -> list[str]:
    """Lower the upper bound before an exponential to 5.5, in place; returns the names changed.

    Then `eˣ (eˣ + 2)` fits into float16 even if an engine ignores our float32 islands. It is a part
    of Mish, whose quotient is 1 at float16 precision for larger x.
    """
    changed = []
    for node in model.graph:
        bound = node.inputs[1] if node.op_type == "Min" and len(node.inputs) == 2 else None
        if bound is None or bound.const_value is None or bound.const_value.size != 1:
            continue
        if float(bound.const_value.numpy().item()) <= _LARGEST_EXPONENT:
            continue
        if [user.op_type for user, _ in node.outputs[0].uses()] != ["Exp"]:
            continue
        limit = np.full(bound.const_value.numpy().shape, _LARGEST_EXPONENT, np.float32)
        lowered = constant(model.graph, f"{node.name}.limit", limit)
        node.replace_input_with(1, lowered)
        changed.append(str(node.name))
    drop_unread(model.graph)
    return changed


@dataclass
class _Halver:
    """Converts a graph to float16 in one pass over its nodes; a value is cast only once."""

    graph: ir.Graph
    islands: Collection[str]
    casts: dict[tuple[int, ir.DataType], ir.Value] = field(default_factory=dict)

    def run(self, states: Collection[str]) -> None:
        """`states` are inputs and outputs that are float16 too; others keep their type."""
        for value in self.graph.inputs:
            if value.name in states:
                value.type = ir.TensorType(HALF)
        for node in list(self.graph):
            self._convert(node)
        for position, value in enumerate(self.graph.outputs):
            wanted = HALF if value.name in states else FLOAT
            if is_float(value) and value.dtype != wanted:
                self._retype_output(position, value, wanted)

    def _convert(self, node: ir.Node) -> None:
        if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
               for a in node.attributes.values()):  # fmt: skip
            raise UnsupportedError(f"{node.name}: {node.op_type} has a graph inside; use fp32")
        if node.op_type in _TAKES_ANY:
            return
        half = node.name not in self.islands and node.op_type not in _STATES_ITS_TYPE
        half = half and any(map(is_float, node.outputs))
        wanted = HALF if half else FLOAT
        for position, value in enumerate(node.inputs):
            if value is not None and is_float(value) and value.dtype != wanted:
                node.replace_input_with(position, self._as(value, wanted))
        if half:
            for value in filter(is_float, node.outputs):
                value.type = ir.TensorType(HALF)

    def _as(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        key = id(value), dtype
        if key not in self.casts:
            stored = value.const_value is not None
            self.casts[key] = self._stored(value) if stored else self._cast(value, dtype)
        return self.casts[key]

    def _stored(self, value: ir.Value) -> ir.Value:
        """The weight in float16; the float32 one is removed if no other node reads it."""
        tensor = value.const_value
        if tensor is None or exceeds(value):
            raise UnsupportedError(f"{value.name} exceeds the range of float16; use fp32")

        def convert() -> ir.TensorProtocol:
            return ir.tensor(tensor.numpy().astype(np.float16), name=f"{value.name}.float16")

        shape, name = ir.Shape(tensor.numpy().shape), f"{value.name}.float16"
        return add_weight(self.graph, name, ir.LazyTensor(convert, HALF, shape, name=name))

    def _cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The value in another type, from a Cast right after what computes it."""
        output = f"{value.name}.{dtype.name.lower()}"
        node = cast(value, dtype, output, f"{value.name}.cast.{len(self.casts)}")
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(producer, node)
        return node.outputs[0]

    def _retype_output(self, position: int, value: ir.Value, wanted: ir.DataType) -> None:
        """Let the graph give a Cast of this output, under its name."""
        name = value.name
        retyped = self._as(value, wanted)
        value.name, retyped.name = f"{name}.inner", name
        self.graph.outputs[position] = retyped


def compute_in_float16(
    model: ir.Model,
    twin: ir.Model,
    target: Path,
    islands: Collection[str],
    states: Collection[str] = (),
) -> Path:
    """Write a network that computes in float16 except for the nodes `islands`, and its twin.

    Inputs and outputs stay float32, except for the caches `states`. The twin computes in float32
    and reads the same float16 weights. Raises UnsupportedError for a weight that float16 cannot
    hold.
    """
    _Halver(model.graph, islands).run(states)
    drop_unread(model.graph)
    save_model(model, target)
    stored = ir.load(target).graph.initializers
    for name, value in list(twin.graph.initializers.items()):
        if name in stored:
            value.const_value = stored[name].const_value
        elif (half := stored.get(f"{name}.float16")) is not None:
            _read_half(twin.graph, value, half)
    ir.save(twin, twin_of(target))
    return target


def _read_half(graph: ir.Graph, value: ir.Value, half: ir.Value) -> None:
    """Let a graph read a weight from its float16 form; small ones are stored within the graph."""
    tensor, own = half.const_value, value.const_value
    if tensor is None or own is None:
        return
    if tensor.nbytes < _SMALLEST_BYTES:
        value.const_value = ir.tensor(own.numpy().copy(), name=value.name)
        return
    read_through_cast(graph, value, str(half.name), tensor, f"{value.name}.cast")


def precision_of_nodes(model: ir.Model) -> Iterator[tuple[str, str]]:
    """Operator type and fp16 or fp32 of every node that computes with floats, casts left out."""
    for node in model.graph:
        kinds = {value.dtype for value in node.outputs if is_float(value)}
        if kinds and node.op_type != "Cast":
            yield node.op_type, "fp16" if HALF in kinds else "fp32"
