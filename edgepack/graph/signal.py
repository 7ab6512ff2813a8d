"""Signal blocks inside a graph: STFT, inverse STFT, the sine excitation. Channels first."""

import numpy as np

from edgepack.graph.net import END, Net, Value

_PHASE_STEPS = 1024.0


def hann(size: int) -> np.ndarray:
    """Periodic Hann window, float64 [size]."""
    return 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size)


def stft(net: Net, x: Value, size: int, hop: int, *, ahead: bool = False) -> Value:
    """Samples [1, 1, n] → [1, size + 2, n / hop + 1]: real bins, then imaginary bins.

    Centred, reflect-padded, periodic Hann window, as `torch.stft` with its defaults. With `ahead`
    the samples are followed by size / 2 more, in place of their mirror image at the end.
    """
    op = net.op
    angle = 2.0 * np.pi * np.outer(np.arange(size // 2 + 1), np.arange(size)) / size
    basis = np.concatenate([np.cos(angle), -np.sin(angle)]) * hann(size)
    kernel = net.constant("stft_basis", basis[:, None].astype(np.float32))
    after = 0 if ahead else size // 2
    padded = op.Pad(x, [0, 0, size // 2, 0, 0, after], mode="reflect")
    return op.Conv(padded, kernel, strides=[hop])


def inverse_stft(net: Net, real: Value, imaginary: Value, size: int, hop: int) -> Value:
    """Bins [1, size / 2 + 1, m] each → samples [1, (m - 1)·hop], as `torch.istft`, centred.

    Overlap-add of windowed frames over the overlap-added squared window.
    """
    op = net.op
    bins = size // 2 + 1
    angle = 2.0 * np.pi * np.outer(np.arange(bins), np.arange(size)) / size
    weight = np.full((bins, 1), 2.0 / size)
    weight[[0, -1]] = 1.0 / size
    basis = np.concatenate([weight * np.cos(angle), -weight * np.sin(angle)]) * hann(size)
    kernel = net.constant("istft_basis", basis[:, None].astype(np.float32))
    square = net.constant("istft_window", (hann(size) ** 2)[None, None].astype(np.float32))
    frames = op.Concat(real, imaginary, axis=1)
    trim = {"strides": [hop], "pads": [size // 2, size // 2]}
    overlapped = op.ConvTranspose(frames, kernel, **trim)
    ones = op.Add(op.Mul(op.Slice(frames, [0], [1], [1]), 0.0), 1.0)
    return op.Squeeze(op.Div(overlapped, op.ConvTranspose(ones, square, **trim)), [1])


def fraction(net: Net, x: Value) -> Value:
    """`x - ⌊x⌋`."""
    return net.op.Sub(x, net.op.Floor(x))


def frame_turns(net: Net, cycles: Value, hop: int) -> Value:
    """Phase of a sine bank at the end of every frame, in cycles: [1, T, h] → [1, T, h].

    `cycles` in [0, 1) are cycles per sample, constant over a frame of `hop` samples. The phase of
    frame i is `hop · Σ cycles[0..i]`, less whole turns, which are dropped before they are summed:
    the coarse part of every addend is a multiple of 2⁻¹⁰ and sums exactly in float32, so long
    utterances keep their phase.
    """
    op = net.op
    coarse = op.Div(op.Floor(op.Mul(cycles, _PHASE_STEPS)), _PHASE_STEPS)
    fine = op.Sub(cycles, coarse)
    whole = fraction(net, op.Mul(coarse, float(hop)))
    turn = fraction(net, op.Add(whole, op.Mul(fine, float(hop))))
    steps = op.Div(op.Floor(op.Mul(turn, _PHASE_STEPS)), _PHASE_STEPS)
    return op.Add(fraction(net, op.CumSum(steps, 1)), op.CumSum(op.Sub(turn, steps), 1))


def frame_phases(net: Net, cycles: Value, hop: int, width: int) -> Value:
    """Phase of a sine bank at every sample, in cycles: [1, T, h] → [1, hop·T, h].

    `cycles` in [0, 1) are cycles per sample, constant over a frame of `hop` samples, an even
    number. The phase at frame i is that of `frame_turns`; samples between two frame centres
    interpolate it linearly, the outer halves of the first and the last frame hold it. Source:
    cosyvoice/hifigan/generator.py, `SineGen2`.
    """
    op = net.op
    summed = frame_turns(net, cycles, hop)  # [1, T, h]
    first = op.Slice(summed, [0], [1], [1])
    base = op.Unsqueeze(op.Concat(first, summed, axis=1), [2])  # [1, T + 1, 1, h]
    later = op.Slice(op.Mul(cycles, float(hop)), [1], [END], [1])
    rise = op.Unsqueeze(op.Pad(later, [0, 1, 0, 0, 1, 0]), [2])
    ramp = ((np.arange(hop, dtype=np.float32) + 0.5) / hop)[None, None, :, None]
    phase = op.Add(base, op.Mul(rise, net.constant("phase_ramp", ramp)))  # [1, T + 1, hop, h]
    samples = op.Reshape(phase, [1, -1, width])
    return op.Slice(samples, [hop // 2], [-(hop // 2)], [1])


def repeat_frames(net: Net, x: Value, hop: int, width: int = 1) -> Value:
    """Each frame of [1, T, width] `hop` times: [1, hop·T, width]."""
    op = net.op
    ones = net.constant("samples_of_a_frame", np.ones((1, 1, hop), np.float32))
    if width == 1:
        return op.Reshape(op.Mul(x, ones), [1, -1, 1])
    column = op.Unsqueeze(ones, [3])
    return op.Reshape(op.Mul(op.Unsqueeze(x, [2]), column), [1, -1, width])
