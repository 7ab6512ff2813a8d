"""Ranges on recorded calls, and what they keep in float32."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from edgepack.builder.calibration.activations import largest
from edgepack.builder.calibration.islands import Policy, decide
from edgepack.bundle.manifest import State
from edgepack.bundle.stages import Use
from edgepack.graph.layers import mish, rms_norm
from edgepack.graph.net import Net, Value
from edgepack.graph.weights import Weights
from edgepack.profiles.recipe import named

POLICY = Policy.of(named("ort", "fp16-islands").options)
WEIGHT = np.eye(8, dtype=np.float32)
ONES = Weights.of("m.pt", {"m.weight": np.ones(8, np.float32)}) / "m"
X = np.linspace(-2, 2, 40, dtype=np.float32).reshape(1, 5, 8)

Layer = Callable[[Net, Value], Value]


def product(net: Net, x: Value) -> Value:
    return net.op.MatMul(x, net.constant("w", WEIGHT))


def network(folder: Path, layer: Layer) -> ir.Model:
    """x through a product, the layer, and another product."""
    net = Net("layer", Use(role="vocoder"))
    x = net.input("x", [1, "n", 8])
    net.output("y", product(net, layer(net, product(net, x))), [1, "n", 8])
    return ir.load(net.finish(()).save(folder))


def call(scale: float = 1.0) -> dict[str, np.ndarray]:
    return {"x": X * np.float32(scale)}


def kept(folder: Path, layer: Layer, scale: float = 1.0) -> dict[str, str]:
    """Operator types that stay float32, with a reason each, after calls of x · scale."""
    model = network(folder, layer)
    ranges = largest(model, folder, [call(scale)], (), 4)
    found = decide(model, ranges, POLICY)
    return {node.op_type: found.reasons[node.name] for node in model.graph
            if node.name in found.reasons}  # fmt: skip


def test_ranges_are_the_largest_magnitudes_of_all_calls(tmp_path: Path) -> None:
    model = network(tmp_path, lambda net, x: net.tap("middle", net.op.Mul(x, -3.0)))
    calls = [call(), call(10), call(0.5)]
    assert largest(model, tmp_path, calls, (), 8)["middle"] == pytest.approx(60)
    assert largest(model, tmp_path, calls, (), 1)["middle"] == pytest.approx(6)


def test_caches_are_fed_under_the_names_of_their_inputs(tmp_path: Path) -> None:
    net = Net("layer", Use(role="vocoder"))
    x, past = net.input("x", [1, "n", 8]), net.input("past", [1, "p", 8])
    present = net.op.Concat(past, x, axis=1)
    net.output("y", net.op.ReduceSum(present, [1], keepdims=0), [1, 8])
    net.output("present", present, [1, "m", 8])
    model = ir.load(net.finish(()).save(tmp_path))
    states = [State(input="past", output="present", shape=(1, 0, 8))]
    for before, wanted in ((np.zeros((1, 0, 8), np.float32), 2), (X * 7, 14)):
        found = largest(model, tmp_path, [{"x": X, "present": before}], states, 1)
        assert found["present"] == pytest.approx(wanted)


def test_nothing_stays_without_a_reason(tmp_path: Path) -> None:
    assert kept(tmp_path, lambda net, x: net.op.Mul(x, 2.0)) == {}


def test_what_an_exponential_blows_up_stays_whatever_was_seen(tmp_path: Path) -> None:
    found = kept(tmp_path, mish, scale=1e-3)
    assert found == dict.fromkeys(("Min", "Exp", "Add", "Mul", "Div"), "growth")


def test_squares_of_a_norm_stay(tmp_path: Path) -> None:
    found = kept(tmp_path, lambda net, x: rms_norm(net, x, ONES, 1e-6))
    assert found == dict.fromkeys(("Pow", "ReduceMean", "Add", "Sqrt", "Div"), "growth")


def test_a_large_value_stays_with_what_reads_it(tmp_path: Path) -> None:
    assert kept(tmp_path, lambda net, x: net.op.Mul(x, 3.0), scale=100) == {}
    found = kept(tmp_path, lambda net, x: net.op.Mul(x, 3.0), scale=2000)
    assert found == {"Mul": "range", "MatMul": "range"}


def test_large_angles_stay_with_the_product_they_come_from(tmp_path: Path) -> None:
    assert kept(tmp_path, lambda net, x: net.op.Sin(x)) == {}
    assert kept(tmp_path, lambda net, x: net.op.Sin(x), scale=50) == {
        "Sin": "angle", "MatMul": "angle",
    }  # fmt: skip


def test_a_softmax_stays_alone(tmp_path: Path) -> None:
    assert kept(tmp_path, lambda net, x: net.op.Softmax(x)) == {"Softmax": "accuracy"}


def test_a_weight_beyond_float16_keeps_its_node(tmp_path: Path) -> None:
    found = kept(tmp_path, lambda net, x: net.op.Add(x, net.constant("b", WEIGHT[0] * 1e6)))
    assert found["Add"] == "weight"


def test_what_leaves_the_network_is_computed_in_float32(tmp_path: Path) -> None:
    net = Net("layer", Use(role="vocoder"))
    x = net.input("x", [1, "n", 8])
    net.output("y", net.op.Add(net.op.Mul(product(net, x), 0.5), x), [1, "n", 8])
    model = ir.load(net.finish(()).save(tmp_path))
    found = decide(model, {}, POLICY)
    assert [n.op_type for n in model.graph if n.name in found.reasons] == ["Mul", "Add"]
    assert decide(model, {}, POLICY, {"y"}).reasons == {}
    assert found.counts() == {"output": 2}
