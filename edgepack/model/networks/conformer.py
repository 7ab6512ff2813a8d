"""Conformer layers with relative positions, over a sequence that is known at once.

Source: cosyvoice/transformer/encoder.py (`ConformerEncoder`), encoder_layer.py and attention.py
(`RelPositionMultiHeadedAttention`), without the convolution and macaron modules, which no released
checkpoint has. The attention is Transformer-XL's (Dai et al., 2019).
"""

import math
from dataclasses import dataclass

import numpy as np

from edgepack.graph import layers
from edgepack.graph.net import END, Net, Value
from edgepack.graph.weights import Weights, numbered

LAYER_EPSILON, NORM_EPSILON = 1e-12, 1e-5  # of norms inside layers, and of those around them


@dataclass(frozen=True)
class ConformerDims:
    """Width of the sequence, attention heads, and width inside the feed-forward module.

    `layers` is how many there have to be, 0 for any number.
    """

    hidden: int
    heads: int
    feed_forward: int
    layers: int = 0


def embed(net: Net, x: Value, w: Weights, width: int, inputs: int) -> Value:
    """Linear, LayerNorm, times √D: [1, n, inputs] → [1, n, width]."""
    x = layers.affine(net, x, w / "out" / 0, width, inputs)
    x = layers.layer_norm(net, x, w / "out" / 1, NORM_EPSILON)
    return net.op.Mul(x, math.sqrt(width))


def conformer(
    net: Net, x: Value, w: Weights, scope: str, chunk: Value | None, dims: ConformerDims
) -> Value:
    """The layers `w / scope` over `x` [1, n, D].

    `chunk` int64 [1] is the chunk of the attention mask in positions: each sees the chunks up to
    its own, so 1 is causal attention and n or more no mask. Without `chunk` there is no mask.
    """
    op = net.op
    modules = numbered(w, scope, dims.layers or None)
    count = layers.length(net, x, 1)
    bias = None
    if chunk is not None:
        bias = net.tap(f"{scope}.bias", layers.chunk_bias(net, count, chunk))
    table = net.tap(f"{scope}.positions", relative_positions(net, count, dims.hidden))
    for i, layer in enumerate(modules):
        h = layers.layer_norm(net, x, layer / "norm_mha", LAYER_EPSILON)
        h = _relative_attention(net, h, (table, count, bias), layer / "self_attn", dims)
        x = op.Add(x, h)
        h = layers.layer_norm(net, x, layer / "norm_ff", LAYER_EPSILON)
        ff = layer / "feed_forward"
        h = layers.affine(net, h, ff / "w_1", dims.feed_forward, dims.hidden)
        h = layers.affine(net, layers.silu(net, h), ff / "w_2", dims.hidden, dims.feed_forward)
        x = net.tap(f"{scope}.{i}", op.Add(x, h))
    return x


def frequencies(width: int) -> np.ndarray:
    """Frequencies of the sinusoids of `width` channels, in radians a position, [width / 2]."""
    return np.exp(np.arange(0, width, 2, dtype=np.float32) * -(math.log(10000.0) / width))


def relative_positions(net: Net, count: Value, width: int) -> Value:
    """Sinusoidal table [1, 2n-1, D]; row r encodes the relative position n-1-r.

    Source: cosyvoice/transformer/embedding.py, `EspnetRelPositionalEncoding`.
    """
    op = net.op
    rows = op.Sub(op.Mul(count, 2), 1)
    relative = op.Sub(op.Sub(count, 1), layers.positions(net, rows))
    angle = op.Mul(
        op.Unsqueeze(op.Cast(relative, to=1), [1]),
        net.constant("pos_frequency", frequencies(width)),
    )
    pairs = op.Concat(op.Unsqueeze(op.Sin(angle), [2]), op.Unsqueeze(op.Cos(angle), [2]), axis=2)
    return op.Reshape(pairs, [1, -1, width])


def _relative_attention(
    net: Net, x: Value, at: tuple[Value, Value, Value | None], w: Weights, dims: ConformerDims
) -> Value:
    """Attention of `x` [1, n, D]; `at` is the table of positions, their number and the mask."""
    op = net.op
    table, count, bias = at
    heads, width = dims.heads, dims.hidden // dims.heads
    square = (dims.hidden, dims.hidden)

    def split(y: Value) -> Value:
        return layers.split_heads(net, y, heads, width)

    q, k, v = (split(layers.affine(net, x, w / f"linear_{part}", *square)) for part in "qkv")
    p = split(layers.linear(net, table, w / "linear_pos", *square))
    scale = width**-0.5

    def scores(position_bias: str, keys: Value) -> Value:
        offset = w.get(position_bias, heads, width).map(
            (heads, 1, width), lambda value: value[:, None]
        )
        query = op.Mul(op.Add(q, net.parameter(offset)), scale)
        return op.MatMul(query, op.Transpose(keys, perm=[0, 1, 3, 2]))

    content = scores("pos_bias_u", k)
    position = _shift(net, scores("pos_bias_v", p), count, heads)
    both = op.Add(content, position)
    if bias is None:
        y = op.MatMul(op.Softmax(both, axis=-1), v)
    else:
        y = layers.attend(net, both, bias, v)
    return layers.affine(net, layers.merge_heads(net, y, heads, width), w / "linear_out", *square)


def _shift(net: Net, x: Value, count: Value, heads: int) -> Value:
    """Relative shift [1, h, n, 2n-1] → [1, h, n, n], `y[i, j] = x[i, n-1-i+j]`.

    With one zero column in front, rows of 2n re-read as rows of n slide by one each.
    """
    op = net.op
    padded = op.Pad(x, [0, 0, 0, 1, 0, 0, 0, 0])
    slid = op.Reshape(padded, op.Concat([1, heads, -1], count, axis=0))
    rows = op.Reshape(
        op.Slice(slid, [1], [END], [2]),
        op.Concat([1, heads], count, [-1], axis=0),
    )
    return op.Slice(rows, [0], count, [3])
