"""Layers of HiFT vocoders, whichever way their convolutions look.

Source: cosyvoice/hifigan/generator.py (`HiFTGenerator.decode`, `ResBlock`, `SourceModuleHnNSF`);
the residual blocks are HiFi-GAN's (Kong et al., 2020) with Snake.
"""

import math
from typing import Any, Protocol

import numpy as np

from edgepack.graph import layers, signal
from edgepack.graph.net import END, Net, Value
from edgepack.graph.weights import Parameter, Weights
from edgepack.model.networks.hift_dims import EDGE_TAPS, HiFTDims

_POST_SLOPE = 0.01
_LOG_MAGNITUDE_LIMIT = math.log(100.0)
_SNAKE_EPSILON = 1e-9

Pads = tuple[int, int]  # zeros before and after


class Convolutions(Protocol):
    """Which way convolutions look."""

    def same(self, reach: int) -> Pads:
        """Padding that keeps the length, for a kernel that spans `reach` frames and one."""
        ...

    def down(self, stride: int) -> Pads:
        """Padding of a strided convolution of the excitation's spectrum."""
        ...

    def up(self, net: Net, x: Value, w: Weights, sizes: tuple[int, int, int], rate: int) -> Value:
        """`rate` times as long, with `sizes` (channels in, channels out, taps)."""
        ...


def convolve(
    net: Net, x: Value, w: Weights, shape: tuple[int | None, ...], pads: Pads, **how: Any
) -> Value:
    """Channels-first convolution; `how` are further attributes of the operator."""
    weight = w.convolution(*shape)
    bias = net.parameter(w.get("bias", weight.shape[0]))
    return net.op.Conv(x, net.parameter(weight), bias, pads=list(pads), **how)


def same(
    net: Net,
    x: Value,
    w: Weights,
    shape: tuple[int | None, ...],
    look: Convolutions,
    dilation: int = 1,
) -> Value:
    """A convolution that keeps the length."""
    reach = (w.convolution(*shape).shape[2] - 1) * dilation
    return convolve(net, x, w, shape, look.same(reach), dilations=[dilation])


def fundamental(
    net: Net, x: Value, w: Weights, look: Convolutions, ahead: int | None = None
) -> Value:
    """Fundamental frequency in Hz of a mel, [1, T, 1]: convolutions with ELU, then |Linear|.

    The first convolution looks at `ahead` frames after those it gives; None is as the others.
    """
    op = net.op
    for i, layer in enumerate(w / "condnet"):
        if ahead is not None and i == 0:
            y = convolve(net, x, layer, (None, None, ahead + 1), (0, 0), dilations=[1])
        else:
            y = same(net, x, layer, (None, None, None), look)
        x = op.Elu(y, alpha=1.0)
    x = layers.affine(net, layers.channels_first(net, x), w / "classifier", 1, None)
    return op.Abs(x)


def partials(net: Net, f0: Value, dims: HiFTDims) -> Value:
    """Cycles a sample of f0 [1, T, 1] and its harmonics, less whole ones: [1, T, harmonics + 1]."""
    op = net.op
    multiples = np.arange(1, dims.harmonics + 2, dtype=np.float32)[None, None]
    cycles = op.Div(op.Mul(f0, net.constant("harmonics", multiples)), float(dims.sample_rate))
    return signal.fraction(net, cycles)


def noise_level(net: Net, voiced: Value, dims: HiFTDims) -> Value:
    """The amplitude of noise where speech is voiced (1) and where it is not (0)."""
    quiet = dims.sine_amplitude / 3.0
    return net.op.Add(net.op.Mul(voiced, dims.noise_deviation - quiet), quiet)


def mixed(net: Net, tones: Value, noise: Value, w: Weights, dims: HiFTDims) -> Value:
    """One excitation [1, 1, samples] of tones and noise, each [1, samples, harmonics + 1]."""
    op = net.op
    bank = net.tap("m_source.l_sin_gen", op.Add(tones, noise))
    y = layers.affine(net, bank, w / "m_source" / "l_linear", 1, dims.harmonics + 1)
    return op.Tanh(layers.channels_first(net, y))


def upsampled(
    net: Net, x: Value, spectrum: Value, w: Weights, dims: HiFTDims, look: Convolutions
) -> Value:
    """Frames [1, base, T] → log magnitudes and phases [1, fft + 2, m], level by level.

    `spectrum` is the excitation's STFT, which is added at each level.
    """
    op = net.op
    bins, widths = dims.fft + 2, [dims.base >> i for i in range(len(dims.rates) + 1)]
    per_level = len(dims.dilations)
    for i, (rate, taps) in enumerate(zip(dims.rates, dims.kernels, strict=True)):
        width = widths[i + 1]
        x = op.LeakyRelu(x, alpha=dims.slope)
        x = net.tap(f"ups.{i}", look.up(net, x, w / "ups" / i, (widths[i], width, taps), rate))
        if i == len(dims.rates) - 1:  # the STFT has one frame more: repeat sample 1 in front
            x = op.Concat(op.Slice(x, [1], [2], [2]), x, axis=2)
        stride = math.prod(dims.rates[i + 1 :])
        shape = (width, bins, 1 if stride == 1 else 2 * stride)
        pads = look.down(stride)
        s = convolve(net, spectrum, w / "source_downs" / i, shape, pads, strides=[stride])
        s = net.tap(f"source_downs.{i}", s)
        block, taps = w / "source_resblocks" / i, dims.source_kernels[i]
        s = _residual(net, s, block, (width, width, taps), dims.source_dilations[i], look)
        x = op.Add(x, net.tap(f"source_resblocks.{i}", s))
        branches = []
        for j, (taps, dilations) in enumerate(zip(dims.block_kernels, dims.dilations, strict=True)):
            number = i * per_level + j
            block = w / "resblocks" / number
            y = _residual(net, x, block, (width, width, taps), dilations, look)
            branches.append(net.tap(f"resblocks.{number}", y))
        x = op.Div(net.tap(f"resblocks.sum.{i}", op.Sum(*branches)), float(per_level))
    x = op.LeakyRelu(x, alpha=_POST_SLOPE)
    x = same(net, x, w / "conv_post", (bins, widths[-1], EDGE_TAPS), look)
    return net.tap("conv_post", x)


def audio_of(net: Net, x: Value, dims: HiFTDims) -> Value:
    """Log magnitudes and phases [1, fft + 2, m] → samples [1, (m - 1)·hop] in ±`limit`."""
    op = net.op
    bins = dims.fft + 2
    magnitude = op.Exp(op.Min(op.Slice(x, [0], [bins // 2], [1]), _LOG_MAGNITUDE_LIMIT))
    phase = op.Sin(op.Slice(x, [bins // 2], [END], [1]))
    audio = signal.inverse_stft(
        net,
        op.Mul(magnitude, op.Cos(phase)),
        op.Mul(magnitude, op.Sin(phase)),
        dims.fft,
        dims.hop,
    )
    return op.Clip(audio, -dims.limit, dims.limit)


def _residual(
    net: Net,
    x: Value,
    w: Weights,
    shape: tuple[int, int, int],
    dilations: tuple[int, ...],
    look: Convolutions,
) -> Value:
    """Residual block: for each dilation Snake, convolution, Snake, convolution."""
    for i, dilation in enumerate(dilations):
        y = _snake(net, x, w / "activations1" / i, shape[0])
        y = same(net, y, w / "convs1" / i, shape, look, dilation)
        y = _snake(net, y, w / "activations2" / i, shape[0])
        y = same(net, y, w / "convs2" / i, shape, look)
        x = net.op.Add(x, y)
    return x


def _snake(net: Net, x: Value, w: Weights, width: int) -> Value:
    """`x + sin²(αx) / (α + 1e-9)` by channel (Ziyin et al., 2020)."""
    op = net.op
    alpha = w.get("alpha", width)
    column = net.parameter(alpha.map((width, 1), lambda v: v[:, None]))
    inverse = net.parameter(
        Parameter(
            f"{alpha.name}.inverse",
            (width, 1),
            lambda: (1.0 / (alpha.load() + np.float32(_SNAKE_EPSILON)))[:, None],
        )
    )
    sine = op.Sin(op.Mul(x, column))
    return op.Add(x, op.Mul(op.Mul(sine, sine), inverse))
