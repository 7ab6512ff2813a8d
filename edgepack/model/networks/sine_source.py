"""The excitation of a 22.05 kHz HiFT vocoder: sines whose phase runs on from sample to sample.

Source: cosyvoice/hifigan/generator.py (`SineGen`, `SourceModuleHnNSF`). Vocoders of other rates
interpolate the phase between frames (`hift.hift_source`).
"""

import math

import numpy as np

from edgepack.graph import signal
from edgepack.graph.net import Graph, Net, Value
from edgepack.graph.weights import Weights
from edgepack.model.networks import hift_layers
from edgepack.model.networks.hift import AROUND, EXCITATION, noisy
from edgepack.model.networks.hift_dims import HiFTDims


def sine_source(w: Weights, dims: HiFTDims) -> Graph:
    """`mel` [1, mels, T], `noise` [1, frame·T, p], `phase` [1, 1, p] → `source` [1, 1, frame·T].

    `noise` of the p = harmonics + 1 partials is standard normal; zeros give the deterministic
    excitation. `phase` are the partials' phases before the first sample, in radians. The second
    output, `f0` [1, T], is in Hz; a frame is voiced above `threshold`.
    """
    net = Net(*EXCITATION)
    op = net.op
    partials = dims.harmonics + 1
    mel = net.input("mel", [1, dims.mels, "T"])
    noise = net.input("noise", [1, "samples", partials])
    start = net.input("phase", [1, 1, partials])

    f0 = hift_layers.fundamental(net, mel, w / "f0_predictor", AROUND)
    net.output("f0", op.Squeeze(f0, [2]), [1, "T"])
    turns = _turns(net, hift_layers.partials(net, f0, dims), dims.frame, partials)
    sine = op.Sin(op.Add(op.Mul(turns, 2.0 * math.pi), start))
    net.output("source", noisy(net, sine, f0, noise, w, dims), [1, 1, "samples"])

    rng = np.random.default_rng(0)
    calls = tuple(
        {
            "mel": rng.normal(-4, 2, (1, dims.mels, frames)).astype(np.float32),
            "noise": rng.standard_normal((1, frames * dims.frame, partials), np.float32),
            "phase": rng.uniform(-np.pi, np.pi, (1, 1, partials)).astype(np.float32),
        }
        for frames in (12, 17)
    )
    return net.finish(calls)


def _turns(net: Net, cycles: Value, hop: int, width: int) -> Value:
    """Phase at every sample, in cycles less whole ones: [1, T, h] → [1, hop·T, h].

    `cycles` in [0, 1) are cycles per sample, constant over a frame of `hop` samples.
    """
    op = net.op
    ends = op.Unsqueeze(signal.frame_turns(net, cycles, hop), [2])  # [1, T, 1, h]
    # Counted back from the frame's end, which `frame_turns` knows to within its whole turns.
    back = np.arange(1 - hop, 1, dtype=np.float32)[None, None, :, None]
    within = op.Mul(op.Unsqueeze(cycles, [2]), net.constant("samples_back", back))
    phase = signal.fraction(net, op.Add(ends, within))  # [1, T, hop, h]
    return op.Reshape(phase, [1, -1, width])
