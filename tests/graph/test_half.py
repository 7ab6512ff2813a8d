"""Networks computed in float16: islands, the twin, what is limited."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from evaluation import random
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator

from edgepack.bundle.stages import Use
from edgepack.errors import UnsupportedError
from edgepack.graph.half import (
    compute_in_float16,
    limit_exponents,
    precision_of_nodes,
    saturate,
    twin_of,
)
from edgepack.graph.layers import MASKED, mish
from edgepack.graph.net import Net, Value

WIDE = random(64, 64) / 8


def written(folder: Path, layer: Callable[[Net, Value], Value]) -> Path:
    """A network from x [1, n, 64] to y."""
    net = Net("layer", Use(role="vocoder"))
    net.output("y", layer(net, net.input("x", [1, "n", 64])), [1, "n", "m"])
    return net.finish(()).save(folder)


def halved(
    folder: Path, layer: Callable[[Net, Value], Value], islands: Collection[str] = ()
) -> tuple[Path, Path]:
    """The float16 network and its twin; `islands` are operator types."""
    path = written(folder, layer)
    model = ir.load(path)
    names = {str(node.name) for node in model.graph if node.op_type in islands}
    target = folder / "half.onnx"
    compute_in_float16(model, ir.load(path), target, names)
    for made in (target, twin_of(target)):
        onnx.checker.check_model(str(made), full_check=True)
    return target, twin_of(target)


def run(path: Path, x: np.ndarray) -> np.ndarray:
    """The output, each node in the type it is written with, which no CPU engine keeps to."""
    with np.errstate(over="ignore", invalid="ignore"):
        outputs: Any = ReferenceEvaluator(str(path)).run(["y"], {"x": x})
    return np.asarray(outputs[0])


def product(net: Net, x: Value) -> Value:
    return net.op.MatMul(x, net.constant("w", WIDE))


def test_it_computes_in_float16_and_speaks_float32(tmp_path: Path) -> None:
    half, _ = halved(tmp_path, product)
    x = random(1, 5, 64)
    found, wanted = run(half, x), x @ WIDE
    assert found.dtype == np.float32
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert 1e-5 < error < 2e-3
    assert [kind for _, kind in precision_of_nodes(ir.load(half))] == ["fp16"]


def test_the_twin_has_the_rounded_weights_and_nothing_else_rounded(tmp_path: Path) -> None:
    _, twin = halved(tmp_path, product)
    x = random(1, 5, 64)
    rounded = WIDE.astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(run(twin, x), x @ rounded, rtol=1e-5, atol=1e-5)
    assert {kind for _, kind in precision_of_nodes(ir.load(twin))} == {"fp32"}


def test_both_read_one_file_of_weights(tmp_path: Path) -> None:
    half, twin = halved(tmp_path, product)
    places: list[set[str]] = [
        {entry.value for tensor in onnx.load(path, load_external_data=False).graph.initializer
         for entry in tensor.external_data if entry.key == "location"}
        for path in (half, twin)
    ]  # fmt: skip
    assert places == [{"half.onnx.data"}] * 2
    assert twin.stat().st_size < 4000
    assert (tmp_path / "half.onnx.data").stat().st_size < WIDE.nbytes


def squares(net: Net, x: Value) -> Value:
    """Squares of squares, and back: beyond float16 in the middle."""
    big = net.op.Pow(net.op.Pow(product(net, x), 2.0), 2.0)
    return net.op.Sqrt(net.op.Sqrt(big))


def test_values_between_nodes_of_an_island_are_not_rounded(tmp_path: Path) -> None:
    half, _ = halved(tmp_path, squares, {"Pow", "Sqrt"})
    x = random(1, 5, 64) * 100
    np.testing.assert_allclose(run(half, x), np.abs(x @ WIDE), rtol=1e-2, atol=0.5)


def test_without_the_island_they_overflow(tmp_path: Path) -> None:
    half, twin = halved(tmp_path, squares)
    x = random(1, 5, 64) * 100
    assert not np.isfinite(run(half, x)).all()
    assert np.isfinite(run(twin, x)).all()


def test_caches_become_float16_and_other_ends_do_not(tmp_path: Path) -> None:
    net = Net("layer", Use(role="vocoder"))
    x, past = net.input("x", [1, "n", 64]), net.input("past", [1, "p", 64])
    present = net.op.Concat(past, product(net, x), axis=1)
    net.output("y", net.op.ReduceSum(present, [1], keepdims=0), [1, 64])
    net.output("present", present, [1, "m", 64])
    path = net.finish(()).save(tmp_path)
    target = tmp_path / "half.onnx"
    compute_in_float16(ir.load(path), ir.load(path), target, (), {"past", "present"})
    graph = onnx.load(target).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.input, *graph.output]}
    assert types == {
        "x": TensorProto.FLOAT, "past": TensorProto.FLOAT16, "y": TensorProto.FLOAT,
        "present": TensorProto.FLOAT16,
    }  # fmt: skip
    onnx.checker.check_model(str(target), full_check=True)


def test_a_weight_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    def huge(net: Net, x: Value) -> Value:
        return net.op.MatMul(x, net.constant("w", WIDE * 1e7))

    with pytest.raises(UnsupportedError, match="w exceeds the range of float16"):
        halved(tmp_path, huge)


def masked(net: Net, x: Value) -> Value:
    hidden = net.op.Where(net.op.Less(x, 0.0), MASKED, 0.0)
    return net.op.Softmax(net.op.Add(x, hidden), axis=-1)


def test_masks_become_numbers_that_fit_and_hide_as_well(tmp_path: Path) -> None:
    model = ir.load(written(tmp_path, masked))
    assert len(saturate(model)) == 1
    before, after = tmp_path / "layer.onnx", tmp_path / "saturated.onnx"
    ir.save(model, after)
    x = random(1, 5, 64) * 50
    np.testing.assert_array_equal(run(before, x), run(after, x))


def test_a_limited_exponential_changes_less_than_float16_shows(tmp_path: Path) -> None:
    model = ir.load(written(tmp_path, mish))
    assert len(limit_exponents(model)) == 1
    assert limit_exponents(model) == []
    before, after = tmp_path / "layer.onnx", tmp_path / "limited.onnx"
    ir.save(model, after)
    x = np.linspace(-30, 30, 640, dtype=np.float32).reshape(1, 10, 64)
    found, wanted = run(after, x), run(before, x)
    assert (np.abs(found - wanted) <= np.spacing(np.abs(wanted).astype(np.float16)) / 2).all()
    squared = np.exp(np.float32(5.5)) * (np.exp(np.float32(5.5)) + 2)
    assert squared < np.finfo(np.float16).max


def test_exponentials_that_are_low_enough_are_left_alone(tmp_path: Path) -> None:
    model = ir.load(written(tmp_path, lambda net, x: net.op.Exp(net.op.Min(x, 4.6))))
    assert limit_exponents(model) == []
