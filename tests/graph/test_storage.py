"""Weights in float16: what is halved, what is not, and what comes out."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from evaluation import Tensors, module, one_layer, random, run
from onnx import TensorProto, numpy_helper

from edgepack.errors import UnsupportedError
from edgepack.graph import layers
from edgepack.graph.net import Net, Value
from edgepack.graph.storage import store_as_float16

LARGE = {"weight": random(96, 64), "bias": random(96)}


def stored(folder: Path, tensors: Tensors) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A linear layer as written, and as stored again in float16."""
    w, _ = module(**tensors)
    x = random(2, tensors["weight"].shape[1])
    path = one_layer(lambda net, v: layers.linear(net, v, w), 2, x).save(folder)
    target = folder / "half.onnx"
    assert store_as_float16(path, target) == target
    return onnx.load(path), onnx.load(target)


def types(model: onnx.ModelProto) -> list[int]:
    """Element types of the weights, by their number of axes."""
    ordered = sorted(model.graph.initializer, key=lambda tensor: -len(tensor.dims))
    return [tensor.data_type for tensor in ordered]


def test_the_result_is_that_of_rounded_weights(tmp_path: Path) -> None:
    full, half = stored(tmp_path, LARGE)
    x = random(5, 64, seed=1)
    rounded = LARGE["weight"].astype(np.float16).astype(np.float32)
    np.testing.assert_allclose(run(half, x), x @ rounded.T + LARGE["bias"], rtol=1e-5, atol=1e-5)
    assert not np.array_equal(run(half, x), run(full, x))


def test_every_value_is_within_half_a_float16_step(tmp_path: Path) -> None:
    _, half = stored(tmp_path, LARGE)
    (found,) = (
        numpy_helper.to_array(tensor)
        for tensor in half.graph.initializer
        if tensor.data_type == TensorProto.FLOAT16
    )
    error = np.abs(found.T.astype(np.float32) - LARGE["weight"])
    assert (error <= np.spacing(np.abs(found.T)).astype(np.float32) / 2).all()


def test_the_file_is_about_half_as_large(tmp_path: Path) -> None:
    stored(tmp_path, {"weight": random(512, 512), "bias": random(512)})
    sizes = [
        sum(file.stat().st_size for file in tmp_path.glob(f"{name}.onnx*"))
        for name in ("layer", "half")
    ]
    assert 0.5 < sizes[1] / sizes[0] < 0.52


def test_vectors_stay_float32(tmp_path: Path) -> None:
    full, half = stored(tmp_path, {"weight": random(1500, 2), "bias": random(1500)})
    assert types(full) == [TensorProto.FLOAT, TensorProto.FLOAT]
    assert types(half) == [TensorProto.FLOAT16, TensorProto.FLOAT]


def test_small_tables_stay_float32(tmp_path: Path) -> None:
    full, half = stored(tmp_path, {"weight": random(31, 33), "bias": random(31)})
    assert types(half) == types(full)


def test_an_embedding_gives_rounded_rows(tmp_path: Path) -> None:
    table = random(200, 16)
    w, _ = module(weight=table)

    def rows(net: Net, ids: Value) -> Value:
        return net.op.Gather(net.parameter(w["weight"]), ids, axis=0)

    ids = np.array([[0, 199, 7]])
    path = one_layer(rows, 3, ids).save(tmp_path)
    half = onnx.load(store_as_float16(path, tmp_path / "half.onnx"))
    wanted = table.astype(np.float16).astype(np.float32)[ids]
    assert np.array_equal(run(half, ids), wanted)


@pytest.mark.parametrize("value", [65520.0, -1e6])
def test_a_weight_beyond_float16_is_refused(tmp_path: Path, value: float) -> None:
    weight = random(96, 64)
    weight[3, 5] = value
    with pytest.raises(UnsupportedError, match=r"m\.weight exceeds the range of float16"):
        stored(tmp_path, {"weight": weight})


def test_the_largest_float16_is_kept(tmp_path: Path) -> None:
    weight = random(96, 64)
    weight[3, 5] = 65504.0
    _, half = stored(tmp_path, {"weight": weight})
    assert np.isfinite(run(half, random(2, 64))).all()
