"""Pooling operators of a checkpoint's ONNX networks, with the meaning they had originally.

With `ceil_mode` the last window of a pooling operator may reach beyond its input. What
ONNX Runtime 1.18, which CosyVoice pins, did with it is not what OpenVINO and later versions do:

- AveragePool with `count_include_pad` divided by the whole kernel, now by what lies inside the
  padded input (microsoft/onnxruntime, pull requests 16752 and 29629);
- a window that starts in the padding at the end was kept, now it is left out (onnx/onnx, pull
  request 5741).
"""

from collections.abc import Iterator
from typing import cast

import onnx_ir as ir

_POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})
_PADS_ARE_AN_INPUT = 11  # since this opset, of Pad


def settle(model: ir.Model) -> bool:
    """Rewrite each AveragePool whose meaning changed; returns whether there was one.

    Zeros are put after its input and `ceil_mode` is removed. As ⌈n / s⌉ = ⌊(n + s - 1) / s⌋,
    s - 1 zeros complete the last window of stride s, however long the input is.
    """
    changed = [(node, opset) for node, opset in _rounding_up(model) if _can_be_settled(node)]
    for node, opset in changed:
        axes = len(node.attributes["kernel_shape"].as_ints())
        pads, strides = _ints(node, "pads", [0] * 2 * axes), _ints(node, "strides", [1] * axes)
        ends = [pad + stride - 1 for pad, stride in zip(pads[axes:], strides, strict=True)]
        _pad_before(node, [0, 0, *pads[:axes], 0, 0, *ends], opset)
        for name in ("ceil_mode", "pads"):
            node.attributes.pop(name, None)
    return bool(changed)


def doubts(model: ir.Model) -> list[str]:
    """One line for each other operator that may give different numbers than originally."""
    return [
        f"{node.op_type} {node.outputs[0].name!r} rounds up (ceil_mode) and pads: what its last "
        "window means has changed since ONNX Runtime 1.18"
        for node, _ in _rounding_up(model)
        if not _can_be_settled(node) and _may_have_changed(node)
    ]


def _rounding_up(model: ir.Model) -> Iterator[tuple[ir.Node, int]]:
    """Pooling operators with `ceil_mode`, also of inner graphs and functions, and their opset."""
    graphs: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        for node in ir.traversal.RecursiveGraphIterator(graph):
            pools = node.op_type in _POOLS and node.domain == ""
            if pools and node.attributes.get_int("ceil_mode", False):
                yield node, graph.opset_imports.get("", 1)


def _counts_padding(node: ir.Node) -> bool:
    return node.op_type == "AveragePool" and bool(
        node.attributes.get_int("count_include_pad", False)
    )


def _has_its_pads(node: ir.Node) -> bool:
    """Whether padding is given in numbers."""
    return node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"


def _can_be_settled(node: ir.Node) -> bool:
    return _counts_padding(node) and _has_its_pads(node)


def _may_have_changed(node: ir.Node) -> bool:
    """Whether the last window may start in the padding, or is divided in another way."""
    if _counts_padding(node) or not _has_its_pads(node):
        return True
    kernels = node.attributes["kernel_shape"].as_ints()
    axes = len(kernels)
    dilations, strides = (_ints(node, name, [1] * axes) for name in ("dilations", "strides"))
    ends = _ints(node, "pads", [0] * 2 * axes)[axes:]
    return any(
        pad + stride > dilation * (kernel - 1) + 1
        for pad, stride, dilation, kernel in zip(ends, strides, dilations, kernels, strict=True)
    )


def _ints(node: ir.Node, name: str, otherwise: list[int]) -> list[int]:
    return list(node.attributes.get_ints(name, otherwise) or otherwise)


def _pad_before(node: ir.Node, pads: list[int], opset: int) -> None:
    """Pad the first input of a node with zeros."""
    value, name = node.inputs[0], f"{node.outputs[0].name}_padded"
    nodes = []
    if opset < _PADS_ARE_AN_INPUT:
        nodes.append(ir.node("Pad", [value], {"pads": pads}))
    else:
        nodes.append(ir.node("Constant", [], {"value": ir.tensor(pads, name=f"{name}_by")}))
        nodes[0].outputs[0].name = f"{name}_by"
        nodes.append(ir.node("Pad", [value, nodes[0].outputs[0]]))
    nodes[-1].outputs[0].name = name
    cast(ir.Graph, node.graph).insert_before(node, nodes)
    node.replace_input_with(0, nodes[-1].outputs[0])
