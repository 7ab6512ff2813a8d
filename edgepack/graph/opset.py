"""Rewriting a network for an older opset, for devices with an old engine only."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgepack.errors import UnsupportedError
from edgepack.graph.net import OPSET
from edgepack.graph.rewrite import constant, drop_unread

_IR_VERSIONS = {16: 8}  # the one of ONNX Runtime 1.11, which JetPack 4.6 ends with
_CHANGED = {"LayerNormalization": 17, "ReduceMax": 18, "ReduceMean": 18, "Resize": 18, "Mish": 18}


def lower(model: ir.Model, opset: int) -> None:
    """Rewrite operators that are younger than `opset`, in place.

    Raises UnsupportedError for an operator that cannot be rewritten, and for an unknown opset.
    """
    if opset == OPSET:
        return
    if opset not in _IR_VERSIONS:
        raise UnsupportedError(f"opset {opset}: this edgepack writes {OPSET} or 16")
    graph = model.graph
    for node in list(graph):
        if node.op_type == "LayerNormalization":
            _layer_norm(graph, node)
    for node in list(graph):
        if node.op_type == "ReduceMean":
            _axes_as_attribute(node)
        elif node.op_type == "Split" and "num_outputs" in node.attributes:
            del node.attributes["num_outputs"]  # equal parts without it, too
        elif _CHANGED.get(node.op_type, 0) > opset:
            raise UnsupportedError(f"{node.name}: {node.op_type} is not in opset {opset}")
    drop_unread(graph)
    graph.opset_imports[""] = opset
    model.ir_version = _IR_VERSIONS[opset]


def lowered(path: Path, opset: int) -> ir.Model:
    """A stored network, loaded and rewritten for an older opset."""
    model = ir.load(path)
    lower(model, opset)
    return model


def _axes_as_attribute(node: ir.Node) -> None:
    """Turn a constant second input into the attribute that it is before opset 18."""
    if len(node.inputs) < 2 or (axes := node.inputs[1]) is None:
        return
    if axes.const_value is None:
        raise UnsupportedError(f"{node.name}: axes that are computed need opset {OPSET}")
    node.attributes["axes"] = ir.AttrInt64s("axes", axes.const_value.numpy().tolist())
    node.resize_inputs(1)


def _layer_norm(graph: ir.Graph, node: ir.Node) -> None:
    """`scale · (x - mean) / sqrt(mean((x - mean)²) + ε) + bias` over the last axis."""
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else -1
    if axis != -1:
        raise UnsupportedError(f"{node.name}: LayerNormalization over axis {axis}")
    x, scale, *rest = node.inputs
    given = node.attributes.get("epsilon")
    epsilon = _scalar(graph, given.as_float() if given else 1e-5)
    last = _integers(graph, -1)
    nodes: list[ir.Node] = []

    def op(kind: str, *inputs: ir.Value | None, **attributes: int) -> ir.Value:
        made = ir.node(kind, inputs, attributes)
        made.name = f"{node.name}.{len(nodes)}"
        made.outputs[0].name = f"{node.outputs[0].name}.{len(nodes)}"
        made.outputs[0].type = node.outputs[0].type
        nodes.append(made)
        return made.outputs[0]

    centred = op("Sub", x, op("ReduceMean", x, last, keepdims=1))
    spread = op("ReduceMean", op("Pow", centred, _scalar(graph, 2.0)), last, keepdims=1)
    result = op("Mul", op("Div", centred, op("Sqrt", op("Add", spread, epsilon))), scale)
    for bias in rest:
        result = op("Add", result, bias)
    ir.convenience.replace_nodes_and_values(graph, node, [node], nodes, node.outputs, [result])


def _scalar(graph: ir.Graph, number: float) -> ir.Value:
    return constant(graph, f"opset.{number:g}", np.array(number, np.float32))


def _integers(graph: ir.Graph, *numbers: int) -> ir.Value:
    name = f"opset.axes.{'.'.join(map(str, numbers))}"
    return constant(graph, name, np.array(numbers, np.int64))
