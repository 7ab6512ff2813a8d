"""CosyVoice3's vocoder: pitch, excitation and generator, of a mel that ends or goes on."""

import math
from collections.abc import Sequence

import numpy as np

from numpy_reference import layers
from numpy_reference.hift import LAST_SLOPE, inverse_stft, snake, stft
from numpy_reference.layers import Array, Part, State


def pitch(state: State, mel: np.ndarray, *, final: bool) -> Array:
    """f0 in Hz of a mel [1, mels, frames]; frames that are only looked at have none."""
    net = Part(state)["f0_predictor"]
    x = np.asarray(mel, np.float64)
    for number, part in enumerate(net["condnet"].children()):
        x = layers.causal_conv(part, x) if number else _ahead(part, x, final=final)
        x = np.where(x > 0, x, np.expm1(np.minimum(x, 0)))
    return np.abs(layers.linear(net["classifier"], x[0].T)[:, 0])


def _ahead(part: Part, x: Array, *, final: bool) -> Array:
    after = part.weight().shape[2] - 1 if final else 0
    return layers.conv(part, x, pad=(0, after))


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
    """The sine bank [samples, partials], constant within a frame, with noise added."""
    turns = np.outer(f0, np.arange(1, noise.shape[1] + 1)) / sample_rate % 1
    phase = np.repeat(np.cumsum(turns, axis=0) * frame, frame, axis=0)
    voiced = np.repeat(f0 > threshold, frame)[:, None]
    spread = np.where(voiced, deviation, amplitude / 3)
    return np.where(voiced, amplitude * np.sin(2 * np.pi * phase), 0) + spread * noise


def vocode(
    state: State,
    mel: np.ndarray,
    excitation: np.ndarray,
    *,
    final: bool,
    rates: Sequence[int],
    fft: int,
    hop: int,
    dilations: Sequence[Sequence[int]],
    source_dilations: Sequence[Sequence[int]],
    slope: float = 0.1,
    limit: float = 0.99,
) -> Array:
    """Audio [samples] of a mel [1, mels, frames] and an excitation of as many frames.

    Unless `final` the mel goes on, and audio ends some frames before it.
    """
    net = Part(state)
    frame = math.prod(rates)  # frames of the STFT
    ahead = net["conv_pre"].weight().shape[2] - 1
    x = _ahead(net["conv_pre"], np.asarray(mel, np.float64), final=final)
    spectrum = stft(excitation, fft, hop)
    guide = np.concatenate([spectrum.real, spectrum.imag])[None]
    if not final:
        guide = guide[:, :, : -ahead * frame]
    for i, rate in enumerate(rates):
        x = np.repeat(layers.leaky_relu(x, slope), rate, axis=2)
        x = layers.causal_conv(net["ups"][i], x)
        if i == len(rates) - 1:
            x = np.concatenate([x[:, :, 1:2], x], axis=2)
        stride = math.prod(rates[i + 1 :])
        down = layers.conv(net["source_downs"][i], guide, stride=stride, pad=(stride - 1, 0))
        x = x + _residual(net["source_resblocks"][i], down, source_dilations[i])
        branches = [
            _residual(net["resblocks"][i * len(dilations) + j], x, spacing)
            for j, spacing in enumerate(dilations)
        ]
        x = np.mean(branches, axis=0)
    x = layers.causal_conv(net["conv_post"], layers.leaky_relu(x, LAST_SLOPE))[0]
    bins = fft // 2 + 1
    magnitude = np.minimum(np.exp(x[:bins]), 100)
    audio = inverse_stft(magnitude * np.exp(1j * np.sin(x[bins:])), fft, hop)
    return np.clip(audio if final else audio[: -frame * hop], -limit, limit)


def _residual(part: Part, x: Array, dilations: Sequence[int]) -> Array:
    for i, dilation in enumerate(dilations):
        h = snake(x, part["activations1"][i])
        reach = (part["convs1"][i].weight().shape[2] - 1) * dilation
        h = layers.conv(part["convs1"][i], h, pad=(reach, 0), dilation=dilation)
        x = x + layers.causal_conv(part["convs2"][i], snake(h, part["activations2"][i]))
    return x
