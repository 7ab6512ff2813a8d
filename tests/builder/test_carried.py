"""Networks taken over: those whose meaning changed compute what they did in ONNX Runtime 1.18.

`RECORDED` was answered by onnxruntime 1.18.1, the same for opsets 10, 11, 13, 17, 18, 19 and 21;
there, random inputs of 1 to 350 frames differ from `in_numpy` by 1.1e-7 at most.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support import RUNTIMES

from edgepack.builder.carried import carry
from edgepack.runtime.engines.session import Options, Session, engine

ONNX_RUNTIMES = [name for name in RUNTIMES if engine(name).reads_onnx]
CONTEXT: dict[str, Any] = {
    "kernel_shape": [100],
    "strides": [100],
    "ceil_mode": 1,
    "count_include_pad": 1,
}


def pool(**attributes: Any) -> dict[str, Any]:
    """Attributes of an AveragePool that rounds up and counts padding."""
    return {"ceil_mode": 1, "count_include_pad": 1, **attributes}


RECORDED: list[tuple[dict[str, Any], tuple[int, ...], list[Any]]] = [
    (CONTEXT, (250,), [1, 1, 0.5]),
    (pool(kernel_shape=[3], strides=[3], pads=[1, 1]), (5,), [2 / 3, 1, 0]),
    (pool(kernel_shape=[2], strides=[2], pads=[1, 1]), (5,), [0.5, 1, 1, 0]),
    (pool(kernel_shape=[2], strides=[4]), (7,), [1, 1, 0]),
    (pool(kernel_shape=[3, 3], strides=[2, 2]), (4, 4), [[1, 2 / 3], [2 / 3, 4 / 9]]),
]


def write(path: Path, operator: str, opset: int = 17, **attributes: Any) -> Path:
    """A network of one operator between two that turn signs around, [1, 2, frames…]."""
    axes = [f"n{i}" for i in range(len(attributes["kernel_shape"]))]
    nodes = [
        helper.make_node("Neg", ["x"], ["h"]),
        helper.make_node(operator, ["h"], ["pooled"], **attributes),
        helper.make_node("Neg", ["pooled"], ["y"]),
    ]
    return save(path, nodes, axes, opset)


def save(path: Path, nodes: list[onnx.NodeProto], axes: list[str], opset: int = 17) -> Path:
    shape: list[int | str] = [1, 2, *axes]
    into = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, *(f"{a}_" for a in axes)])
    graph = helper.make_graph(nodes, "g", [into], [out])
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def opened(source: Path, runtime: str) -> Session:
    folder = source.parent / "bundle"
    folder.mkdir(exist_ok=True)
    return engine(runtime).open(folder / carry(source, folder, "x.onnx").file, (), Options(1))


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
@pytest.mark.parametrize("opset", [10, 11, 13, 17, 19, 21])
def test_ones_are_pooled_as_they_were(tmp_path: Path, runtime: str, opset: int) -> None:
    for attributes, frames, wanted in RECORDED:
        session = opened(write(tmp_path / "p.onnx", "AveragePool", opset, **attributes), runtime)
        found = session.run({"x": np.ones((1, 2, *frames), np.float32)})["y"]
        np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), rtol=1e-6)


def in_numpy(x: np.ndarray, width: int) -> np.ndarray:
    """Sums of windows over the last axis, the last one filled with zeros, by their width."""
    filled = np.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % width)))
    return filled.reshape(*x.shape[:2], -1, width).sum(-1) / width


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
def test_any_length_is_pooled_as_it_was(tmp_path: Path, runtime: str) -> None:
    session = opened(write(tmp_path / "p.onnx", "AveragePool", **CONTEXT), runtime)
    rng = np.random.default_rng(1)
    for length in range(1, 351):
        x = rng.standard_normal((1, 2, length), np.float32)
        np.testing.assert_allclose(session.run({"x": x})["y"], in_numpy(x, 100), atol=1e-6)


@pytest.mark.parametrize("runtime", ONNX_RUNTIMES)
def test_a_pool_in_a_branch_is_found(tmp_path: Path, runtime: str) -> None:
    inner = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1, 2, "k"])
    body = [helper.make_node("AveragePool", ["x"], ["inner"], **CONTEXT)]
    branch = helper.make_graph(body, "branch", [], [inner])
    flag = helper.make_tensor("flag", TensorProto.BOOL, [], [True])
    nodes = [
        helper.make_node("Constant", [], ["flag"], value=flag),
        helper.make_node("If", ["flag"], ["pooled"], then_branch=branch, else_branch=branch),
        helper.make_node("Neg", ["pooled"], ["y"]),
    ]
    session = opened(save(tmp_path / "p.onnx", nodes, ["n"]), runtime)
    found = session.run({"x": np.ones((1, 2, 250), np.float32)})["y"]
    np.testing.assert_allclose(found[0, 0], [-1, -1, -0.5], rtol=1e-6)


UNCHANGED: list[tuple[str, dict[str, Any]]] = [
    ("AveragePool", {**CONTEXT, "ceil_mode": 0}),
    ("AveragePool", {**CONTEXT, "count_include_pad": 0}),
    ("MaxPool", {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}),
    ("MaxPool", {"kernel_shape": [3], "strides": [2], "ceil_mode": 1, "pads": [1, 1]}),
    ("LpPool", {"kernel_shape": [2], "strides": [2], "pads": [1, 1]}),
]
DOUBTFUL: list[tuple[str, dict[str, Any]]] = [
    ("MaxPool", {"kernel_shape": [2], "strides": [2], "ceil_mode": 1, "pads": [1, 1]}),
    ("MaxPool", {"kernel_shape": [2], "strides": [3], "ceil_mode": 1}),
    ("AveragePool", {"kernel_shape": [3], "strides": [3], "ceil_mode": 1, "pads": [1, 1]}),
    ("AveragePool", pool(kernel_shape=[3], strides=[2], auto_pad="SAME_UPPER")),
]


@pytest.mark.parametrize(("operator", "attributes"), UNCHANGED)
def test_what_means_the_same_is_copied_as_it_is(
    tmp_path: Path, operator: str, attributes: dict[str, Any]
) -> None:
    source, told = write(tmp_path / "p.onnx", operator, **attributes), list[str]()
    carry(source, tmp_path, "bundle/x.onnx", told.append)
    assert (tmp_path / "bundle/x.onnx").read_bytes() == source.read_bytes()
    assert told == []


@pytest.mark.parametrize(("operator", "attributes"), DOUBTFUL)
def test_what_may_mean_something_else_is_told(
    tmp_path: Path, operator: str, attributes: dict[str, Any]
) -> None:
    source, told = write(tmp_path / "p.onnx", operator, **attributes), list[str]()
    carry(source, tmp_path, "bundle/x.onnx", told.append)
    assert (tmp_path / "bundle/x.onnx").read_bytes() == source.read_bytes()
    (line,) = told
    assert line.startswith(f"p.onnx: {operator} 'pooled' ")


def test_the_same_network_is_settled_to_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "p.onnx", "AveragePool", **CONTEXT)
    for name in ("a", "b"):
        carry(source, tmp_path, f"bundle/{name}.onnx")
    found = [(tmp_path / "bundle" / f"{name}.onnx").read_bytes() for name in ("a", "b")]
    assert found[0] == found[1] != source.read_bytes()
