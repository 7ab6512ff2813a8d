"""The form of a network that goes on from earlier frames, over the weights of the other form."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgepack.graph.net import FLOAT
from edgepack.graph.rewrite import cast
from edgepack.graph.storage import values

_HALF = ir.DataType.FLOAT16
_PAST, _KEPT = "past", "kept"


def write_continuing(made: Path, model: Path, target: Path, *, half: bool) -> None:
    """Write a converted graph to `target`, with the weights that `model` beside it has as well.

    Both were converted in the same way, so their weights have the same names. What is not the same
    is stored in `target`. With `half` the keys and values that it keeps are float16.
    """
    own = ir.load(made)
    stored = ir.load(model).graph.initializers
    for name, value in own.graph.initializers.items():
        weight = stored[name].const_value if name in stored else None
        if isinstance(weight, ir.ExternalTensor) and _same(weight, value.const_value):
            value.const_value = weight
    if half:
        _keep_halves(own.graph)
    ir.save(own, target)


def _same(weight: ir.TensorProtocol, other: ir.TensorProtocol | None) -> bool:
    return (
        other is not None
        and weight.dtype == other.dtype
        and weight.shape == other.shape
        and np.array_equal(values(weight), values(other))
    )


def _keep_halves(graph: ir.Graph) -> None:
    """Have `past` and `kept` in float16; the graph casts each part of `past` to float32."""
    (past,) = (value for value in graph.inputs if value.name == _PAST)
    past.dtype = _HALF
    for node, _ in past.uses():
        for output in node.outputs:
            if output.dtype == FLOAT:
                output.dtype = _HALF
    (kept,) = (value for value in graph.outputs if value.name == _KEPT)
    joined = kept.producer()
    if joined is None or joined.op_type != "Concat":
        raise ValueError(f"{_KEPT} is not joined of its parts")
    for number, part in enumerate(joined.inputs):  # each, so that the whole is written once
        if part is not None:
            node = cast(part, _HALF, None)
            graph.insert_before(joined, node)
            joined.replace_input_with(number, node.outputs[0])
    kept.dtype = _HALF
