"""The velocity of the flow-matching decoder: a U-Net, and the embedding of its time.

Source: cosyvoice/flow/decoder.py (`ConditionalDecoder`, `CausalConditionalDecoder`) and
cosyvoice/flow/flow_matching.py (`ConditionalCFM`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgepack.graph import layers
from edgepack.graph.continuing import Continuing
from edgepack.graph.group_norm import group_norm
from edgepack.graph.net import Graph, Net, Value
from edgepack.graph.weights import Weights, numbered
from edgepack.model.networks.flow_estimator import (
    TIME_EMBEDDING,
    EstimatorInputs,
    affine,
    estimator,
    sinusoids,
    sinusoids_of,
    times_tried,
)

_EPSILON = 1e-5
_LEVELS = ("down_blocks", "mid_blocks", "up_blocks")


@dataclass(frozen=True)
class FlowUNetDims:
    """Dimensions of the estimator: mel bands, attention heads and their width.

    With `groups`, convolutions look at both sides and are followed by a GroupNorm of as many; else
    they are causal and followed by a LayerNorm over channels.
    """

    mels: int
    heads: int
    head_width: int
    groups: int = 0


def flow_time(w: Weights, dims: FlowUNetDims) -> Graph:
    """`t` [n] → `shift` [n, W]: what each time adds inside the residual blocks, one after another.

    Sinusoids of 1000·t through two Linears, then each block's own Mish and Linear. It depends on
    nothing else, so a solver's times are embedded once.
    """
    net = Net(*TIME_EMBEDDING)
    op = net.op
    width = 4 * dims.mels
    e = sinusoids(net, "time_frequency", 2 * dims.mels)
    perceptron = w / "time_mlp"
    e = layers.silu(net, layers.affine(net, e, perceptron / "linear_1", None, width))
    time = layers.mish(net, net.tap("time_mlp", layers.affine(net, e, perceptron / "linear_2")))
    shifts = [layers.affine(net, time, block / "mlp" / 1) for block in _residual_blocks(w)]
    net.output("shift", op.Concat(*shifts, axis=1), ["n", sum(_widths(w))])
    return net.finish(times_tried())


def _residual_blocks(w: Weights) -> Iterator[Weights]:
    """The U-Net's residual blocks in the order in which they run."""
    for levels in _LEVELS:
        for level in numbered(w, levels):
            yield level / 0


def _widths(w: Weights) -> list[int]:
    """Channels of each residual block."""
    return [(block / "mlp" / 1).get("bias", None).shape[0] for block in _residual_blocks(w)]


def flow_unet(w: Weights, dims: FlowUNetDims) -> Graph:
    """The U-Net as `flow_estimator.estimator` has it; `shift` is `flow_time` of the time."""

    def velocity(net: Net, given: EstimatorInputs) -> Value:
        rows = net.op.Concat(given.x, given.mu, given.spk, given.cond, axis=1)
        return _estimate(net, layers.channels_first(net, rows), given, w, dims)

    # A norm over time and a level at half the frame rate see frames that are yet to come.
    causal = not dims.groups and len(numbered(w, "down_blocks")) == 1
    embedded = partial(_embedded, w, dims)
    return estimator(dims.mels, sum(_widths(w)), velocity, embedded, continuing=causal)


def _embedded(w: Weights, dims: FlowUNetDims, t: float) -> np.ndarray:
    """What `flow_time` says of a time: quantized networks take no other numbers."""
    e = affine(sinusoids_of(t, 2 * dims.mels), w / "time_mlp" / "linear_1")
    e = affine(e / (1 + np.exp(-e)), w / "time_mlp" / "linear_2")
    time = e * np.tanh(np.log1p(np.exp(e)))
    return np.concatenate([affine(time, block / "mlp" / 1) for block in _residual_blocks(w)])[None]


def _estimate(net: Net, x: Value, given: EstimatorInputs, w: Weights, dims: FlowUNetDims) -> Value:
    """The U-Net over [B, T, 4·mels] → [B, mels, T].

    Levels below the first halve the frame rate; the released networks have one level.
    """
    op = net.op
    shifts = iter(op.Split(given.shift, _widths(w), axis=1, _outputs=len(_widths(w))))
    downs, mids, ups = (numbered(w, name) for name in _LEVELS)
    skips: list[Value] = []
    earlier = given.earlier

    def block(name: str, x: Value, level: Weights, bias: Value) -> Value:
        x = net.tap(f"{name}.0", _resnet(net, x, next(shifts), level / 0, dims, earlier))
        for j, transformer in enumerate(numbered(level, "1")):
            x = net.tap(f"{name}.1.{j}", _transformer(net, x, bias, transformer, dims, earlier))
        return x

    for i, level in enumerate(downs):
        bias = given.bias(net, x)
        x = block(f"down_blocks.{i}", x, level, bias)
        skips.append(x)
        last = i == len(downs) - 1
        x = _convolve(net, x, level / 2, dims, earlier) if last else _halve(net, x, level / 2)
        x = net.tap(f"down_blocks.{i}.2", x)
    for i, level in enumerate(mids):
        x = block(f"mid_blocks.{i}", x, level, bias)
    for i, level in enumerate(ups):
        skip = skips.pop()
        if i > 0:  # doubling a halved odd length gives one frame more
            bias = given.bias(net, skip)
            x = op.Slice(x, [0], layers.length(net, skip, 1), [1])
        x = op.Concat(x, skip, axis=-1)
        x = block(f"up_blocks.{i}", x, level, bias)
        last = i == len(ups) - 1
        x = _convolve(net, x, level / 2, dims, earlier) if last else _double(net, x, level / 2)
        x = net.tap(f"up_blocks.{i}.2", x)
    x = net.tap("final_block", _block(net, x, w / "final_block", dims, earlier))
    x = layers.time_convolution(net, x, layers.biased(w / "final_proj"), 0, (dims.mels, None, 1))
    return layers.channels_first(net, x)


def _convolve(
    net: Net, x: Value, w: Weights, dims: FlowUNetDims, earlier: Continuing | None
) -> Value:
    """Convolution over the present frame and the `k - 1` before it, or as many to both sides."""
    _, channels, taps = w.get("weight", None, None, None).shape
    left = taps - 1
    if earlier:
        x, left = earlier.extended(x, channels, left), 0
    elif dims.groups:
        x, left = net.op.Pad(x, [0, taps // 2, 0, 0, taps // 2, 0]), 0
    return layers.time_convolution(net, x, layers.biased(w), left, (None, None, taps))


def _block(net: Net, x: Value, w: Weights, dims: FlowUNetDims, earlier: Continuing | None) -> Value:
    """Convolution, norm, Mish."""
    x = _convolve(net, x, w / "block" / 0, dims, earlier)
    if dims.groups:
        x = group_norm(net, x, w / "block" / 1, dims.groups, _EPSILON)
    else:
        x = layers.layer_norm(net, x, w / "block" / 2, _EPSILON)
    return layers.mish(net, x)


def _resnet(
    net: Net,
    x: Value,
    shift: Value,
    w: Weights,
    dims: FlowUNetDims,
    earlier: Continuing | None,
) -> Value:
    """Two blocks with the time's shift added between them, and a 1×1 shortcut."""
    op = net.op
    h = _block(net, x, w / "block1", dims, earlier)
    h = _block(net, op.Add(h, shift), w / "block2", dims, earlier)
    shortcut = layers.biased(w / "res_conv")
    return op.Add(h, layers.time_convolution(net, x, shortcut, 0, (None, None, 1)))


def _transformer(
    net: Net,
    x: Value,
    bias: Value,
    w: Weights,
    dims: FlowUNetDims,
    earlier: Continuing | None,
) -> Value:
    """Pre-norm self-attention and a GELU feed-forward (diffusers `BasicTransformerBlock`)."""
    op = net.op
    heads, width = dims.heads, dims.head_width
    h = layers.layer_norm(net, x, w / "norm1", _EPSILON)
    attention = w / "attn1"

    q, k, v = (
        layers.linear(net, h, attention / name, heads * width, None)
        for name in ("to_q", "to_k", "to_v")
    )
    if earlier:
        k, v = earlier.joined(k, heads * width), earlier.joined(v, heads * width)
    q, k, v = (layers.split_heads(net, y, heads, width) for y in (q, k, v))
    scores = op.MatMul(op.Mul(q, width**-0.5), op.Transpose(k, perm=[0, 1, 3, 2]))
    y = layers.merge_heads(net, layers.attend(net, scores, bias, v), heads, width)
    x = op.Add(x, layers.affine(net, y, attention / "to_out" / 0, None, heads * width))
    h = layers.layer_norm(net, x, w / "norm3", _EPSILON)
    h = layers.gelu(net, layers.affine(net, h, w / "ff" / "net" / 0 / "proj"))
    return op.Add(x, layers.affine(net, h, w / "ff" / "net" / 2))


def _halve(net: Net, x: Value, w: Weights) -> Value:
    """Half the frame rate: convolution k3, stride 2, padding 1."""
    return _strided(net, x, w / "conv", "Conv", 3, strides=[2], pads=[1, 1])


def _double(net: Net, x: Value, w: Weights) -> Value:
    """Twice the frame rate: transposed convolution k4, stride 2, padding 1."""
    return _strided(net, x, w / "conv", "ConvTranspose", 4, strides=[2], pads=[1, 1])


def _strided(
    net: Net, x: Value, w: Weights, operator: str, taps: int, **attributes: list[int]
) -> Value:
    weight = net.parameter(w.get("weight", None, None, taps))
    bias = net.parameter(w.get("bias", None))
    y = getattr(net.op, operator)(layers.channels_first(net, x), weight, bias, **attributes)
    return layers.channels_first(net, y)
