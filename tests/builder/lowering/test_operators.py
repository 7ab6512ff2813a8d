"""Every operator of the table computes in LiteRT what it computes in ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgepack.builder.lowering.lower import OPERATORS, lower
from edgepack.errors import UnsupportedError
from edgepack.runtime.engines.session import Options, engine
from edgepack.verification.selftest import relative_error

Arrays = dict[str, np.ndarray]
rng = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return rng.standard_normal(shape, np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


X, SEQUENCE, HEADS = draw(2, 5, 6), draw(1, 6, 9), draw(2, 3, 5, 4)
POSITIVE = np.abs(X) + 0.1

# Name: operator, computed inputs, constant inputs after them, attributes.
CASES: dict[str, tuple[str, list[Any], list[Any], dict[str, Any]]] = {
    **{op: (op, [X], [], {}) for op in ("Abs", "Ceil", "Cos", "Elu", "Exp", "Floor", "Neg")},
    **{op: (op, [X], [], {}) for op in ("Relu", "Sigmoid", "Sin", "Tanh")},
    **{op: (op, [POSITIVE], [], {}) for op in ("Log", "Sqrt")},
    **{op: (op, [X, draw(5, 1)], [], {}) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min")},
    **{op: (op, [X, draw(2, 5, 6)], [], {}) for op in ("Greater", "Less")},
    "Div of integers": ("Div", [ints(0, 5, 9, 14)], [ints(4)], {}),
    "Sum": ("Sum", [X, X, POSITIVE], [], {}),
    "LeakyRelu": ("LeakyRelu", [X], [], {"alpha": 0.2}),
    "Pow": ("Pow", [X], [np.float32(2.0)], {}),
    "Pow of three": ("Pow", [X], [np.float32(3.0)], {}),
    "Where": ("Where", [X > 0, X], [np.float32(-1)], {}),
    "Cast": ("Cast", [ints(3, -4)], [], {"to": TensorProto.FLOAT}),
    "Clip": ("Clip", [X], [np.float32(-0.5), np.float32(0.7)], {}),
    "Reshape": ("Reshape", [X], [ints(0, -1, 3)], {}),
    "Unsqueeze": ("Unsqueeze", [X], [ints(0, 3)], {}),
    "Squeeze": ("Squeeze", [SEQUENCE], [ints(0)], {}),
    "Transpose": ("Transpose", [HEADS], [], {"perm": [0, 2, 1, 3]}),
    "Transpose of time": ("Transpose", [X], [], {"perm": [0, 2, 1]}),
    "Expand": ("Expand", [draw(2, 5, 1)], [ints(2, 5, 4)], {}),
    "Concat": ("Concat", [X, POSITIVE, X, X, X, POSITIVE], [], {"axis": -1}),
    "Slice": ("Slice", [X], [ints(1), ints(-1), ints(1)], {}),
    "Slice of the end": ("Slice", [X], [ints(-3), ints(np.iinfo(np.int64).max), ints(2)], {}),
    "Split": ("Split", [X], [ints(2, 4)], {"axis": -1}),
    "Pad": ("Pad", [X], [ints(0, 2, 0, 0, 1, 3)], {}),
    "Pad by reflection": ("Pad", [X], [ints(0, 0, 2, 0, 0, 3)], {"mode": "reflect"}),
    "Gather": ("Gather", [draw(7, 3), ints(6, 0, 0)], [], {"axis": 0}),
    "Shape": ("Shape", [X], [], {"start": 1, "end": 3}),
    "Range": ("Range", [np.int64(2), np.int64(9)], [np.int64(1)], {}),
    "CumSum": ("CumSum", [X], [np.int64(1)], {}),
    "Softmax": ("Softmax", [X], [], {"axis": -1}),
    **{op: (op, [X], [ints(-1)], {}) for op in ("ReduceMean", "ReduceSum", "ReduceMax")},
    "Reduce and drop": ("ReduceSum", [X], [ints(1)], {"keepdims": 0}),
    "LayerNormalization": ("LayerNormalization", [X], [draw(6), draw(6)], {"epsilon": 1e-5}),
    "MatMul": ("MatMul", [HEADS, draw(2, 3, 4, 7)], [], {}),
    "MatMul with a weight": ("MatMul", [X], [draw(6, 40)], {}),
    "Conv": ("Conv", [SEQUENCE], [draw(8, 6, 3), draw(8)], {"pads": [1, 1]}),
    "Conv dilated": (
        "Conv",
        [SEQUENCE],
        [draw(8, 6, 3), draw(8)],
        {"pads": [2, 2], "dilations": [2]},
    ),
    **{
        f"Conv in {groups} groups": (
            "Conv",
            [SEQUENCE],
            [draw(12, 6 // groups, 4), draw(12)],
            {"pads": [3, 0], "group": groups},
        )
        for groups in (2, 3, 6)
    },
    "Conv strided": ("Conv", [SEQUENCE], [draw(8, 6, 4)], {"pads": [1, 1], "strides": [2]}),
    **{
        f"ConvTranspose {taps}/{stride}": (
            "ConvTranspose",
            [SEQUENCE],
            [draw(6, 5, taps), draw(5)],
            {"pads": [(taps - stride) // 2] * 2, "strides": [stride]},
        )
        for taps, stride in ((16, 8), (11, 5), (7, 3), (4, 2))
    },
    "ConvTranspose untrimmed": ("ConvTranspose", [SEQUENCE], [draw(6, 1, 16)], {"strides": [4]}),
}


def stored(name: str, folder: Path) -> tuple[Path, Arrays]:
    """A model of one node whose every axis is unknown, and feeds for it."""
    op, computed, constants, attributes = CASES[name]
    feeds = {f"x{i}": np.asarray(value) for i, value in enumerate(computed)}
    weights = {f"w{i}": np.asarray(value) for i, value in enumerate(constants)}
    outputs = ["y", "z"] if op == "Split" else ["y"]
    node = helper.make_node(op, [*feeds, *weights], outputs, **attributes)
    kinds = {n: helper.np_dtype_to_tensor_dtype(v.dtype) for n, v in feeds.items()}
    channels = {"Conv", "ConvTranspose", "MatMul", "Split", "LayerNormalization", "Expand"}
    ends = [
        helper.make_tensor_value_info(n, kinds[n], _axes(v, known=op in channels | {"Reshape"}))
        for n, v in feeds.items()
    ]
    graph = helper.make_graph(
        [node],
        "one",
        ends,
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [onnx.numpy_helper.from_array(value, n) for n, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    path = folder / "one.onnx"
    onnx.save(inferred, path)
    return path, feeds


def _axes(value: np.ndarray, *, known: bool) -> list[int | str]:
    """Axes with one, of time, that is unknown."""
    if value.ndim < 2:
        return list(value.shape)
    unknown = value.ndim - 1 if value.ndim == 3 and known else 1
    return ["T" if i == unknown and not known else n for i, n in enumerate(value.shape)]


@pytest.mark.parametrize("name", CASES)
def test_it_computes_the_same(name: str, tmp_path: Path) -> None:
    path, feeds = stored(name, tmp_path)
    lower("one", path, tmp_path / "one.tflite", ["serving_default"])
    wanted = engine("ort").open(path, (), Options(1)).run(feeds)
    found = engine("tflite").open(tmp_path / "one.tflite", (), Options(1)).run(feeds)
    assert wanted.keys() == found.keys()
    for output, value in wanted.items():
        assert relative_error(found[output].astype(value.dtype), value) <= 1e-6, output


def test_every_operator_of_the_table_has_a_case() -> None:
    tried = {op for op, *_ in CASES.values()}
    assert set(OPERATORS) - tried == {
        "Erf"
    }  # only as a part of GELU: tests/builder/lowering/test_lower.py


REFUSED: dict[str, tuple[Callable[[], onnx.NodeProto], str]] = {
    "an unknown operator": (lambda: helper.make_node("Det", ["x"], ["y"]), "Det"),
    "Erf alone": (lambda: helper.make_node("Erf", ["x"], ["y"]), "GELU"),
    "another ELU": (lambda: helper.make_node("Elu", ["x"], ["y"], alpha=2.0), "alpha"),
    "Softmax of columns": (lambda: helper.make_node("Softmax", ["x"], ["y"], axis=1), "axis"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_it_cannot_do_it_refuses_by_name(what: str, tmp_path: Path) -> None:
    make, words = REFUSED[what]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, "n", 4]) for n in "xy"]
    graph = helper.make_graph([make()], "odd", ends[:1], [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(UnsupportedError, match=words):
        lower("odd", tmp_path / "odd.onnx", tmp_path / "odd.tflite", ["serving_default"])
    assert not (tmp_path / "odd.tflite").exists()
