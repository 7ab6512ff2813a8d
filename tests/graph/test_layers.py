"""Each layer gives in ONNX Runtime what the numpy layer gives."""

from collections.abc import Callable

import numpy as np
import numpy_reference.layers as reference
import pytest
from evaluation import check, evaluate, module, random

from edgepack.bundle.stages import Use
from edgepack.errors import IntegrityError, UsageError
from edgepack.graph import layers
from edgepack.graph.net import Net, Value
from edgepack.graph.weights import Weights

X = random(2, 7, 6)


@pytest.mark.parametrize("bias", [{}, {"bias": random(5)}], ids=["plain", "bias"])
def test_linear(bias: dict[str, np.ndarray]) -> None:
    w, part = module(weight=random(5, 6), **bias)
    check(lambda net, x: layers.linear(net, x, w, 5, 6), reference.linear(part, X), X)


@pytest.mark.parametrize("epsilon", [1e-12, 0.3])
def test_layer_norm(epsilon: float) -> None:
    w, part = module(weight=random(6), bias=random(6, seed=1))
    wanted = reference.layer_norm(part, X, epsilon)
    check(lambda net, x: layers.layer_norm(net, x, w, epsilon), wanted, X)


@pytest.mark.parametrize("epsilon", [1e-6, 0.3])
def test_rms_norm(epsilon: float) -> None:
    w, part = module(weight=random(6))
    wanted = reference.rms_norm(part, X, epsilon)
    check(lambda net, x: layers.rms_norm(net, x, w, epsilon), wanted, X)


@pytest.mark.parametrize("name", ["silu", "gelu", "mish"])
def test_activations_over_a_wide_range(name: str) -> None:
    x = np.concatenate([np.linspace(-40, 40, 321), [-1e4, -90, 90, 1e4]]).astype(np.float32)
    check(getattr(layers, name), getattr(reference, name)(x.astype(np.float64)), x)


@pytest.mark.parametrize(("taps", "left"), [(1, 0), (3, 2), (4, 0), (5, 4), (3, 1)])
def test_time_convolution(taps: int, left: int) -> None:
    w, part = module(weight=random(5, 6, taps), bias=random(5))
    wanted = reference.conv(part, np.swapaxes(X, 1, 2), pad=(left, 0))
    check(
        lambda net, x: layers.time_convolution(net, x, w, left, (5, 6, taps)),
        np.swapaxes(wanted, 1, 2),
        X,
    )


def test_a_convolution_has_as_many_taps_as_one_has() -> None:
    """Each is a node of the graph, and takes a few bytes of a hostile checkpoint."""
    w = Weights.of("flow.pt", {"weight": np.zeros((1, 1, 100_000), np.float32)})
    net = Net("x", Use(role="vocoder"))
    with pytest.raises(IntegrityError, match=r"flow\.pt: weight has 100000 taps"):
        layers.time_convolution(net, net.input("x", [1, "n", 1]), w, 0, (1, 1, None))


def test_time_convolution_of_a_single_frame() -> None:
    w, part = module(weight=random(5, 6, 3))
    wanted = reference.causal_conv(part, X[:, :1].swapaxes(1, 2)).swapaxes(1, 2)
    check(lambda net, x: layers.time_convolution(net, x, w, 2, (5, 6, 3)), wanted, X[:, :1])


def test_channels_first() -> None:
    check(layers.channels_first, np.swapaxes(X, 1, 2), X)


def test_heads_are_split_and_merged() -> None:
    split = reference.split_heads(X, 3)
    check(lambda net, x: layers.split_heads(net, x, 3, 2), split, X)
    check(lambda net, x: layers.merge_heads(net, x, 3, 2), X, split)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_length_and_positions(axis: int) -> None:
    check(lambda net, x: layers.length(net, x, axis), np.array([X.shape[axis]]), X)
    count = np.arange(X.shape[axis])
    check(lambda net, x: layers.positions(net, layers.length(net, x, axis)), count, X)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_chunk_bias_hides_what_follows_the_chunk(chunk: int) -> None:
    def bias(net: Net, x: Value, size: Value) -> Value:
        return layers.chunk_bias(net, layers.length(net, x, 1), size)

    found = evaluate(bias, 2, X, np.array([chunk]))
    visible = reference.chunk_mask(X.shape[1], chunk)
    assert np.array_equal(found == 0, visible)
    assert (found[~visible] <= -1e9).all()


def test_attend() -> None:
    scores, values = random(2, 3, 7, 7) * 3, random(2, 3, 7, 4)
    visible = reference.chunk_mask(7, 2)
    bias = np.where(visible, 0, layers.MASKED).astype(np.float32)
    wanted = reference.attend(scores, values, visible)
    check(layers.attend, wanted, scores, bias, values)


@pytest.mark.parametrize(
    "layer",
    [
        lambda net, x, w: layers.linear(net, x, w, 5, 8),
        lambda net, x, w: layers.time_convolution(net, x, w, 0, (5, 6, 1)),
    ],
)
def test_weights_of_another_shape_are_refused(layer: Callable[..., Value]) -> None:
    w, _ = module(weight=random(5, 6))
    with pytest.raises(UsageError, match="weight has shape 5×6"):
        evaluate(lambda net, x: layer(net, x, w), 3, X)
