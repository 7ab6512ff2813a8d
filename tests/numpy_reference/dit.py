"""CosyVoice3's flow decoder: look-ahead over tokens, and the diffusion transformer."""

import math
from collections.abc import Sequence

import numpy as np

from numpy_reference import layers
from numpy_reference.layers import Array, Part, State

LOOK_AHEAD_SLOPE = 0.01
EPSILON = 1e-6


def condition(state: State, tokens: Sequence[int], *, look_ahead: int, ratio: int) -> Array:
    """Mel-rate conditioning [ratio · n, mels]; the last `look_ahead` tokens are only looked at.

    With none of them the text has ended, and zeros stand in their place.
    """
    net = Part(state)
    rows = net["input_embedding"].weight()[list(tokens)].T[None]
    layer = net["pre_lookahead_layer"]
    taps = layer["conv1"].weight().shape[2]
    own = rows[:, :, : rows.shape[2] - look_ahead]
    seen = rows if look_ahead else np.pad(rows, ((0, 0), (0, 0), (0, taps - 1)))
    x = layers.leaky_relu(layers.conv(layer["conv1"], seen), LOOK_AHEAD_SLOPE)
    x = layers.causal_conv(layer["conv2"], x) + own
    return np.repeat(x[0].T, ratio, axis=0)


def estimate(
    state: State,
    x: np.ndarray,
    mu: np.ndarray,
    t: np.ndarray,
    spks: np.ndarray,
    cond: np.ndarray,
    *,
    heads: int,
    chunk: int | None,
) -> Array:
    """Velocities [rows, mels, frames] of states x at times t [rows]."""
    net = Part(state)["decoder"]["estimator"]
    time = _time(net["time_embed"]["time_mlp"], np.asarray(t, np.float64))
    frames = x.shape[2]
    spread = np.repeat(spks[:, :, None], frames, axis=2)
    x = np.concatenate([x, cond, mu, spread], axis=1).swapaxes(1, 2)
    x = start = _embed(net["input_embed"], x)
    visible = layers.chunk_mask(frames, chunk)
    angles = np.outer(np.arange(frames), net["rotary_embed"].tensor("inv_freq"))
    for block in net["transformer_blocks"].children():
        parts = np.split(layers.linear(block["attn_norm"]["linear"], layers.silu(time)), 6, axis=1)
        shift, scale, gate, later_shift, later_scale, later_gate = (p[:, None] for p in parts)
        h = _attention(block["attn"], norm(x) * (1 + scale) + shift, angles, visible, heads)
        x = x + gate * h
        h = norm(x) * (1 + later_scale) + later_shift
        h = gelu(layers.linear(block["ff"]["ff"][0][0], h))
        x = x + later_gate * layers.linear(block["ff"]["ff"][2], h)
    if net["long_skip_connection"].has("weight"):
        x = np.concatenate([x, start], axis=2) @ net["long_skip_connection"].weight().T
    parts = np.split(layers.linear(net["norm_out"]["linear"], layers.silu(time)), 2, axis=1)
    scale, shift = (p[:, None] for p in parts)
    return layers.linear(net["proj_out"], norm(x) * (1 + scale) + shift).swapaxes(1, 2)


def _time(perceptron: Part, t: Array) -> Array:
    half = perceptron[0].weight().shape[1] // 2
    frequency = np.exp(-np.arange(half) * math.log(10000) / (half - 1))
    angle = 1000 * np.outer(t, frequency)
    e = layers.linear(perceptron[0], np.concatenate([np.sin(angle), np.cos(angle)], axis=1))
    return layers.linear(perceptron[2], layers.silu(e))


def _embed(net: Part, x: Array) -> Array:
    x = layers.linear(net["proj"], x)
    h = x.swapaxes(1, 2)
    for name in ("conv1", "conv2"):
        h = layers.mish(_grouped(net["conv_pos_embed"][name][0], h))
    return x + h.swapaxes(1, 2)


def _grouped(part: Part, x: Array) -> Array:
    """A causal convolution whose groups of channels do not mix."""
    weight, bias = part.weight(), part.bias()
    groups = x.shape[1] // weight.shape[1]
    results = [
        layers.causal_conv(Part({"weight": own, "bias": shift}), channels)
        for own, shift, channels in zip(
            np.split(weight, groups), np.split(bias, groups), np.split(x, groups, 1), strict=True
        )
    ]
    return np.concatenate(results, axis=1)


def _attention(part: Part, x: Array, angles: Array, visible: layers.Mask, heads: int) -> Array:
    q, k = (_rotated(layers.linear(part[name], x), angles) for name in ("to_q", "to_k"))
    q, k, v = (layers.split_heads(y, heads) for y in (q, k, layers.linear(part["to_v"], x)))
    scores = q @ k.swapaxes(2, 3) / math.sqrt(q.shape[3])
    return layers.linear(part["to_out"][0], layers.merge_heads(layers.attend(scores, v, visible)))


def _rotated(x: Array, angles: Array) -> Array:
    """Pairs of neighbouring channels turned, of the first head alone."""
    width = 2 * angles.shape[1]
    turned = x.copy()
    pairs = (x[:, :, 0:width:2] + 1j * x[:, :, 1:width:2]) * np.exp(1j * angles)
    turned[:, :, 0:width:2], turned[:, :, 1:width:2] = pairs.real, pairs.imag
    return turned


def norm(x: Array) -> Array:
    """The last axis at mean 0 and variance 1."""
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON)


def gelu(x: Array) -> Array:
    """GELU, approximated by a tanh."""
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
