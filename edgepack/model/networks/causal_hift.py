"""The causal HiFT vocoder in two graphs: mel → excitation, and mel with excitation → audio.

Every convolution looks back, but the first of the pitch and the first of the vocoder, which look
a few frames ahead: the host appends what they see, the next frames of a stream or zeros. Source:
cosyvoice/hifigan/generator.py (`CausalHiFTGenerator`, `SineGen2` with `causal`), f0_predictor.py
(`CausalConvRNNF0Predictor`) and cosyvoice/transformer/convolution.py.
"""

import math

import numpy as np

from edgepack.bundle.stages import Declared, Use
from edgepack.graph import signal
from edgepack.graph.net import Graph, Net, Value
from edgepack.graph.weights import Weights
from edgepack.model.networks import hift_layers
from edgepack.model.networks.hift import VOCODER
from edgepack.model.networks.hift_dims import CausalHiFTDims
from edgepack.model.networks.hift_layers import Pads

# The phase of a sine is that of the frame's start: all rounding errors of f0 before it add up, with
# nothing interpolated between frames (1.8e-3 of a self-test of 17 frames was seen).
EXCITATION: Declared = (
    "hift_source",
    Use(role="excitation", judged="vocoder", memory="released", tolerance=5e-3),
)


class _Back:
    """Convolutions that look back."""

    def same(self, reach: int) -> Pads:
        return reach, 0

    def down(self, stride: int) -> Pads:
        return stride - 1, 0

    def up(self, net: Net, x: Value, w: Weights, sizes: tuple[int, int, int], rate: int) -> Value:
        """Each frame `rate` times, then a causal convolution `[out, in, k]`: one transposed one.

        Taps that meet copies of the same frame are added up beforehand.
        """
        inputs, out, taps = sizes
        length = taps + rate - 1

        def spread(value: np.ndarray) -> np.ndarray:
            summed = np.zeros((inputs, out, length), np.float64)
            for copy in range(rate):
                summed[:, :, copy : copy + taps] += value[:, :, ::-1].transpose(1, 0, 2)
            return summed.astype(np.float32)

        weight = w.convolution(out, inputs, taps).map((inputs, out, length), spread)
        bias = net.parameter(w.get("bias", out))
        pads = [0, taps - 1]
        return net.op.ConvTranspose(x, net.parameter(weight), bias, strides=[rate], pads=pads)


_BACK = _Back()


def causal_hift_source(w: Weights, dims: CausalHiFTDims) -> Graph:
    """`mel` [1, mels, T + pitch_ahead] → `source` [1, 1, frame·T] and `f0` [1, T].

    `noise` [1, frame·T, harmonics + 1] is uniform in [0, 1); zeros give the deterministic
    excitation. `f0` is in Hz, and a frame is voiced above `threshold`. Within a frame the phase
    stands still. The original draws an initial phase for each harmonic, which its interpolation
    never reads, so there is none here.
    """
    net = Net(*EXCITATION)
    op = net.op
    partials = dims.harmonics + 1
    mel = net.input("mel", [1, dims.mels, "T + pitch_ahead"])
    noise = net.input("noise", [1, "samples", partials])

    f0 = hift_layers.fundamental(net, mel, w / "f0_predictor", _BACK, dims.pitch_ahead)
    net.output("f0", op.Squeeze(f0, [2]), [1, "T"])
    turns = signal.frame_turns(net, hift_layers.partials(net, f0, dims), dims.frame)
    sine = op.Sin(op.Mul(signal.fraction(net, turns), 2.0 * math.pi))
    voiced = op.Cast(op.Greater(f0, dims.threshold), to=1)  # [1, T, 1]
    tones = op.Mul(sine, op.Mul(voiced, dims.sine_amplitude))
    tones = signal.repeat_frames(net, tones, dims.frame, partials)
    level = hift_layers.noise_level(net, voiced, dims)
    level = signal.repeat_frames(net, level, dims.frame)  # [1, samples, 1]
    source = hift_layers.mixed(net, tones, op.Mul(level, noise), w, dims)
    net.output("source", source, [1, 1, "samples"])

    rng = np.random.default_rng(0)
    calls = tuple(
        {
            "mel": rng.normal(-4, 2, (1, dims.mels, frames + dims.pitch_ahead)).astype(np.float32),
            "noise": rng.random((1, frames * dims.frame, partials), np.float32),
        }
        for frames in (12, 17)
    )
    return net.finish(calls)


def causal_hift(w: Weights, dims: CausalHiFTDims) -> Graph:
    """`mel` [1, mels, T + ahead], `source` [1, 1, frame·T + fft / 2] → `audio` [1, frame·T].

    `audio` is in ±`limit`; its last fft / 2 samples are those of an utterance that ends there.
    The excitation goes on after them: with itself, or, where it ends, mirrored at its last sample.
    """
    net = Net(*VOCODER)
    mel = net.input("mel", [1, dims.mels, "T + ahead"])
    source = net.input("source", [1, 1, "samples + ahead"])
    spectrum = net.tap("stft", signal.stft(net, source, dims.fft, dims.hop, ahead=True))
    shape = (dims.base, dims.mels, dims.ahead + 1)
    x = hift_layers.convolve(net, mel, w / "conv_pre", shape, (0, 0), dilations=[1])
    x = hift_layers.upsampled(net, net.tap("conv_pre", x), spectrum, w, dims, _BACK)
    net.output("audio", hift_layers.audio_of(net, x, dims), [1, "samples"])

    rng = np.random.default_rng(0)
    calls = tuple(
        {
            "mel": rng.normal(-4, 2, (1, dims.mels, frames + dims.ahead)).astype(np.float32),
            "source": rng.normal(0, 0.1, (1, 1, frames * dims.frame + dims.fft // 2)).astype(
                np.float32
            ),
        }
        for frames in (12, 17)
    )
    return net.finish(calls)
