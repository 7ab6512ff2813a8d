"""The velocity of the flow-matching decoder: a diffusion transformer, and its time embedding.

Source: cosyvoice/flow/DiT/dit.py and modules.py, which follow F5-TTS (Chen et al., 2024); the
blocks are those of Peebles and Xie (2023), "Scalable Diffusion Models with Transformers".
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from edgepack.errors import UsageError
from edgepack.graph import layers
from edgepack.graph.continuing import Continuing
from edgepack.graph.net import END, Graph, Net, Value
from edgepack.graph.weights import Parameter, Weights, numbered
from edgepack.model.networks.flow_estimator import (
    TIME_EMBEDDING,
    EstimatorInputs,
    affine,
    estimator,
    sinusoids,
    sinusoids_of,
    times_tried,
)

_EPSILON = 1e-6
_OF_BLOCK, _OF_END = 6, 2  # vectors that a time adds to a block, and to the last norm
_SKIP = "long_skip_connection"


@dataclass(frozen=True)
class FlowDiTDims:
    """Dimensions of the estimator: mel bands, widths and counts."""

    mels: int
    hidden: int
    layers: int
    heads: int
    head_width: int

    @property
    def shift(self) -> int:
        """How many numbers a time becomes."""
        return self.hidden * (_OF_BLOCK * self.layers + _OF_END)


def flow_dit_time(w: Weights, dims: FlowDiTDims) -> Graph:
    """`t` [n] → `shift` [n, W]: what each time shifts, scales and gates, one block after another.

    Sinusoids of 1000·t through two Linears, then each block's own SiLU and Linear. It depends on
    nothing else, so a solver's times are embedded once.
    """
    net = Net(*TIME_EMBEDDING)
    perceptron = w / "time_embed" / "time_mlp"
    count = _sinusoids(perceptron)
    e = sinusoids(net, "frequency", count)
    e = layers.silu(net, layers.affine(net, e, perceptron / 0, dims.hidden, 2 * count))
    e = layers.affine(net, e, perceptron / 2, dims.hidden, dims.hidden)
    time = layers.silu(net, net.tap("time_embed", e))
    shifts = [
        layers.affine(net, time, module, count * dims.hidden, dims.hidden)
        for module, count in _modulations(w, dims)
    ]
    net.output("shift", net.op.Concat(*shifts, axis=1), ["n", dims.shift])
    return net.finish(times_tried())


def _sinusoids(perceptron: Weights) -> int:
    """How many sines, and as many cosines, the first Linear takes."""
    return (perceptron / 0).get("weight", None, None).shape[1] // 2


def _modulations(w: Weights, dims: FlowDiTDims) -> list[tuple[Weights, int]]:
    """The Linears of the time in the order in which they are used, and their vectors."""
    blocks = [
        (block / "attn_norm" / "linear", _OF_BLOCK)
        for block in numbered(w, "transformer_blocks", dims.layers)
    ]
    return [*blocks, (w / "norm_out" / "linear", _OF_END)]


def flow_dit(w: Weights, dims: FlowDiTDims) -> Graph:
    """The transformer as `flow_estimator.estimator` has it; `shift` is `flow_dit_time`'s."""

    def velocity(net: Net, given: EstimatorInputs) -> Value:
        rows = net.op.Concat(given.x, given.cond, given.mu, given.spk, axis=1)
        return _estimate(net, layers.channels_first(net, rows), given, w, dims)

    embedded = partial(_embedded, w, dims)
    return estimator(dims.mels, dims.shift, velocity, embedded, continuing=True)


def _estimate(net: Net, x: Value, given: EstimatorInputs, w: Weights, dims: FlowDiTDims) -> Value:
    """The transformer over [B, T, 4·mels] → [B, mels, T]."""
    op = net.op
    count = dims.shift // dims.hidden
    parts = op.Split(op.Squeeze(given.shift, [0]), axis=0, num_outputs=count, _outputs=count)
    vectors = iter(parts)
    earlier = given.earlier
    rotation = _rotation(net, layers.length(net, x, 1), w / "rotary_embed", dims, earlier)
    seen = _Seen(given.bias(net, x), rotation, earlier)
    x = start = _embed(net, x, w / "input_embed", dims, earlier)
    for i, block in enumerate(numbered(w, "transformer_blocks", dims.layers)):
        moving, growing, gate, moved, grown, last_gate = (next(vectors) for _ in range(_OF_BLOCK))
        h = net.tap(
            f"transformer_blocks.{i}.attn_norm",
            layers.modulated_norm(net, x, growing, moving, _EPSILON),
        )
        h = _attention(net, h, seen, block / "attn", dims)
        x = op.Add(x, op.Mul(net.tap(f"transformer_blocks.{i}.attn", h), gate))
        h = layers.modulated_norm(net, x, grown, moved, _EPSILON)
        h = layers.tanh_gelu(net, layers.affine(net, h, block / "ff" / "ff" / 0 / 0, None, None))
        h = layers.affine(net, h, block / "ff" / "ff" / 2, dims.hidden, None)
        x = net.tap(f"transformer_blocks.{i}", op.Add(x, op.Mul(h, last_gate)))
    if "weight" in w / _SKIP:
        both = op.Concat(x, start, axis=-1)
        x = layers.linear(net, both, w / _SKIP, dims.hidden, 2 * dims.hidden)
    growing, moving = vectors  # the other way round than in the blocks
    x = net.tap("norm_out", layers.modulated_norm(net, x, growing, moving, _EPSILON))
    return layers.channels_first(net, layers.affine(net, x, w / "proj_out", dims.mels, dims.hidden))


def _embed(net: Net, x: Value, w: Weights, dims: FlowDiTDims, earlier: Continuing | None) -> Value:
    """Linear [B, T, 4·mels] → [B, T, hidden], plus two causal convolutions that tell positions."""
    op = net.op
    x = net.tap("input_embed.proj", layers.affine(net, x, w / "proj", dims.hidden, 4 * dims.mels))
    h = layers.channels_first(net, x)
    for name in ("conv1", "conv2"):
        h = layers.mish(net, _grouped(net, h, w / "conv_pos_embed" / name / 0, dims, earlier))
    return net.tap("input_embed", op.Add(layers.channels_first(net, h), x))


def _grouped(
    net: Net, x: Value, w: Weights, dims: FlowDiTDims, earlier: Continuing | None
) -> Value:
    """Causal convolution in groups over [B, hidden, T]; `weight` [hidden, hidden / groups, k]."""
    weight = w.get("weight", dims.hidden, None, None)
    _, of_group, taps = weight.shape
    if of_group < 1 or dims.hidden % of_group:
        raise UsageError(
            f"{w.source}: {weight.name} has groups of {of_group} channels, which do not divide "
            f"{dims.hidden}"
        )
    left = taps - 1
    if earlier:
        extended = earlier.extended(layers.channels_first(net, x), dims.hidden, left)
        x, left = layers.channels_first(net, extended), 0
    return net.op.Conv(
        x,
        net.parameter(weight),
        net.parameter(w.get("bias", dims.hidden)),
        pads=[left, 0],
        group=dims.hidden // of_group,
    )


def _rotation(
    net: Net, frames: Value, w: Weights, dims: FlowDiTDims, earlier: Continuing | None
) -> tuple[Value, Value]:
    """Cosine and sine of the rotary angles, each [T, head_width / 2] (Su et al., 2021)."""
    op = net.op
    frequency = net.parameter(w.get("inv_freq", dims.head_width // 2))
    places = layers.positions(net, frames)
    index = op.Cast(op.Add(places, earlier.before) if earlier else places, to=1)
    angle = op.Mul(op.Unsqueeze(index, [1]), frequency)
    return op.Cos(angle), op.Sin(angle)


class _Seen(NamedTuple):
    """What attention goes by besides its input: the mask, rotations, and earlier frames if any."""

    bias: Value
    rotation: tuple[Value, Value]
    earlier: Continuing | None


def _attention(net: Net, x: Value, seen: _Seen, w: Weights, dims: FlowDiTDims) -> Value:
    """Self-attention in which queries and keys of the first head are rotated, and no others.

    The original rotates as many channels as a head has before it splits them into heads.
    """
    op = net.op
    heads, width = dims.heads, dims.head_width
    inner = heads * width
    q, k = (_rotated(net, x, seen.rotation, w / name, dims) for name in ("to_q", "to_k"))
    v = layers.affine(net, x, w / "to_v", inner, dims.hidden)
    if seen.earlier:
        k, v = seen.earlier.joined(k, inner), seen.earlier.joined(v, inner)
    q, k, v = (layers.split_heads(net, y, heads, width) for y in (q, k, v))
    scores = op.MatMul(op.Mul(q, width**-0.5), op.Transpose(k, perm=[0, 1, 3, 2]))
    y = layers.merge_heads(net, layers.attend(net, scores, seen.bias, v), heads, width)
    return layers.affine(net, y, w / "to_out" / 0, dims.hidden, inner)


def _rotated(
    net: Net, x: Value, rotation: tuple[Value, Value], w: Weights, dims: FlowDiTDims
) -> Value:
    """A projection [B, T, heads · width] whose first head is rotated.

    The original rotates neighbouring channels. Their order makes no difference to products of
    queries and keys, so weights are stored with the first of all pairs before the second ones.
    """
    op = net.op
    inner, half = dims.heads * dims.head_width, dims.head_width // 2

    def sorted_rows(value: np.ndarray) -> np.ndarray:
        first = value[: 2 * half]
        return np.concatenate([first[0::2], first[1::2], value[2 * half :]])

    def stored(leaf: str, *shape: int) -> Parameter:
        return w.get(leaf, *shape).map(shape, sorted_rows)

    weight, bias = stored("weight", inner, dims.hidden), stored("bias", inner)
    y = op.Add(op.MatMul(x, net.parameter(weight.transposed)), net.parameter(bias))
    first, second = op.Slice(y, [0], [half], [2]), op.Slice(y, [half], [2 * half], [2])
    cos, sin = rotation
    turned = [
        op.Sub(op.Mul(first, cos), op.Mul(second, sin)),
        op.Add(op.Mul(second, cos), op.Mul(first, sin)),
    ]
    others = [op.Slice(y, [2 * half], [END], [2])] if dims.heads > 1 else []
    return op.Concat(*turned, *others, axis=-1)


def _embedded(w: Weights, dims: FlowDiTDims, t: float) -> np.ndarray:
    """What `flow_dit_time` says of a time: quantized networks take no other numbers."""

    def silu(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))

    perceptron = w / "time_embed" / "time_mlp"
    e = silu(affine(sinusoids_of(t, _sinusoids(perceptron)), perceptron / 0))
    time = silu(affine(e, perceptron / 2))
    return np.concatenate([affine(time, module) for module, _ in _modulations(w, dims)])[None]
