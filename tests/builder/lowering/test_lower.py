"""Whole networks in LiteRT: patterns, lengths that change, what XNNPACK leaves out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.tools import flatbuffer_utils
from support import COSYVOICE3, Build

from edgepack.builder.backends.tflite import DECODER_SIGNATURES, SIGNATURES
from edgepack.builder.lowering.lower import lower
from edgepack.bundle.bundle import open_bundle
from edgepack.bundle.stages import Use
from edgepack.graph import layers
from edgepack.graph.net import Net, Value
from edgepack.runtime.engines.session import Options, engine
from edgepack.verification.selftest import read, relative_error

# What runs outside XNNPACK, by stage; docs/tflite.md says why. All of it is small and runs once a
# call, but for the encoder's relative shift.
SHAPES = {"SHAPE", "STRIDED_SLICE", "RANGE", "RESHAPE"}
MASK = {"CAST", "FLOOR_DIV", "ADD", "MUL", "LESS", "SELECT_V2"}
OUTSIDE = {
    "speech_lm": SHAPES | {"CAST", "ADD", "LESS", "GREATER", "SELECT_V2"},
    "flow_encoder": SHAPES | MASK | {"SUB", "GATHER", "CONCATENATION", "SLICE"},
    "flow_estimator": SHAPES | MASK,
    "hift_source": {"CUMSUM", "GREATER", "CAST"},
    "hift": {"MIRROR_PAD"},
}


def operators(path: Path) -> list[str]:
    names = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
    model = flatbuffer_utils.read_model(str(path))
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


@pytest.mark.parametrize("gelu", [layers.gelu, layers.tanh_gelu])
def test_a_gelu_is_one_operator(tmp_path: Path, gelu: Callable[[Net, Value], Value]) -> None:
    net = Net("gelu", Use(role="vocoder"))
    x = net.input("x", [1, "n", 8])
    net.output("y", gelu(net, x), [1, "n", 8])
    path = net.finish(()).save(tmp_path)
    lower("gelu", path, tmp_path / "gelu.tflite", SIGNATURES)
    assert operators(tmp_path / "gelu.tflite") == ["GELU"]
    value = np.random.default_rng(0).standard_normal((1, 5, 8), np.float32)
    wanted = engine("ort").open(path, (), Options(1)).run({"x": value})["y"]
    found = engine("tflite").open(tmp_path / "gelu.tflite", (), Options(1)).run({"x": value})["y"]
    assert relative_error(found, wanted) <= 1e-6


@pytest.mark.parametrize("order", ["plain first", "transposed first"])
def test_a_square_weight_is_stored_in_each_layout_it_is_read_in(tmp_path: Path, order: str) -> None:
    """A product has it transposed, a sum as it is, and both have the same name and shape."""
    net = Net("square", Use(role="vocoder"))
    weight = np.random.default_rng(1).standard_normal((20, 20), np.float32)
    x, w = net.input("x", [1, 20, 20]), net.constant("w", weight)
    total = product = None
    if order == "plain first":
        total = net.op.Add(x, w)
    product = net.op.MatMul(x, w)
    net.output("y", net.op.Sub(product, net.op.Add(x, w) if total is None else total), [1, 20, 20])
    path = net.finish(()).save(tmp_path)
    lower("square", path, tmp_path / "square.tflite", SIGNATURES)
    value = np.random.default_rng(0).standard_normal((1, 20, 20), np.float32)
    found = engine("tflite").open(tmp_path / "square.tflite", (), Options(1)).run({"x": value})["y"]
    assert relative_error(found, value @ weight - (value + weight)) <= 1e-5
    model = flatbuffer_utils.read_model(str(tmp_path / "square.tflite"))
    names = [tensor.name.decode() for tensor in model.subgraphs[0].tensors]
    assert len(set(names)) == len(names)


OTHERS = [pytest.param(m, marks=pytest.mark.slow) for m in ("cosyvoice2-s1", "cosyvoice3-s1")]


@pytest.mark.parametrize("model", ["demo", *OTHERS])
def test_lengths_may_change_from_call_to_call(bundle: Build, model: str) -> None:
    folder = bundle(model)
    opened = open_bundle(folder)
    calls = read(opened)
    for name, stage in opened.manifest.stages.items():
        path = opened.path(stage.variants["tflite"].files[0])
        session = engine("tflite").open(path, stage.states, Options(1))
        for _ in range(2):
            session.reset()
            for call in calls[name]:
                outputs = session.run(call.feeds)
                for output, wanted in call.outputs.items():
                    assert relative_error(outputs[output], wanted) <= 1e-3, (name, output)


def outside(interpreter: Any) -> set[str]:
    """Types of operators that no delegate computes: walk back from what delegates return."""
    nodes = interpreter._get_ops_details()
    made = {int(t): n for n in nodes if n["op_name"] != "DELEGATE" for t in n["outputs"]}
    inside: set[int] = set()
    for node in nodes:
        if node["op_name"] != "DELEGATE":
            continue
        given, waiting = {int(t) for t in node["inputs"]}, [int(t) for t in node["outputs"]]
        while waiting:
            tensor = waiting.pop()
            if tensor in given or tensor not in made or made[tensor]["index"] in inside:
                continue
            inside.add(made[tensor]["index"])
            waiting += [int(t) for t in made[tensor]["inputs"]]
    plain = [n for n in nodes if n["op_name"] != "DELEGATE" and n["index"] not in inside]
    assert inside
    return {node["op_name"] for node in plain}


@pytest.mark.parametrize("stage", OUTSIDE)
@pytest.mark.parametrize("model", ["demo", COSYVOICE3[0]])
def test_only_listed_operators_run_outside_xnnpack(bundle: Build, model: str, stage: str) -> None:
    opened = open_bundle(bundle(model))
    record = opened.manifest.stages[stage]
    interpreter = Interpreter(str(opened.path(record.variants["tflite"].files[0])))
    (call, *_) = read(opened)[stage]
    for details in interpreter.get_input_details():
        value = call.feeds.get(details["name"])
        state = next((s.shape for s in record.states if s.input == details["name"]), None)
        if value is not None or state is not None:
            shape = value.shape if value is not None else tuple(n or 64 for n in state or ())
            interpreter.resize_tensor_input(details["index"], shape)
    interpreter.allocate_tensors()
    assert outside(interpreter) <= OUTSIDE[stage]


def test_a_decoder_has_both_signatures_over_the_same_weights(bundle: Build) -> None:
    opened = open_bundle(bundle("demo"))
    path = opened.path(opened.manifest.stages["speech_lm"].variants["tflite"].files[0])
    found = Interpreter(str(path)).get_signature_list()
    assert set(found) == set(DECODER_SIGNATURES)
    assert found["prefill"] == found["decode"]
    hub = opened.path(opened.manifest.stages["speech_lm"].variants["ort"].files[0])
    stored = sum(p.stat().st_size for p in (hub, hub.with_name(f"{hub.name}.data")))
    assert path.stat().st_size < 1.02 * stored


def test_no_flex_and_no_custom_operator(bundle: Build) -> None:
    opened = open_bundle(bundle("demo"))
    for stage in opened.manifest.stages.values():
        assert "CUSTOM" not in operators(opened.path(stage.variants["tflite"].files[0]))


def test_slots_share_the_weights_of_the_hub(tmp_path: Path) -> None:
    from contracts import totals

    path = totals(tmp_path)
    slots = onnx.load(path.with_suffix(".slots.onnx"), load_external_data=False)
    (weights,) = [t for t in slots.graph.initializer if t.external_data]
    assert {e.key: e.value for e in weights.external_data}["location"] == f"{path.name}.data"
