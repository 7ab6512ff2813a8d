"""The vocoder: pitch, sine excitation, and the generator with its inverse STFT."""

import math
from collections.abc import Sequence

import numpy as np

from numpy_reference import layers
from numpy_reference.layers import Array, Part, State

LAST_SLOPE = 0.01


def pitch(state: State, mel: Array) -> Array:
    """f0 [frames] in Hz of a mel [1, mels, frames]."""
    net = Part(state)["f0_predictor"]
    x = np.asarray(mel, np.float64)
    for convolution in net["condnet"].children():
        x = layers.same_conv(convolution, x)
        x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    return np.abs(layers.linear(net["classifier"], x[0].T)[:, 0])


def sines(
    f0: Array,
    noise: Array,
    *,
    frame: int,
    sample_rate: int,
    amplitude: float = 0.1,
    deviation: float = 0.003,
    threshold: float = 10,
) -> Array:
    """The sine bank [samples, partials] with noise [samples, partials] added.

    The phase is known at the frame centres and linear between them; the first and the last half
    frame hold it.
    """
    samples, partials = noise.shape
    turns = np.outer(f0, np.arange(1, partials + 1)) / sample_rate % 1
    phase = np.cumsum(turns, axis=0) * frame
    centres = (np.arange(len(f0)) + 0.5) * frame
    at = np.arange(samples) + 0.5
    phase = np.stack([np.interp(at, centres, column) for column in phase.T], 1)
    voiced = np.repeat(f0 > threshold, frame)[:, None]
    spread = np.where(voiced, deviation, amplitude / 3)
    return np.where(voiced, amplitude * np.sin(2 * np.pi * phase), 0) + spread * noise


def source(state: State, waves: Array) -> Array:
    """The excitation [samples] of a sine bank."""
    return np.tanh(layers.linear(Part(state)["m_source.l_linear"], waves))[:, 0]


def vocode(
    state: State,
    mel: Array,
    excitation: Array,
    *,
    rates: Sequence[int],
    fft: int,
    hop: int,
    dilations: Sequence[Sequence[int]],
    source_dilations: Sequence[Sequence[int]],
    slope: float = 0.1,
    limit: float = 0.99,
) -> Array:
    """Audio [samples] of a mel [1, mels, frames] and an excitation [samples]."""
    net = Part(state)
    x = layers.same_conv(net["conv_pre"], np.asarray(mel, np.float64))
    spectrum = stft(excitation, fft, hop)
    guide = np.concatenate([spectrum.real, spectrum.imag])[None]
    for i, rate in enumerate(rates):
        up = net["ups"][i]
        padding = (up.weight().shape[2] - rate) // 2
        x = layers.transposed_conv(up, layers.leaky_relu(x, slope), stride=rate, padding=padding)
        if i == len(rates) - 1:
            x = np.concatenate([x[:, :, 1:2], x], axis=2)
        stride = math.prod(rates[i + 1 :])
        pad = stride // 2 if stride > 1 else 0
        down = layers.conv(net["source_downs"][i], guide, stride=stride, pad=(pad, pad))
        x = x + _residual(net["source_resblocks"][i], down, source_dilations[i])
        branches = [
            _residual(net["resblocks"][i * len(dilations) + j], x, spacing)
            for j, spacing in enumerate(dilations)
        ]
        x = np.mean(branches, axis=0)
    x = layers.same_conv(net["conv_post"], layers.leaky_relu(x, LAST_SLOPE))[0]
    bins = fft // 2 + 1
    magnitude = np.minimum(np.exp(x[:bins]), 100)
    audio = inverse_stft(magnitude * np.exp(1j * np.sin(x[bins:])), fft, hop)
    return np.clip(audio, -limit, limit)


def _residual(part: Part, x: Array, dilations: Sequence[int]) -> Array:
    for i, dilation in enumerate(dilations):
        h = snake(x, part["activations1"][i])
        h = layers.same_conv(part["convs1"][i], h, dilation=dilation)
        x = x + layers.same_conv(part["convs2"][i], snake(h, part["activations2"][i]))
    return x


def snake(x: Array, part: Part) -> Array:
    """`x + sin(alpha x)² / alpha`, channels first."""
    alpha = part.tensor("alpha")[:, None]
    return x + np.sin(alpha * x) ** 2 / (alpha + 1e-9)


def window(size: int) -> Array:
    """Periodic Hann window."""
    return np.sin(np.pi * np.arange(size) / size) ** 2


def stft(samples: Array, fft: int, hop: int) -> np.ndarray:
    """Complex [fft / 2 + 1, frames]; frames are centred, the ends reflected."""
    padded = np.pad(np.asarray(samples, np.float64), fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, fft)[::hop]
    return np.fft.rfft(frames * window(fft), axis=1).T


def inverse_stft(spectrum: np.ndarray, fft: int, hop: int) -> Array:
    """Samples [(frames - 1) hop]: overlapping windowed frames over their summed squared window."""
    frames = np.fft.irfft(spectrum.T, fft, axis=1) * window(fft)
    total = np.zeros((len(frames) - 1) * hop + fft)
    weight = np.zeros_like(total)
    for i, frame in enumerate(frames):
        total[i * hop : i * hop + fft] += frame
        weight[i * hop : i * hop + fft] += window(fft) ** 2
    inner = slice(fft // 2, len(total) - fft // 2)
    return total[inner] / weight[inner]
