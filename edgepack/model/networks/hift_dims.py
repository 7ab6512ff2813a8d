"""Dimensions of HiFT vocoders, and how far a sample of audio sees."""

import math
from dataclasses import dataclass

EDGE_TAPS = 7  # of the first convolution, unless that looks ahead, and of the last


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
        reach = self.fft // (2 * self.hop) + 1 + EDGE_TAPS // 2  # in frames of the STFT
        far = 0.0  # the same of the source, in mel frames
        stride = 1
        for i in reversed(range(len(self.rates))):
            branches = zip(self.block_kernels, self.dilations, strict=True)
            reach += max(_reach(taps // 2, dilations) for taps, dilations in branches)
            # The source is added before the branches, which carry it as far as everything else.
            source = reach + _reach(self.source_kernels[i] // 2, self.source_dilations[i])
            spectrum = (source + 1) * stride + stride // 2 + self.fft // (2 * self.hop) + 1
            far = max(far, spectrum / math.prod(self.rates))
            reach = -(-(reach + self.kernels[i]) // self.rates[i])
            stride *= self.rates[i]
        return max(reach + EDGE_TAPS // 2, math.ceil(far)) + 1


@dataclass(frozen=True)
class CausalHiFTDims(HiFTDims):
    """Dimensions and settings; `ahead` is how many mel frames the vocoder looks ahead.

    `pitch_ahead` is the same of the pitch.
    """

    ahead: int
    pitch_ahead: int

    @property
    def context(self) -> int:
        """Mel frames before it that a sample of audio depends on; those further back do not."""
        window = self.fft // (2 * self.hop) + 1  # in frames of the STFT, as `reach`
        reach = window + EDGE_TAPS - 1 + 1
        far = 0.0  # the same of the source, in mel frames
        stride = 1
        for i in reversed(range(len(self.rates))):
            branches = zip(self.block_kernels, self.dilations, strict=True)
            reach += max(_reach(taps - 1, dilations) for taps, dilations in branches)
            source = reach + _reach(self.source_kernels[i] - 1, self.source_dilations[i])
            far = max(far, (source * stride + stride - 1 + window) / math.prod(self.rates))
            reach = -(-(reach + self.kernels[i] - 1) // self.rates[i])
            stride *= self.rates[i]
        return max(reach, math.ceil(far)) + 1


def _reach(taps: int, dilations: tuple[int, ...]) -> int:
    """Frames to one side that a residual block looks at, its kernels having `taps` on that side."""
    return sum(taps * (dilation + 1) for dilation in dilations)
