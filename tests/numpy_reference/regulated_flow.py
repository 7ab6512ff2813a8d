"""CosyVoice 1's flow decoder: conformer, length regulator, U-Net that looks to both sides."""

import math
from collections.abc import Sequence

import numpy as np

from numpy_reference import flow, layers
from numpy_reference.layers import Array, Part, State

LAYER_EPS = 1e-12


def encode(state: State, tokens: Sequence[int], *, heads: int) -> Array:
    """Projected hidden states [n, mels] of tokens."""
    encoder = Part(state)["encoder"]
    x = Part(state)["input_embedding"].weight()[list(tokens)]
    x = layers.layer_norm(encoder["embed.out.1"], layers.linear(encoder["embed.out.0"], x))
    x = x * math.sqrt(x.shape[-1])
    for block in encoder["encoders"].children():
        h = layers.layer_norm(block["norm_mha"], x, LAYER_EPS)
        x = x + flow.relative_attention(block["self_attn"], h, heads, None)
        h = layers.layer_norm(block["norm_ff"], x, LAYER_EPS)
        h = layers.silu(layers.linear(block["feed_forward.w_1"], h))
        x = x + layers.linear(block["feed_forward.w_2"], h)
    return layers.linear(Part(state)["encoder_proj"], layers.layer_norm(encoder["after_norm"], x))


def regulate(state: State, x: Array) -> Array:
    """Convolutions [frames, mels] of what was interpolated."""
    modules = Part(state)["length_regulator.model"].children()
    h = x.T[None]
    for convolution, norm in zip(modules[:-1:2], modules[1:-1:2], strict=True):
        h = layers.mish(group_norm(norm, layers.same_conv(convolution, h), 1))
    return layers.same_conv(modules[-1], h)[0].T


def group_norm(part: Part, x: Array, groups: int) -> Array:
    """GroupNorm of [B, channels, time]."""
    batch, channels, length = x.shape
    grouped = x.reshape(batch, groups, -1)
    mean, variance = grouped.mean(2, keepdims=True), grouped.var(2, keepdims=True)
    unit = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(batch, channels, length)
    return unit * part.weight()[:, None] + part.bias()[:, None]


def estimate(
    state: State, x: Array, mu: Array, t: Array, spk: Array, cond: Array, *, heads: int, groups: int
) -> Array:
    """Velocity, channels first, of the U-Net; `t` [B] and `spk` [B, mels].

    Every level but the last halves the frame rate.
    """
    net = Part(state)["decoder.estimator"]
    spk = np.broadcast_to(spk[:, :, None], x.shape)
    x = np.concatenate([x, mu, spk, cond], axis=1)
    half = x.shape[1] // 2
    angle = 1000 * np.asarray(t, np.float64)[:, None] * 10000.0 ** (-np.arange(half) / (half - 1))
    time = layers.linear(
        net["time_mlp.linear_1"], np.concatenate([np.sin(angle), np.cos(angle)], 1)
    )
    time = layers.mish(layers.linear(net["time_mlp.linear_2"], layers.silu(time)))

    def block(part: Part, x: Array) -> Array:
        h = layers.same_conv(part["block.0"], x)
        return layers.mish(group_norm(part["block.1"], h, groups))

    def level(part: Part, x: Array) -> Array:
        resnet = part[0]
        h = block(resnet["block1"], x) + layers.linear(resnet["mlp.1"], time)[:, :, None]
        h = block(resnet["block2"], h) + layers.conv(resnet["res_conv"], x)
        h = np.swapaxes(h, 1, 2)
        for transformer in part[1].children():
            h = _transformer(transformer, h, heads)
        return np.swapaxes(h, 1, 2)

    skips = []
    for part in net["down_blocks"].children():
        x = level(part, x)
        skips.append(x)
        if part.has("2.conv.weight"):
            x = layers.conv(part["2.conv"], x, pad=(1, 1), stride=2)
        else:
            x = layers.same_conv(part[2], x)
    for part in net["mid_blocks"].children():
        x = level(part, x)
    for part in net["up_blocks"].children():
        skip = skips.pop()
        x = level(part, np.concatenate([x[:, :, : skip.shape[2]], skip], axis=1))
        if part.has("2.conv.weight"):
            x = layers.transposed_conv(part["2.conv"], x, stride=2, padding=1)
        else:
            x = layers.same_conv(part[2], x)
    return layers.conv(net["final_proj"], block(net["final_block"], x))


def _transformer(part: Part, x: Array, heads: int) -> Array:
    h, attention = layers.layer_norm(part["norm1"], x), part["attn1"]
    queries, keys, values = (
        layers.split_heads(layers.linear(attention[f"to_{name}"], h), heads) for name in "qkv"
    )
    scores = queries @ np.swapaxes(keys, -1, -2) / math.sqrt(queries.shape[-1])
    mixed = layers.attend(scores, values, layers.chunk_mask(x.shape[1], None))
    x = x + layers.linear(attention["to_out.0"], layers.merge_heads(mixed))
    h = layers.linear(part["ff.net.0.proj"], layers.layer_norm(part["norm3"], x))
    return x + layers.linear(part["ff.net.2"], layers.gelu(h))


def sines(
    f0: Array, noise: Array, phase: Array, *, frame: int, sample_rate: int, threshold: float = 10
) -> Array:
    """The sine bank [samples, partials] with noise [samples, partials] added.

    The phase [partials] in radians is that before the first sample.
    """
    pitch = np.repeat(np.asarray(f0, np.float64), frame)[:, None]
    turns = np.cumsum(pitch * np.arange(1, noise.shape[1] + 1) / sample_rate, axis=0) % 1
    voiced = pitch > threshold
    spread = np.where(voiced, 0.003, 0.1 / 3)
    return np.where(voiced, 0.1 * np.sin(2 * np.pi * turns + phase), 0) + spread * noise
