"""The HiFT vocoder in two graphs: mel → excitation, and mel with excitation → audio.

Between them a stream can put the excitation it has already used. Source:
cosyvoice/hifigan/generator.py (`HiFTGenerator`, `SineGen2`) and f0_predictor.py; the design is
HiFTNet (Li et al., 2023), the residual blocks HiFi-GAN's (Kong et al., 2020) with Snake.
"""

import math
from dataclasses import dataclass

import numpy as np

from edgepack.graph import layers, signal
from edgepack.graph.net import END, Graph, Net, Value
from edgepack.graph.weights import Parameter, Weights

_POST_SLOPE = 0.01
_LOG_MAGNITUDE_LIMIT = math.log(100.0)
_SNAKE_EPSILON = 1e-9
_EDGE_TAPS = 7  # of the first convolution and the last


@dataclass(frozen=True)
class HiFTDims:
    """Dimensions and settings: rates in samples, `threshold` in Hz, amplitudes in [0, 1]."""

    mels: int
    base: int
    harmonics: int
    sample_rate: int
    rates: tuple[int, ...]
    kernels: tuple[int, ...]
    fft: int
    hop: int
    block_kernels: tuple[int, ...]
    source_kernels: tuple[int, ...]
    dilations: tuple[tuple[int, ...], ...]
    source_dilations: tuple[tuple[int, ...], ...]
    slope: float
    limit: float
    sine_amplitude: float
    noise_deviation: float
    threshold: float

    @property
    def frame(self) -> int:
        """Samples a mel frame."""
        return math.prod(self.rates) * self.hop

    @property
    def context(self) -> int:
        """Mel frames to each side that a sample of audio depends on; those further off do not."""
        reach = self.fft // (2 * self.hop) + 1 + _EDGE_TAPS // 2  # in frames of the STFT
        far = 0.0  # the same of the source, in mel frames
        stride = 1
        for i in reversed(range(len(self.rates))):
            source = reach + _reach(self.source_kernels[i], self.source_dilations[i])
            spectrum = (source + 1) * stride + stride // 2 + self.fft // (2 * self.hop) + 1
            far = max(far, spectrum / math.prod(self.rates))
            branches = zip(self.block_kernels, self.dilations, strict=True)
            reach += max(_reach(taps, dilations) for taps, dilations in branches)
            reach = -(-(reach + self.kernels[i]) // self.rates[i])
            stride *= self.rates[i]
        return max(reach + _EDGE_TAPS // 2, math.ceil(far)) + 1


def _reach(taps: int, dilations: tuple[int, ...]) -> int:
    """Frames to one side that a residual block looks at."""
    return sum((taps // 2) * (dilation + 1) for dilation in dilations)


def hift_source(w: Weights, dims: HiFTDims) -> Graph:
    """`mel` [1, mels, T], `noise` [1, frame·T, harmonics + 1] → `source` [1, 1, frame·T], `f0`.

    `noise` is standard normal; zeros give the deterministic excitation. `f0` [1, T] is in Hz,
    and a frame is voiced above `threshold`. The original draws an initial phase for each
    harmonic as well, which its interpolation never reads, so there is none here.
    """
    net = Net("hift_source")
    op = net.op
    partials = dims.harmonics + 1
    mel = net.input("mel", [1, dims.mels, "T"])
    noise = net.input("noise", [1, "samples", partials])

    f0 = _f0(net, mel, w / "f0_predictor")
    net.output("f0", op.Squeeze(f0, [2]), [1, "T"])
    multiples = np.arange(1, partials + 1, dtype=np.float32)[None, None]
    cycles = op.Div(op.Mul(f0, net.constant("harmonics", multiples)), float(dims.sample_rate))
    phase = signal.frame_phases(net, signal.fraction(net, cycles), dims.frame, partials)
    sine = op.Sin(op.Mul(signal.fraction(net, phase), 2.0 * math.pi))
    voiced = op.Cast(op.Greater(f0, dims.threshold), to=1)
    voiced = signal.repeat_frames(net, voiced, dims.frame)  # [1, samples, 1]
    quiet = dims.sine_amplitude / 3.0
    level = op.Add(op.Mul(voiced, dims.noise_deviation - quiet), quiet)
    bank = op.Add(op.Mul(sine, op.Mul(voiced, dims.sine_amplitude)), op.Mul(level, noise))
    bank = net.tap("m_source.l_sin_gen", bank)
    mixed = layers.affine(net, bank, w / "m_source" / "l_linear", 1, partials)
    source = op.Tanh(layers.channels_first(net, mixed))
    net.output("source", source, [1, 1, "samples"])

    rng = np.random.default_rng(0)
    calls = tuple(
        {
            "mel": rng.normal(-4, 2, (1, dims.mels, frames)).astype(np.float32),
            "noise": rng.standard_normal((1, frames * dims.frame, partials), np.float32),
        }
        for frames in (12, 17)
    )
    return net.finish(calls)


def _f0(net: Net, mel: Value, w: Weights) -> Value:
    """Fundamental frequency in Hz, [1, T, 1]: convolutions with ELU, then |Linear|."""
    op = net.op
    x = mel
    for layer in w / "condnet":
        weight = layer.convolution(None, None, None)
        x = op.Elu(_convolve(net, x, layer, weight.shape), alpha=1.0)
    x = layers.affine(net, layers.channels_first(net, x), w / "classifier", 1, None)
    return op.Abs(x)


def hift(w: Weights, dims: HiFTDims) -> Graph:
    """`mel` [1, mels, T], `source` [1, 1, frame·T] → `audio` [1, frame·T] in ±`limit`."""
    net = Net("hift")
    op = net.op
    mel = net.input("mel", [1, dims.mels, "T"])
    source = net.input("source", [1, 1, "samples"])
    spectrum = net.tap("stft", signal.stft(net, source, dims.fft, dims.hop))

    bins, widths = dims.fft + 2, [dims.base >> i for i in range(len(dims.rates) + 1)]
    x = _convolve(net, mel, w / "conv_pre", (widths[0], dims.mels, _EDGE_TAPS))
    x = net.tap("conv_pre", x)
    per_level = len(dims.dilations)
    for i, (rate, taps) in enumerate(zip(dims.rates, dims.kernels, strict=True)):
        x = op.LeakyRelu(x, alpha=dims.slope)
        x = _upsample(net, x, w / "ups" / i, (widths[i], widths[i + 1], taps), rate)
        x = net.tap(f"ups.{i}", x)
        if i == len(dims.rates) - 1:  # the STFT has one frame more: repeat sample 1 in front
            x = op.Concat(op.Slice(x, [1], [2], [2]), x, axis=2)
        stride = math.prod(dims.rates[i + 1 :])
        s = _downsample(net, spectrum, w / "source_downs" / i, (widths[i + 1], bins), stride)
        s = net.tap(f"source_downs.{i}", s)
        taps = dims.source_kernels[i]
        block = w / "source_resblocks" / i
        s = _residual(net, s, block, widths[i + 1], taps, dims.source_dilations[i])
        x = op.Add(x, net.tap(f"source_resblocks.{i}", s))
        branches = []
        for j, (taps, dilations) in enumerate(zip(dims.block_kernels, dims.dilations, strict=True)):
            number = i * per_level + j
            y = _residual(net, x, w / "resblocks" / number, widths[i + 1], taps, dilations)
            branches.append(net.tap(f"resblocks.{number}", y))
        x = op.Div(net.tap(f"resblocks.sum.{i}", op.Sum(*branches)), float(per_level))
    x = op.LeakyRelu(x, alpha=_POST_SLOPE)
    x = net.tap("conv_post", _convolve(net, x, w / "conv_post", (bins, widths[-1], _EDGE_TAPS)))
    magnitude = op.Exp(op.Min(op.Slice(x, [0], [bins // 2], [1]), _LOG_MAGNITUDE_LIMIT))
    phase = op.Sin(op.Slice(x, [bins // 2], [END], [1]))
    audio = signal.inverse_stft(
        net,
        op.Mul(magnitude, op.Cos(phase)),
        op.Mul(magnitude, op.Sin(phase)),
        dims.fft,
        dims.hop,
    )
    net.output("audio", op.Clip(audio, -dims.limit, dims.limit), [1, "samples"])

    rng = np.random.default_rng(0)
    calls = tuple(
        {
            "mel": rng.normal(-4, 2, (1, dims.mels, frames)).astype(np.float32),
            "source": rng.normal(0, 0.1, (1, 1, frames * dims.frame)).astype(np.float32),
        }
        for frames in (12, 17)
    )
    return net.finish(calls)


def _convolve(
    net: Net, x: Value, w: Weights, shape: tuple[int | None, ...], dilation: int = 1
) -> Value:
    """Channels-first convolution that keeps the length."""
    weight = w.convolution(*shape)
    pad = (weight.shape[2] - 1) * dilation // 2
    return net.op.Conv(
        x,
        net.parameter(weight),
        net.parameter(w.get("bias", weight.shape[0])),
        pads=[pad, pad],
        dilations=[dilation],
    )


def _upsample(net: Net, x: Value, w: Weights, shape: tuple[int, int, int], rate: int) -> Value:
    """Transposed convolution, `weight [in, out, k]`, `rate` times as long."""
    pad = (shape[2] - rate) // 2
    return net.op.ConvTranspose(
        x,
        net.parameter(w.convolution(*shape)),
        net.parameter(w.get("bias", shape[1])),
        strides=[rate],
        pads=[pad, pad],
    )


def _downsample(net: Net, x: Value, w: Weights, shape: tuple[int, int], stride: int) -> Value:
    """The source spectrum at the rate of one level."""
    taps, pad = (1, 0) if stride == 1 else (2 * stride, stride // 2)
    return net.op.Conv(
        x,
        net.parameter(w.convolution(*shape, taps)),
        net.parameter(w.get("bias", shape[0])),
        strides=[stride],
        pads=[pad, pad],
    )


def _residual(
    net: Net, x: Value, w: Weights, width: int, taps: int, dilations: tuple[int, ...]
) -> Value:
    """Residual block: for each dilation Snake, convolution, Snake, convolution."""
    for i, dilation in enumerate(dilations):
        y = _snake(net, x, w / "activations1" / i, width)
        y = _convolve(net, y, w / "convs1" / i, (width, width, taps), dilation)
        y = _snake(net, y, w / "activations2" / i, width)
        y = _convolve(net, y, w / "convs2" / i, (width, width, taps))
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
