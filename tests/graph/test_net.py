"""Graphs as files: layout, sharing, and validity of every network of a checkpoint."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from evaluation import module, one_layer, random, run
from support import COSYVOICE3, RECORDED, Checkpoints

from edgepack.graph import layers
from edgepack.graph.net import IR_VERSION, OPSET, Graph, Net, Value
from edgepack.graph.weights import Weights
from edgepack.model.checkpoint.folder import open_checkpoint
from edgepack.model.family import recognise

X = random(3, 40)


W, V, BIAS = random(40, 40), random(7000, 40), random(40)


def three_linears() -> Graph:
    """`((x W + b) W + b) V`: a large weight, a weight above 1 MiB and a small bias."""
    w, v = Weights.of("m.pt", {"w.weight": W, "w.bias": BIAS}) / "w", module(weight=V)[0]

    def stacked(net: Net, x: Value) -> Value:
        return layers.linear(net, layers.linear(net, layers.linear(net, x, w), w), v)

    return one_layer(stacked, 2, X)


def test_a_graph_counts_its_weights_once() -> None:
    graph = three_linears()
    assert graph.parameters == W.size + BIAS.size + V.size
    assert graph.operators == {"MatMul": 3, "Add": 2, "Cast": 1}


def test_large_weights_are_stored_outside_the_model(tmp_path: Path) -> None:
    path = three_linears().save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"layer.onnx", "layer.onnx.data"}
    assert path == tmp_path / "layer.onnx"
    stored = onnx.load(path, load_external_data=False)
    entries = {t.name: {e.key: e.value for e in t.external_data} for t in stored.graph.initializer}
    assert entries.pop("w.bias") == {}
    assert {entry["location"] for entry in entries.values()} == {"layer.onnx.data"}
    assert {name: int(entry["length"]) for name, entry in entries.items()} == {
        "w.weight": W.nbytes,
        "m.weight": V.nbytes,
    }
    start = int(entries["m.weight"]["offset"])
    assert start > 0
    assert start % 4096 == 0  # above 1 MiB: on a page boundary


def test_a_saved_graph_computes_what_it_was_given(tmp_path: Path) -> None:
    found = run(onnx.load(three_linears().save(tmp_path)), X)
    wanted = ((X @ W.T + BIAS) @ W.T + BIAS) @ V.T
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)


def test_the_same_graph_gives_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        three_linears().save(folder)
    for name in ("layer.onnx", "layer.onnx.data"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_versions_are_what_every_engine_reads() -> None:
    model = ir.to_proto(three_linears().model)
    assert model.ir_version == IR_VERSION
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]


def test_equal_expressions_are_computed_once() -> None:
    graph = one_layer(lambda net, x: net.op.Add(net.op.Exp(x), net.op.Exp(x)), 2, X)
    assert graph.operators["Exp"] == 1


def test_what_nothing_needs_is_removed() -> None:
    w, _ = module(weight=W)

    def idle(net: Net, x: Value) -> Value:
        layers.linear(net, x, w)
        return net.op.Neg(x)

    graph = one_layer(idle, 2, X)
    assert graph.parameters == 0
    assert "MatMul" not in graph.operators


def test_a_tap_names_an_inner_value() -> None:
    graph = one_layer(lambda net, x: net.op.Neg(net.tap("encoders.0", net.op.Exp(x))), 2, X)
    names = {output.name for node in graph.model.graph for output in node.outputs}
    assert "encoders.0" in names


@pytest.mark.parametrize("model", [*RECORDED, COSYVOICE3[0], "tiny"])
def test_every_network_is_a_valid_model(
    model: str, checkpoints: Checkpoints, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(Path(checkpoints(model)))
    _, family = recognise(checkpoint)
    names = set()
    for graph in family.graphs(checkpoint):
        path = graph.save(tmp_path)
        onnx.checker.check_model(path, full_check=True)
        inputs = {value.name for value in onnx.load(path).graph.input}
        states = {state.input for state in graph.states}
        assert graph.calls
        assert all(set(call) == inputs - states for call in graph.calls)
        names.add(graph.name)
    assert {"speech_lm", "flow_encoder", "flow_estimator", "hift_source", "hift"} < names
