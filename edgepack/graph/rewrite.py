"""Changes to a finished graph: weights that are added, stored in another type, or dropped.

A node gives way to others by onnx_ir's own `convenience.replace_nodes_and_values`, which hands the
names, types and shapes of its outputs on. Here is what onnx_ir has nothing for.
"""

import numpy as np
import onnx_ir as ir


def add_weight(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A new initializer; raises ValueError if the graph has one of that name."""
    value = ir.val(name, const_value=tensor)
    graph.register_initializer(value)
    return value


def constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A small weight that is registered once: of several with its name, the first is taken."""
    if name not in graph.initializers:
        return add_weight(graph, name, ir.tensor(array, name=name))
    return graph.initializers[name]


def cast(
    value: ir.Value, dtype: ir.DataType, output: str | None, name: str | None = None
) -> ir.Node:
    """A Cast called `name` that is in no graph yet; its output, called `output`, is of `dtype`."""
    made = ir.val(output, dtype, value.shape)
    return ir.node("Cast", [value], {"to": dtype}, outputs=[made], name=name)


def read_through_cast(
    graph: ir.Graph,
    weight: ir.Value,
    stored: str,
    tensor: ir.TensorProtocol,
    name: str | None = None,
) -> None:
    """Replace a weight by one of another type, `tensor`, under the name `stored`.

    What read the weight reads a Cast to its type, called `name`, whose output has its name.
    """
    if weight.dtype is None:
        raise ValueError(f"{weight.name}: a weight has a type")
    value = ir.val(stored, const_value=tensor)
    node = cast(value, weight.dtype, weight.name, name)
    ir.convenience.replace_all_uses_with(weight, node.outputs[0])
    del graph.initializers[str(weight.name)]
    graph.register_initializer(value)
    graph.insert_before(graph[0], node)


def drop_unread(graph: ir.Graph) -> None:
    """Remove weights that no node reads any more."""
    for name, value in list(graph.initializers.items()):
        if not value.uses():
            del graph.initializers[name]
