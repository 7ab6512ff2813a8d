"""Rewrites of finished graphs: what they leave, under which names, and that it computes."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from edgepack.bundle.stages import Use
from edgepack.graph.net import Net
from edgepack.graph.rewrite import add_weight, cast, constant, drop_unread, read_through_cast

WEIGHT = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


def product() -> ir.Model:
    """`y = x w + w[0]`: the weight has two readers."""
    net = Net("product", Use(role="encoder"))
    x, w = net.input("x", ["n", 3]), net.constant("w", WEIGHT)
    row = net.op.Gather(w, net.constant("first", np.array([0])), axis=0)
    net.output("y", net.op.Add(net.op.MatMul(x, w), row), ["n", 4])
    return net.finish(()).model


def run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(["y"], {"x": x})
    return y


def test_every_reader_reads_the_stored_weight_through_a_cast() -> None:
    model = product()
    graph = model.graph
    half = WEIGHT.astype(np.float16)
    read_through_cast(graph, graph.initializers["w"], "w.float16", ir.tensor(half), "w.cast")
    assert set(graph.initializers) == {"w.float16", "first"}
    made = graph.node(0)
    assert (made.name, made.op_type, made.outputs[0].name) == ("w.cast", "Cast", "w")
    assert made.outputs[0].dtype == ir.DataType.FLOAT
    assert sorted(user.op_type for user, _ in made.outputs[0].uses()) == ["Gather", "MatMul"]
    x = np.eye(3, dtype=np.float32)
    stored = half.astype(np.float32)
    np.testing.assert_allclose(run(model, x), stored + stored[0], atol=1e-6)


def test_a_cast_has_the_shape_of_its_value() -> None:
    value = ir.val("v", ir.DataType.FLOAT, ["n", 3])
    node = cast(value, ir.DataType.FLOAT16, "v.float16", "v.cast")
    assert (node.name, node.graph) == ("v.cast", None)
    assert node.outputs[0].name == "v.float16"
    assert node.outputs[0].dtype == ir.DataType.FLOAT16
    assert node.outputs[0].shape == value.shape


def test_a_constant_is_registered_once() -> None:
    graph = product().graph
    first = constant(graph, "two", np.array([2.0], np.float32))
    assert constant(graph, "two", np.array([3.0], np.float32)) is first
    assert graph.initializers["two"] is first
    assert (first.dtype, first.shape) == (ir.DataType.FLOAT, ir.Shape([1]))


def test_a_second_weight_of_a_name_is_refused() -> None:
    graph = product().graph
    with pytest.raises(ValueError, match="already registered"):
        add_weight(graph, "w", ir.tensor(WEIGHT))


def test_weights_that_nobody_reads_go() -> None:
    model = product()
    constant(model.graph, "unread", np.zeros(1, np.float32))
    drop_unread(model.graph)
    assert set(model.graph.initializers) == {"w", "first"}
