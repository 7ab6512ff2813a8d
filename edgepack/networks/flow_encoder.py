"""Speech tokens → mel-rate conditioning: embedding, look-ahead, conformer at 25 Hz and 50 Hz.

Source: cosyvoice/transformer/upsample_encoder.py (`UpsampleConformerEncoder`) and
cosyvoice/flow/flow.py (`CausalMaskedDiffWithXvec`).
"""

import math
from dataclasses import dataclass

import numpy as np

from edgepack.graph import layers
from edgepack.graph.net import END, INT64, Graph, Net, Value
from edgepack.graph.weights import Weights, numbered

_LAYER_EPSILON, _NORM_EPSILON, _UNIT_EPSILON = 1e-12, 1e-5, 1e-12
_LOOK_AHEAD_SLOPE = 0.01
_UPSAMPLED_KERNEL = 5


@dataclass(frozen=True)
class FlowEncoderDims:
    """Dimensions: widths and counts; `look_ahead` in tokens, `ratio` mel frames a token."""

    vocabulary: int
    embedded: int
    hidden: int
    heads: int
    feed_forward: int
    mels: int
    speaker: int
    look_ahead: int
    ratio: int


def flow_encoder(w: Weights, dims: FlowEncoderDims) -> Graph:
    """`tokens` int64 [1, n + look_ahead] → `mu` [1, mels, ratio·n] and `spk` [1, mels].

    The last `look_ahead` tokens are only looked at. `look_ahead` [1] scales their embeddings: 1
    when they are real, 0 when the text has ended and they stand for silence. `chunk` int64 [1]
    is the chunk of the attention mask in tokens, n or more for no mask. `speaker` [1, d] is the
    speaker embedding, of any length.
    """
    net = Net("flow_encoder")
    op = net.op
    tokens = net.input("tokens", [1, "n + look_ahead"], INT64)
    real = net.input("look_ahead", [1])
    chunk = net.input("chunk", [1], INT64)
    speaker = net.input("speaker", [1, dims.speaker])

    table = (w / "input_embedding").get("weight", dims.vocabulary, dims.embedded)
    encoder = w / "encoder"
    x = op.Gather(net.parameter(table), tokens, axis=0)
    x = _embed(net, x, encoder / "embed", dims, dims.embedded)
    x = net.tap("pre_lookahead_layer", _look_ahead(net, x, real, encoder, dims))
    x = _conformer(net, x, encoder, "encoders", chunk, dims)
    x = _upsample(net, x, encoder / "up_layer", dims)
    x = net.tap("up_embed", _embed(net, x, encoder / "up_embed", dims, dims.hidden))
    x = _conformer(net, x, encoder, "up_encoders", op.Mul(chunk, dims.ratio), dims)
    x = net.tap("enc", layers.layer_norm(net, x, encoder / "after_norm", _NORM_EPSILON))
    mu = layers.affine(net, x, w / "encoder_proj", dims.mels, dims.hidden)
    net.output("mu", layers.channels_first(net, mu), [1, dims.mels, "frames"])

    norm = op.Sqrt(op.ReduceSum(op.Mul(speaker, speaker), [1], keepdims=1))
    unit = op.Div(speaker, op.Max(norm, _UNIT_EPSILON))
    spk = layers.affine(net, unit, w / "spk_embed_affine_layer", dims.mels, dims.speaker)
    net.output("spk", spk, [1, dims.mels])
    return net.finish(_calls(dims))


def _calls(dims: FlowEncoderDims) -> tuple[dict[str, np.ndarray], ...]:
    rng = np.random.default_rng(0)
    return tuple(
        {
            "tokens": rng.integers(0, dims.vocabulary, (1, n + dims.look_ahead)),
            "look_ahead": np.array([real], np.float32),
            "chunk": np.array([chunk], np.int64),
            "speaker": rng.standard_normal((1, dims.speaker), np.float32),
        }
        for n, chunk, real in ((20, 20, 0), (31, 7, 1))
    )


def _embed(net: Net, x: Value, w: Weights, dims: FlowEncoderDims, inputs: int) -> Value:
    """Linear, LayerNorm, times √D."""
    x = layers.affine(net, x, w / "out" / 0, dims.hidden, inputs)
    x = layers.layer_norm(net, x, w / "out" / 1, _NORM_EPSILON)
    return net.op.Mul(x, math.sqrt(dims.hidden))


def _look_ahead(net: Net, x: Value, real: Value, w: Weights, dims: FlowEncoderDims) -> Value:
    """Mix each frame with the `look_ahead` frames after it: [1, n + look_ahead, D] → [1, n, D]."""
    op = net.op
    layer, wide = w / "pre_lookahead_layer", (dims.hidden, dims.hidden)
    own = net.tap("embed", op.Slice(x, [0], [-dims.look_ahead], [1]))
    ahead = op.Slice(x, [-dims.look_ahead], [END], [1])
    x = op.Concat(own, op.Mul(ahead, real), axis=1)
    first, second = (layers.biased(layer / name) for name in ("conv1", "conv2"))
    x = layers.time_convolution(net, x, first, 0, (*wide, dims.look_ahead + 1))
    x = op.LeakyRelu(x, alpha=_LOOK_AHEAD_SLOPE)
    taps = (layer / "conv2").get("weight", *wide, None).shape[2]
    return op.Add(layers.time_convolution(net, x, second, taps - 1, (*wide, taps)), own)


def _upsample(net: Net, x: Value, w: Weights, dims: FlowEncoderDims) -> Value:
    """Repeat every frame `ratio` times, then a causal convolution."""
    op = net.op
    repeated = op.Concat(*[x] * dims.ratio, axis=-1)
    x = op.Reshape(repeated, [1, -1, dims.hidden])
    taps = 2 * dims.ratio + 1
    shape = (dims.hidden, dims.hidden, taps)
    return layers.time_convolution(net, x, layers.biased(w / "conv"), taps - 1, shape)


def _conformer(
    net: Net, x: Value, w: Weights, scope: str, chunk: Value, dims: FlowEncoderDims
) -> Value:
    """Conformer layers with relative attention, without convolution or macaron modules."""
    op = net.op
    count = layers.length(net, x, 1)
    bias = net.tap(f"{scope}.bias", layers.chunk_bias(net, count, chunk))
    table = net.tap(f"{scope}.positions", _relative_positions(net, count, dims.hidden))
    for i, layer in enumerate(numbered(w, scope)):
        h = layers.layer_norm(net, x, layer / "norm_mha", _LAYER_EPSILON)
        x = op.Add(x, _relative_attention(net, h, table, count, bias, layer / "self_attn", dims))
        h = layers.layer_norm(net, x, layer / "norm_ff", _LAYER_EPSILON)
        ff = layer / "feed_forward"
        h = layers.affine(net, h, ff / "w_1", dims.feed_forward, dims.hidden)
        h = layers.affine(net, layers.silu(net, h), ff / "w_2", dims.hidden, dims.feed_forward)
        x = net.tap(f"{scope}.{i}", op.Add(x, h))
    return x


def _relative_positions(net: Net, count: Value, width: int) -> Value:
    """Sinusoidal table [1, 2n-1, D]; row r encodes the relative position n-1-r.

    Source: cosyvoice/transformer/embedding.py, `EspnetRelPositionalEncoding`.
    """
    op = net.op
    rows = op.Sub(op.Mul(count, 2), 1)
    relative = op.Sub(op.Sub(count, 1), layers.positions(net, rows))
    frequency = np.exp(np.arange(0, width, 2, dtype=np.float32) * -(math.log(10000.0) / width))
    angle = op.Mul(
        op.Unsqueeze(op.Cast(relative, to=1), [1]), net.constant("pos_frequency", frequency)
    )
    pairs = op.Concat(op.Unsqueeze(op.Sin(angle), [2]), op.Unsqueeze(op.Cos(angle), [2]), axis=2)
    return op.Reshape(pairs, [1, -1, width])


def _relative_attention(
    net: Net, x: Value, table: Value, count: Value, bias: Value, w: Weights, dims: FlowEncoderDims
) -> Value:
    """Attention with Transformer-XL relative positions (Dai et al., 2019)."""
    op = net.op
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
    y = layers.attend(net, op.Add(content, position), bias, v)
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
