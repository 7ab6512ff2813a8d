"""The HiFT vocoder in two graphs: mel → excitation, and mel with excitation → audio.

Between them a stream can put the excitation it has already used. Source:
cosyvoice/hifigan/generator.py (`HiFTGenerator`, `SineGen2`) and f0_predictor.py; the design is
HiFTNet (Li et al., 2023).
"""

import math

import numpy as np

from edgepack.bundle.stages import Declared, Use
from edgepack.graph import signal
from edgepack.graph.net import Graph, Net, Value
from edgepack.graph.weights import Weights
from edgepack.model.networks import hift_layers
from edgepack.model.networks.hift_dims import EDGE_TAPS, HiFTDims
from edgepack.model.networks.hift_layers import Pads

# The sines turn a rounding error of f0 into a phase error that grows along the utterance.
EXCITATION: Declared = (
    "hift_source",
    Use(role="excitation", judged="vocoder", memory="released", tolerance=1e-3),
)
# Magnitudes are exponentials, up to 100, of which audio is clipped. With random weights of full
# size most samples are: an error of 5e-6 before the exponentials is one of 7e-4 in the audio there,
# and another engine's rounding was one of 1.2e-4.
VOCODER: Declared = (
    "hift",
    Use(role="vocoder", judged="vocoder", memory="released", tolerance=3e-4),
)


class _Around:
    """Convolutions that look to both sides."""

    def same(self, reach: int) -> Pads:
        return reach // 2, reach // 2

    def down(self, stride: int) -> Pads:
        return (0, 0) if stride == 1 else (stride // 2, stride // 2)

    def up(self, net: Net, x: Value, w: Weights, sizes: tuple[int, int, int], rate: int) -> Value:
        """A transposed convolution, `weight [in, out, k]`."""
        pad = (sizes[2] - rate) // 2
        weight = net.parameter(w.convolution(*sizes))
        bias = net.parameter(w.get("bias", sizes[1]))
        return net.op.ConvTranspose(x, weight, bias, strides=[rate], pads=[pad, pad])


AROUND = _Around()


def hift_source(w: Weights, dims: HiFTDims) -> Graph:
    """`mel` [1, mels, T], `noise` [1, frame·T, harmonics + 1] → `source` [1, 1, frame·T], `f0`.

    `noise` is standard normal; zeros give the deterministic excitation. `f0` [1, T] is in Hz,
    and a frame is voiced above `threshold`. The original draws an initial phase for each
    harmonic as well, which its interpolation never reads, so there is none here.
    """
    net = Net(*EXCITATION)
    op = net.op
    partials = dims.harmonics + 1
    mel = net.input("mel", [1, dims.mels, "T"])
    noise = net.input("noise", [1, "samples", partials])

    f0 = hift_layers.fundamental(net, mel, w / "f0_predictor", AROUND)
    net.output("f0", op.Squeeze(f0, [2]), [1, "T"])
    cycles = hift_layers.partials(net, f0, dims)
    phase = signal.frame_phases(net, cycles, dims.frame, partials)
    sine = op.Sin(op.Mul(signal.fraction(net, phase), 2.0 * math.pi))
    net.output("source", noisy(net, sine, f0, noise, w, dims), [1, 1, "samples"])

    rng = np.random.default_rng(0)
    calls = tuple(
        {
            "mel": rng.normal(-4, 2, (1, dims.mels, frames)).astype(np.float32),
            "noise": rng.standard_normal((1, frames * dims.frame, partials), np.float32),
        }
        for frames in (12, 17)
    )
    return net.finish(calls)


def noisy(net: Net, sine: Value, f0: Value, noise: Value, w: Weights, dims: HiFTDims) -> Value:
    """The excitation [1, 1, samples] of sines and noise at every sample, with f0 [1, T, 1]."""
    op = net.op
    voiced = op.Cast(op.Greater(f0, dims.threshold), to=1)
    voiced = signal.repeat_frames(net, voiced, dims.frame)  # [1, samples, 1]
    level = hift_layers.noise_level(net, voiced, dims)
    tones = op.Mul(sine, op.Mul(voiced, dims.sine_amplitude))
    return hift_layers.mixed(net, tones, op.Mul(level, noise), w, dims)


def hift(w: Weights, dims: HiFTDims) -> Graph:
    """`mel` [1, mels, T], `source` [1, 1, frame·T] → `audio` [1, frame·T] in ±`limit`."""
    net = Net(*VOCODER)
    mel = net.input("mel", [1, dims.mels, "T"])
    source = net.input("source", [1, 1, "samples"])
    spectrum = net.tap("stft", signal.stft(net, source, dims.fft, dims.hop))
    shape = (dims.base, dims.mels, EDGE_TAPS)
    x = net.tap("conv_pre", hift_layers.same(net, mel, w / "conv_pre", shape, AROUND))
    x = hift_layers.upsampled(net, x, spectrum, w, dims, AROUND)
    net.output("audio", hift_layers.audio_of(net, x, dims), [1, "samples"])

    rng = np.random.default_rng(0)
    calls = tuple(
        {
            "mel": rng.normal(-4, 2, (1, dims.mels, frames)).astype(np.float32),
            "source": rng.normal(0, 0.1, (1, 1, frames * dims.frame)).astype(np.float32),
        }
        for frames in (12, 17)
    )
    return net.finish(calls)
