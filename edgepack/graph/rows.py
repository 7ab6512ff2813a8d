"""An embedding table of 8-bit rows, each with a scale of its own."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgepack.errors import UnsupportedError
from edgepack.graph.net import save_model
from edgepack.graph.rewrite import constant

_LARGEST = 127.0
_GATHERED = 8192  # rows that are converted at a time


def quantize_rows(model: Path, target: Path) -> Path:
    """Write `model`, whose tables are read by Gather along axis 0, with 8-bit tables.

    A row is `scale · int8`, its largest magnitude at ±127, so a row costs its width in bytes and
    4 more, and is off by at most half a scale. Raises UnsupportedError if there is no such table.
    """
    loaded = ir.load(model)
    graph = loaded.graph
    gathers = _lookups(graph)
    if not gathers:
        raise UnsupportedError(f"{model.name}: no table of rows to quantize in it")
    for node in gathers:
        table = node.inputs[0]
        if table is None or table.const_value is None:
            continue
        numbers, scales = _quantized(table.const_value.numpy())
        rows = constant(graph, f"{table.name}.int8", numbers)
        steps = constant(graph, f"{table.name}.scale", scales)
        ids = node.inputs[1]
        picked = ir.node("Gather", [rows, ids], {"axis": 0})
        scale = ir.node("Gather", [steps, ids], {"axis": 0})
        cast = ir.node("Cast", [picked.outputs[0]], {"to": ir.DataType.FLOAT})
        product = ir.node("Mul", [cast.outputs[0], scale.outputs[0]])
        ir.convenience.replace_nodes_and_values(
            graph, node, [node], [picked, scale, cast, product], node.outputs, product.outputs
        )
        if not table.uses():
            del graph.initializers[str(table.name)]
    save_model(loaded, target)
    return target


def has_tables(model: Path) -> bool:
    """Whether a network has a table that `quantize_rows` can quantize."""
    return bool(_lookups(ir.load(model).graph))


def _lookups(graph: ir.Graph) -> list[ir.Node]:
    """Gathers of rows of a float table."""
    return [
        node
        for node in graph
        if node.op_type == "Gather"
        and node.attributes.get_int("axis", 0) == 0
        and _is_table(node.inputs[0])
    ]


def _is_table(value: ir.Value | None) -> bool:
    tensor = value.const_value if value is not None else None
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return False
    return len(tensor.shape) == 2 and 1 not in tensor.shape.numpy()


def _quantized(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.empty(table.shape, np.int8)
    scales = np.empty((len(table), 1), np.float32)
    for start in range(0, len(table), _GATHERED):
        part = slice(start, start + _GATHERED)
        largest = np.abs(table[part]).max(1, keepdims=True)
        scales[part] = np.where(largest > 0, largest / _LARGEST, 1)
        numbers[part] = np.rint(table[part] / scales[part])
    return numbers, scales
