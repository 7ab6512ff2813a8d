"""The velocity of the flow-matching decoder: a causal U-Net, and the embedding of its time.

Source: cosyvoice/flow/decoder.py (`CausalConditionalDecoder`) and
cosyvoice/flow/flow_matching.py (`CausalConditionalCFM`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgepack.graph import layers
from edgepack.graph.net import BATCH, INT64, Graph, Net, Value
from edgepack.graph.weights import Weights, numbered

_EPSILON = 1e-5
_TIME_SCALE = 1000.0
_LEVELS = ("down_blocks", "mid_blocks", "up_blocks")


@dataclass(frozen=True)
class FlowUNetDims:
    """Dimensions of the estimator: mel bands, attention heads and their width."""

    mels: int
    heads: int
    head_width: int


def flow_time(w: Weights, dims: FlowUNetDims) -> Graph:
    """`t` [n] → `shift` [n, W]: what each time adds inside the residual blocks, one after another.

    Sinusoids of 1000·t through two Linears, then each block's own Mish and Linear. It depends on
    nothing else, so a solver's times are embedded once.
    """
    net = Net("flow_time")
    op = net.op
    t = net.input("t", ["n"])
    width = 4 * dims.mels
    frequency = net.constant("time_frequency", _frequency(dims))
    angle = op.Mul(op.Mul(op.Unsqueeze(t, [1]), _TIME_SCALE), frequency)
    e = op.Concat(op.Sin(angle), op.Cos(angle), axis=-1)
    perceptron = w / "time_mlp"
    e = layers.silu(net, layers.affine(net, e, perceptron / "linear_1", None, width))
    time = layers.mish(net, net.tap("time_mlp", layers.affine(net, e, perceptron / "linear_2")))
    shifts = [layers.affine(net, time, block / "mlp" / 1) for block in _residual_blocks(w)]
    net.output("shift", op.Concat(*shifts, axis=1), ["n", sum(_widths(w))])
    times = (np.array([0.0, 0.125, 0.7]), np.array([1.0]))
    return net.finish(tuple({"t": value.astype(np.float32)} for value in times))


def _residual_blocks(w: Weights) -> Iterator[Weights]:
    """The U-Net's residual blocks in the order in which they run."""
    for levels in _LEVELS:
        for level in numbered(w, levels):
            yield level / 0


def _widths(w: Weights) -> list[int]:
    """Channels of each residual block."""
    return [(block / "mlp" / 1).get("bias", None).shape[0] for block in _residual_blocks(w)]


def flow_unet(w: Weights, dims: FlowUNetDims) -> Graph:
    """`x` [1, mels, T], `mu`, `cond` [B, mels, T], `spk` [B, mels] → `velocity` [B, mels, T].

    Rows of the batch are different conditions for one state x: those of the utterance, and zeros
    for classifier-free guidance (Ho and Salimans, 2022). `shift` [1, W] is `flow_time` of the
    time. `next` [1, mels, T] is `x + Σ step_b · velocity_b`, with `step` [B]. `chunk` int64 [1] is
    the attention chunk in frames, T or more for no mask.
    """
    net = Net("flow_estimator")
    op = net.op
    wide: list[int | str] = [BATCH, dims.mels, "T"]
    x = net.input("x", [1, dims.mels, "T"])
    mu, cond = (net.input(name, wide) for name in ("mu", "cond"))
    spk, step = net.input("spk", [BATCH, dims.mels]), net.input("step", [BATCH])
    shift = net.input("shift", [1, sum(_widths(w))])
    chunk = net.input("chunk", [1], INT64)

    velocity = _estimate(net, _rows(net, x, mu, spk, cond), shift, chunk, w, dims)
    net.output("velocity", velocity, wide)
    moved = op.ReduceSum(op.Mul(velocity, op.Unsqueeze(step, [1, 2])), [0], keepdims=1)
    net.output("next", op.Add(x, moved), [1, dims.mels, "T"])
    return net.finish(_calls(w, dims))


def _calls(w: Weights, dims: FlowUNetDims) -> tuple[dict[str, np.ndarray], ...]:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    return tuple(
        {
            "x": draw(1, dims.mels, frames),
            "mu": draw(1, dims.mels, frames),
            "cond": draw(1, dims.mels, frames),
            "spk": draw(1, dims.mels),
            "shift": _embedded(w, dims, t),
            "step": np.array([0.1], np.float32),
            "chunk": np.array([chunk], np.int64),
        }
        for frames, chunk, t in ((40, 40, 0.0), (57, 14, 0.7))
    )


def _embedded(w: Weights, dims: FlowUNetDims, t: float) -> np.ndarray:
    """What `flow_time` says of a time: quantized networks take no other numbers."""

    def affine(x: np.ndarray, w: Weights) -> np.ndarray:
        return w.get("weight", None, None).load() @ x + w.get("bias", None).load()

    frequency = _frequency(dims)
    angle = np.float32(_TIME_SCALE * t) * frequency
    e = affine(np.concatenate([np.sin(angle), np.cos(angle)]), w / "time_mlp" / "linear_1")
    e = affine(e / (1 + np.exp(-e)), w / "time_mlp" / "linear_2")
    time = e * np.tanh(np.log1p(np.exp(e)))
    return np.concatenate([affine(time, block / "mlp" / 1) for block in _residual_blocks(w)])[None]


def _frequency(dims: FlowUNetDims) -> np.ndarray:
    """Of the sinusoids, [2 · mels]."""
    half = 2 * dims.mels
    return np.exp(np.arange(half, dtype=np.float32) * -(math.log(10000.0) / (half - 1)))


def _rows(net: Net, x: Value, mu: Value, spk: Value, cond: Value) -> Value:
    """The batch [B, T, 4·mels]: x, mu, spk and cond side by side."""
    op = net.op
    none = op.Mul(mu, 0.0)
    rows = op.Concat(op.Add(none, x), mu, op.Add(none, op.Unsqueeze(spk, [2])), cond, axis=1)
    return layers.channels_first(net, rows)


def _estimate(
    net: Net, x: Value, shift: Value, chunk: Value, w: Weights, dims: FlowUNetDims
) -> Value:
    """The U-Net over [B, T, 4·mels] → [B, mels, T].

    Levels below the first halve the frame rate; the released networks have one level.
    """
    op = net.op
    shifts = iter(op.Split(shift, _widths(w), axis=1, _outputs=len(_widths(w))))
    downs, mids, ups = (numbered(w, name) for name in _LEVELS)
    skips: list[Value] = []

    def block(name: str, x: Value, level: Weights, bias: Value) -> Value:
        x = net.tap(f"{name}.0", _resnet(net, x, next(shifts), level / 0))
        for j, transformer in enumerate(numbered(level, "1")):
            x = net.tap(f"{name}.1.{j}", _transformer(net, x, bias, transformer, dims))
        return x

    for i, level in enumerate(downs):
        bias = layers.chunk_bias(net, layers.length(net, x, 1), chunk)
        x = block(f"down_blocks.{i}", x, level, bias)
        skips.append(x)
        last = i == len(downs) - 1
        x = net.tap(f"down_blocks.{i}.2", (_causal if last else _halve)(net, x, level / 2))
    for i, level in enumerate(mids):
        x = block(f"mid_blocks.{i}", x, level, bias)
    for i, level in enumerate(ups):
        skip = skips.pop()
        if i > 0:  # doubling a halved odd length gives one frame more
            frames = layers.length(net, skip, 1)
            bias = layers.chunk_bias(net, frames, chunk)
            x = op.Slice(x, [0], frames, [1])
        x = op.Concat(x, skip, axis=-1)
        x = block(f"up_blocks.{i}", x, level, bias)
        last = i == len(ups) - 1
        x = net.tap(f"up_blocks.{i}.2", (_causal if last else _double)(net, x, level / 2))
    x = net.tap("final_block", _causal_block(net, x, w / "final_block"))
    x = layers.time_convolution(net, x, layers.biased(w / "final_proj"), 0, (dims.mels, None, 1))
    return layers.channels_first(net, x)


def _causal(net: Net, x: Value, w: Weights) -> Value:
    """Convolution over the present frame and the `k - 1` before it."""
    taps = w.get("weight", None, None, None).shape[2]
    return layers.time_convolution(net, x, layers.biased(w), taps - 1, (None, None, taps))


def _causal_block(net: Net, x: Value, w: Weights) -> Value:
    """Causal convolution, LayerNorm over channels, Mish."""
    x = _causal(net, x, w / "block" / 0)
    return layers.mish(net, layers.layer_norm(net, x, w / "block" / 2, _EPSILON))


def _resnet(net: Net, x: Value, shift: Value, w: Weights) -> Value:
    """Two causal blocks with the time's shift added between them, and a 1×1 shortcut."""
    op = net.op
    h = _causal_block(net, x, w / "block1")
    h = _causal_block(net, op.Add(h, shift), w / "block2")
    shortcut = layers.biased(w / "res_conv")
    return op.Add(h, layers.time_convolution(net, x, shortcut, 0, (None, None, 1)))


def _transformer(net: Net, x: Value, bias: Value, w: Weights, dims: FlowUNetDims) -> Value:
    """Pre-norm self-attention and a GELU feed-forward (diffusers `BasicTransformerBlock`)."""
    op = net.op
    heads, width = dims.heads, dims.head_width
    h = layers.layer_norm(net, x, w / "norm1", _EPSILON)
    attention = w / "attn1"

    def project(name: str) -> Value:
        y = layers.linear(net, h, attention / name, heads * width, None)
        return layers.split_heads(net, y, heads, width)

    q, k, v = project("to_q"), project("to_k"), project("to_v")
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
