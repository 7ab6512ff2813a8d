"""One Euler step of the flow-matching decoder around its causal U-Net estimator.

Source: cosyvoice/flow/decoder.py (`CausalConditionalDecoder`) and
cosyvoice/flow/flow_matching.py (`CausalConditionalCFM`).
"""

import math
from dataclasses import dataclass

import numpy as np

from edgepack.graph import layers
from edgepack.graph.net import INT64, Graph, Net, Value
from edgepack.graph.weights import Weights, numbered

_EPSILON = 1e-5
_TIME_SCALE = 1000.0


@dataclass(frozen=True)
class FlowUNetDims:
    """Dimensions of the estimator; `guidance` is the classifier-free guidance rate."""

    mels: int
    heads: int
    head_width: int
    guidance: float


def flow_unet(w: Weights, dims: FlowUNetDims) -> Graph:
    """`x`, `mu`, `cond` [1, mels, T], `spk` [1, mels], `t`, `dt` [1] → `next` [1, mels, T].

    `next = x + dt · v`, `v = (1 + r) v₀ - r v₁`: row 0 of the estimator's batch sees the
    conditions, row 1 zeros (classifier-free guidance, Ho and Salimans, 2022). `velocity`
    [2, mels, T] holds v₀ and v₁. `chunk` int64 [1] is the attention chunk in frames, T or more
    for no mask.
    """
    net = Net("flow_estimator")
    op = net.op
    wide: list[int | str] = [1, dims.mels, "T"]
    x, mu, cond = (net.input(name, wide) for name in ("x", "mu", "cond"))
    spk = net.input("spk", [1, dims.mels])
    t, dt = net.input("t", [1]), net.input("dt", [1])
    chunk = net.input("chunk", [1], INT64)

    velocity = _estimate(net, _pair(net, x, mu, spk, cond), t, chunk, w, dims)
    net.output("velocity", velocity, [2, dims.mels, "T"])
    guided, free = op.Split(velocity, axis=0, num_outputs=2, _outputs=2)
    v = op.Sub(op.Mul(guided, 1.0 + dims.guidance), op.Mul(free, dims.guidance))
    net.output("next", op.Add(x, op.Mul(dt, v)), wide)
    return net.finish(_calls(dims))


def _calls(dims: FlowUNetDims) -> tuple[dict[str, np.ndarray], ...]:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    return tuple(
        {
            **{name: draw(1, dims.mels, frames) for name in ("x", "mu", "cond")},
            "spk": draw(1, dims.mels),
            "t": np.array([t], np.float32),
            "dt": np.array([0.1], np.float32),
            "chunk": np.array([chunk], np.int64),
        }
        for frames, chunk, t in ((40, 40, 0.0), (57, 14, 0.7))
    )


def _pair(net: Net, x: Value, mu: Value, spk: Value, cond: Value) -> Value:
    """Both rows of the guidance batch, [2, T, 4·mels]: x, mu, spk, cond against x, 0, 0, 0."""
    op = net.op
    frames = op.Add(op.Mul(x, 0.0), op.Unsqueeze(spk, [2]))
    conditions = op.Concat(mu, frames, cond, axis=1)
    rows = [op.Concat(x, c, axis=1) for c in (conditions, op.Mul(conditions, 0.0))]
    return layers.channels_first(net, op.Concat(*rows, axis=0))


def _estimate(net: Net, x: Value, t: Value, chunk: Value, w: Weights, dims: FlowUNetDims) -> Value:
    """The U-Net over [2, T, 4·mels] → [2, mels, T].

    Levels below the first halve the frame rate; the released networks have one level.
    """
    op = net.op
    inputs = 4 * dims.mels
    time = _time_embedding(net, t, w / "time_mlp", inputs)
    downs, ups = numbered(w, "down_blocks"), numbered(w, "up_blocks")
    skips: list[Value] = []

    def block(name: str, x: Value, level: Weights, bias: Value) -> Value:
        x = net.tap(f"{name}.0", _resnet(net, x, time, level / 0))
        for j, transformer in enumerate(numbered(level, "1")):
            x = net.tap(f"{name}.1.{j}", _transformer(net, x, bias, transformer, dims))
        return x

    for i, level in enumerate(downs):
        bias = layers.chunk_bias(net, layers.length(net, x, 1), chunk)
        x = block(f"down_blocks.{i}", x, level, bias)
        skips.append(x)
        last = i == len(downs) - 1
        x = net.tap(f"down_blocks.{i}.2", (_causal if last else _halve)(net, x, level / 2))
    for i, level in enumerate(numbered(w, "mid_blocks")):
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


def _time_embedding(net: Net, t: Value, w: Weights, width: int) -> Value:
    """Sinusoids of 1000·t through two Linears → [1, 4·channels]."""
    op = net.op
    half = width // 2
    frequency = np.exp(np.arange(half, dtype=np.float32) * -(math.log(10000.0) / (half - 1)))
    angle = op.Mul(
        op.Mul(op.Unsqueeze(t, [1]), _TIME_SCALE), net.constant("time_frequency", frequency)
    )
    e = op.Concat(op.Sin(angle), op.Cos(angle), axis=-1)
    e = layers.silu(net, layers.affine(net, e, w / "linear_1", None, width))
    return net.tap("time_mlp", layers.affine(net, e, w / "linear_2"))


def _causal(net: Net, x: Value, w: Weights) -> Value:
    """Convolution over the present frame and the `k - 1` before it."""
    taps = w.get("weight", None, None, None).shape[2]
    return layers.time_convolution(net, x, layers.biased(w), taps - 1, (None, None, taps))


def _causal_block(net: Net, x: Value, w: Weights) -> Value:
    """Causal convolution, LayerNorm over channels, Mish."""
    x = _causal(net, x, w / "block" / 0)
    return layers.mish(net, layers.layer_norm(net, x, w / "block" / 2, _EPSILON))


def _resnet(net: Net, x: Value, time: Value, w: Weights) -> Value:
    """Two causal blocks with the time embedding added between them, and a 1×1 shortcut."""
    op = net.op
    h = _causal_block(net, x, w / "block1")
    bias = layers.affine(net, layers.mish(net, time), w / "mlp" / 1)
    h = _causal_block(net, op.Add(h, bias), w / "block2")
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
