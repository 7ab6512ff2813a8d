"""Layers as functions over a `Net`: `linear(net, x, w / "up")`.

Sequences are channels-last, `[batch, time, channels]`, unless a name says otherwise. Causal
convolutions along time are written as one MatMul over shifted copies, so that a whole
transformer or U-Net is MatMuls, which every engine runs fast and quantizes.
"""

import math
from collections.abc import Sequence

from edgepack.errors import IntegrityError
from edgepack.graph.net import END, Net, Value
from edgepack.graph.weights import Weights

MASKED = -1e10
_MAX_TAPS = 256


def linear(net: Net, x: Value, w: Weights, *shape: int | None) -> Value:
    """`x Wᵀ + b` as torch.nn.Linear, `weight` [out, in] of this shape; the bias is optional."""
    weight = w.get("weight", *(shape or (None, None)))
    y = net.op.MatMul(x, net.parameter(weight.transposed))
    return _add_bias(net, y, w, weight.shape[0])


def affine(net: Net, x: Value, w: Weights, *shape: int | None) -> Value:
    """`linear` of a module whose bias has to exist."""
    return linear(net, x, biased(w), *shape)


def biased(w: Weights) -> Weights:
    """The module itself; raises an error without a bias, as the network would speak wrongly."""
    w.get("bias", None)
    return w


def _add_bias(net: Net, x: Value, w: Weights, size: int) -> Value:
    return net.op.Add(x, net.parameter(w.get("bias", size))) if "bias" in w else x


def layer_norm(net: Net, x: Value, w: Weights, epsilon: float) -> Value:
    """LayerNorm over the last axis."""
    scale, bias = net.parameter(w.get("weight", None)), net.parameter(w.get("bias", None))
    return net.op.LayerNormalization(x, scale, bias, axis=-1, epsilon=epsilon)


def modulated_norm(net: Net, x: Value, scale: Value, shift: Value, epsilon: float) -> Value:
    """LayerNorm over the last axis without weights, times `1 + scale` [D], plus `shift` [D]."""
    op = net.op
    return op.LayerNormalization(x, op.Add(scale, 1.0), shift, axis=-1, epsilon=epsilon)


def rms_norm(net: Net, x: Value, w: Weights, epsilon: float) -> Value:
    """`w · x / sqrt(mean(x²) + ε)` over the last axis (Zhang and Sennrich, 2019)."""
    op = net.op
    mean = op.ReduceMean(op.Pow(x, 2.0), [-1], keepdims=1)
    return op.Mul(op.Div(x, op.Sqrt(op.Add(mean, epsilon))), net.parameter(w.get("weight", None)))


def silu(net: Net, x: Value) -> Value:
    """`x · sigmoid(x)`."""
    return net.op.Mul(x, net.op.Sigmoid(x))


def gelu(net: Net, x: Value) -> Value:
    """Exact GELU, `x · (1 + erf(x/√2)) / 2`, in the form that engines fuse."""
    op = net.op
    return op.Mul(op.Mul(x, op.Add(op.Erf(op.Div(x, math.sqrt(2.0))), 1.0)), 0.5)


def tanh_gelu(net: Net, x: Value) -> Value:
    """GELU by a tanh, `x · (1 + tanh(√(2/π) · (x + 0.044715 x³))) / 2`, in a form engines fuse.

    Source: Hendrycks and Gimpel (2016); torch's GELU(approximate="tanh").
    """
    op = net.op
    inner = op.Add(x, op.Mul(op.Pow(x, 3.0), 0.044715))
    grown = op.Add(op.Tanh(op.Mul(inner, math.sqrt(2.0 / math.pi))), 1.0)
    return op.Mul(op.Mul(x, 0.5), grown)


def mish(net: Net, x: Value) -> Value:
    """`x · tanh(softplus(x))`, written as `x · n / (n + 2)` with `n = eˣ (eˣ + 2)`.

    Identical in real numbers; ONNX Runtime's Softplus is ten times slower than its Exp.
    """
    op = net.op
    e = op.Exp(op.Min(x, 20.0))
    n = op.Mul(e, op.Add(e, 2.0))
    return op.Mul(x, op.Div(n, op.Add(n, 2.0)))


def time_convolution(
    net: Net, x: Value, w: Weights, left: int, shape: Sequence[int | None]
) -> Value:
    """Convolution along time of `[B, T, in]` after `left` zero frames; none are added right.

    `weight [out, in, k]`, stride 1, the bias is optional. The result has `T + left - k + 1` frames.
    """
    op = net.op
    weight = w.get("weight", *shape)
    out, inputs, taps = weight.shape
    if taps > _MAX_TAPS:
        raise IntegrityError(f"{w.source}: {weight.name} has {taps} taps; refused")
    if left:
        x = op.Pad(x, [0, left, 0, 0, 0, 0])
    shifted = [op.Slice(x, [tap], [tap + 1 - taps or END], [1]) for tap in range(taps)]
    stacked = op.Concat(*shifted, axis=-1) if taps > 1 else x  # [B, T', k·in]
    matrix = weight.map(
        (taps * inputs, out), lambda v: v.transpose(2, 1, 0).reshape(taps * inputs, out)
    )
    return _add_bias(net, op.MatMul(stacked, net.parameter(matrix)), w, out)


def channels_first(net: Net, x: Value) -> Value:
    """Swap the last two axes, `[B, T, C]` and `[B, C, T]`, either way."""
    return net.op.Transpose(x, perm=[0, 2, 1])


def length(net: Net, x: Value, axis: int) -> Value:
    """The length of one axis, as int64 `[1]`."""
    return net.op.Shape(x, start=axis, end=axis + 1)


def positions(net: Net, count: Value) -> Value:
    """`0 … count-1` as int64; `count` is `[1]`."""
    op = net.op
    return op.Range(0, op.Squeeze(count, [0]), 1)


def split_heads(net: Net, x: Value, heads: int, width: int) -> Value:
    """`[B, T, heads·width]` to `[B, heads, T, width]`."""
    return net.op.Transpose(net.op.Reshape(x, [0, 0, heads, width]), perm=[0, 2, 1, 3])


def merge_heads(net: Net, x: Value, heads: int, width: int) -> Value:
    """`[B, heads, T, width]` to `[B, T, heads·width]`."""
    return net.op.Reshape(net.op.Transpose(x, perm=[0, 2, 1, 3]), [0, 0, heads * width])


def chunk_bias(net: Net, count: Value, chunk: Value, before: Value | None = None) -> Value:
    """Additive attention mask `[T, T]`: frame i sees the chunks up to its own, all of them whole.

    0 where `j < (i // chunk + 1) · chunk`, else -1e10; a chunk of T or more hides nothing. After
    `before` [1] = P frames whose keys are kept it is `[T, P + T]`.
    Source: cosyvoice/utils/mask.py, `add_optional_chunk_mask`.
    """
    op = net.op
    index = keys = positions(net, count)
    if before is not None:
        index, keys = op.Add(index, before), positions(net, op.Add(before, count))
    end = op.Mul(op.Add(op.Div(index, chunk), 1), chunk)
    visible = op.Less(op.Unsqueeze(keys, [0]), op.Unsqueeze(end, [1]))
    return op.Where(visible, 0.0, MASKED)


def attend(net: Net, scores: Value, bias: Value, v: Value) -> Value:
    """`softmax(scores + bias) v`."""
    op = net.op
    return op.MatMul(op.Softmax(op.Add(scores, bias), axis=-1), v)
