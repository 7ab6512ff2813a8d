"""Speech tokens to mel: up-sampling conformer, U-Net estimator, guided Euler steps."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from numpy_reference import layers
from numpy_reference.layers import Array, Part, State

CONFORMER_EPS = 1e-12


def speaker(state: State, embedding: np.ndarray) -> Array:
    """Projection [1, mels] of the speaker embedding, scaled to length one."""
    vector = np.asarray(embedding, np.float64).reshape(1, -1)
    vector = vector / max(float(np.linalg.norm(vector)), 1e-12)
    return layers.linear(Part(state)["spk_embed_affine_layer"], vector)


def encode(
    state: State,
    tokens: Sequence[int],
    *,
    heads: int,
    look_ahead: int = 0,
    chunk: int | None = None,
    ratio: int = 2,
) -> tuple[Array, Array]:
    """Hidden states [frames, D] and their projection [frames, mels].

    The last `look_ahead` tokens are context of the first convolution only. With a chunk (in
    tokens) a position sees no further than the end of its own chunk.
    """
    encoder = Part(state)["encoder"]
    embedded = _embed(encoder["embed"], Part(state)["input_embedding"].weight()[list(tokens)])
    count = len(tokens) - look_ahead
    x = _look_ahead(encoder["pre_lookahead_layer"], embedded[:count], embedded[count:])
    for block in encoder["encoders"].children():
        x = _conformer(block, x, heads, chunk)
    x = np.repeat(x, ratio, axis=0)
    x = layers.causal_conv(encoder["up_layer.conv"], x.T[None])[0].T
    x = _embed(encoder["up_embed"], x)
    for block in encoder["up_encoders"].children():
        x = _conformer(block, x, heads, chunk and chunk * ratio)
    x = layers.layer_norm(encoder["after_norm"], x)
    return x, layers.linear(Part(state)["encoder_proj"], x)


def _embed(part: Part, x: Array) -> Array:
    normed = layers.layer_norm(part["out.1"], layers.linear(part["out.0"], x))
    return normed * math.sqrt(normed.shape[-1])


def _look_ahead(part: Part, x: Array, context: Array) -> Array:
    """Two convolutions that see the following positions, added to x."""
    if not len(context):
        context = np.zeros((part["conv1"].weight().shape[2] - 1, x.shape[1]))
    h = layers.conv(part["conv1"], np.concatenate([x, context]).T[None])
    return x + layers.causal_conv(part["conv2"], layers.leaky_relu(h, 0.01))[0].T


def _conformer(part: Part, x: Array, heads: int, chunk: int | None) -> Array:
    h = layers.layer_norm(part["norm_mha"], x, CONFORMER_EPS)
    x = x + relative_attention(part["self_attn"], h, heads, chunk)
    h = layers.layer_norm(part["norm_ff"], x, CONFORMER_EPS)
    h = layers.silu(layers.linear(part["feed_forward.w_1"], h))
    return x + layers.linear(part["feed_forward.w_2"], h)


def relative_attention(part: Part, x: Array, heads: int, chunk: int | None) -> Array:
    """Attention whose score of query i and key j adds a term of the distance i - j."""
    length, width = x.shape
    queries, keys, values = (
        layers.split_heads(layers.linear(part[f"linear_{name}"], x), heads) for name in "qkv"
    )
    table = relative_positions(length, width)
    places = layers.split_heads(layers.linear(part["linear_pos"], table), heads)
    content = (queries + part.tensor("pos_bias_u")[:, None]) @ np.swapaxes(keys, 1, 2)
    position = (queries + part.tensor("pos_bias_v")[:, None]) @ np.swapaxes(places, 1, 2)
    index = np.arange(length)
    row = length - 1 - (index[:, None] - index)  # the table's row of distance i - j
    distant = np.take_along_axis(position, np.broadcast_to(row, content.shape), 2)
    scores = (content + distant) / math.sqrt(width // heads)
    mixed = layers.attend(scores, values, layers.chunk_mask(length, chunk))
    return layers.linear(part["linear_out"], layers.merge_heads(mixed))


def relative_positions(length: int, width: int) -> Array:
    """Sines and cosines of the distances length - 1 .. 1 - length, interleaved."""
    distance = np.arange(length - 1, -length, -1)[:, None]
    angle = distance * 10000.0 ** (-np.arange(0, width, 2) / width)
    return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(2 * length - 1, width)


def estimate(
    state: State,
    x: Array,
    mu: Array,
    t: Array,
    spk: Array,
    cond: Array,
    *,
    heads: int,
    chunk: int | None = None,
) -> Array:
    """Velocity, channels first, of the U-Net; `t` [B] and `spk` [B, mels].

    Every level but the last halves the frame rate. A chunk counts the frames of the level it is
    applied at.
    """
    net = Part(state)["decoder.estimator"]
    spk = np.broadcast_to(spk[:, :, None], x.shape)
    x = np.concatenate([x, mu, spk, cond], axis=1)
    time = _time(net["time_mlp"], t, x.shape[1])
    skips = []
    for level in net["down_blocks"].children():
        x = _level(level, x, time, heads, chunk)
        skips.append(x)
        if level.has("2.conv.weight"):
            x = layers.conv(level["2.conv"], x, pad=(1, 1), stride=2)
        else:
            x = layers.causal_conv(level[2], x)
    for level in net["mid_blocks"].children():
        x = _level(level, x, time, heads, chunk)
    for level in net["up_blocks"].children():
        skip = skips.pop()
        x = np.concatenate([x[:, :, : skip.shape[2]], skip], axis=1)
        x = _level(level, x, time, heads, chunk)
        if level.has("2.conv.weight"):
            x = layers.transposed_conv(level["2.conv"], x, stride=2, padding=1)
        else:
            x = layers.causal_conv(level[2], x)
    return layers.conv(net["final_proj"], _causal_block(net["final_block"], x))


def _time(part: Part, t: Array, width: int) -> Array:
    half = width // 2
    angle = 1000 * np.asarray(t, np.float64)[:, None] * 10000.0 ** (-np.arange(half) / (half - 1))
    h = layers.linear(part["linear_1"], np.concatenate([np.sin(angle), np.cos(angle)], 1))
    return layers.linear(part["linear_2"], layers.silu(h))


def _level(part: Part, x: Array, time: Array, heads: int, chunk: int | None) -> Array:
    """A residual block, then transformer blocks."""
    resnet = part[0]
    h = _causal_block(resnet["block1"], x)
    h = h + layers.linear(resnet["mlp.1"], layers.mish(time))[:, :, None]
    h = _causal_block(resnet["block2"], h) + layers.conv(resnet["res_conv"], x)
    h = np.swapaxes(h, 1, 2)
    for block in part[1].children():
        h = _transformer(block, h, heads, chunk)
    return np.swapaxes(h, 1, 2)


def _causal_block(part: Part, x: Array) -> Array:
    h = np.swapaxes(layers.causal_conv(part["block.0"], x), 1, 2)
    return np.swapaxes(layers.mish(layers.layer_norm(part["block.2"], h)), 1, 2)


def _transformer(part: Part, x: Array, heads: int, chunk: int | None) -> Array:
    h, attention = layers.layer_norm(part["norm1"], x), part["attn1"]
    queries, keys, values = (
        layers.split_heads(layers.linear(attention[f"to_{name}"], h), heads) for name in "qkv"
    )
    scores = queries @ np.swapaxes(keys, -1, -2) / math.sqrt(queries.shape[-1])
    mixed = layers.attend(scores, values, layers.chunk_mask(x.shape[1], chunk))
    x = x + layers.linear(attention["to_out.0"], layers.merge_heads(mixed))
    h = layers.linear(part["ff.net.0.proj"], layers.layer_norm(part["norm3"], x))
    return x + layers.linear(part["ff.net.2"], layers.gelu(h))


class Trajectory(NamedTuple):
    """Start time and start state of every Euler step, and the state after the last."""

    times: Array
    states: list[Array]
    end: Array


def solve(
    state: State,
    noise: Array,
    mu: Array,
    spk: Array,
    cond: Array,
    *,
    heads: int,
    steps: int = 10,
    guidance: float = 0.7,
    chunk: int | None = None,
) -> Trajectory:
    """Integrate from the first frames of the noise; everything but `spk` is channels first.

    A second row without any condition guides the first one away from it.
    """
    ticks = 1 - np.cos(np.linspace(0, np.pi / 2, steps + 1))
    x = np.asarray(noise[:, :, : mu.shape[2]], np.float64)
    mu, spk, cond = (np.concatenate([y, np.zeros_like(y)]) for y in (mu, spk, cond))
    states = []
    for t, width in zip(ticks[:-1], np.diff(ticks), strict=True):
        states.append(x)
        two, at = np.concatenate([x, x]), np.array([t, t])
        guided, free = estimate(state, two, mu, at, spk, cond, heads=heads, chunk=chunk)
        x = x + width * ((1 + guidance) * guided - guidance * free)
    return Trajectory(ticks[:-1], states, x)
