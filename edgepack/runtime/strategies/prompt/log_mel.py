"""Log magnitude of a mel spectrogram. Source: matcha/utils/audio.py (`mel_spectrogram`)."""

from collections.abc import Iterator

import numpy as np

from edgepack.bundle.host import HostLoops, PromptPart
from edgepack.bundle.ranges import Frequency, Rate, Size
from edgepack.runtime.audio.features import framed, hann, mel_basis


class Record(PromptPart, frozen=True, tag="log_mel"):
    """Sizes in samples, band edges in Hz, both as if of audio at `rate`."""

    rate: Rate
    fft: Size
    hop: Size
    window: Size
    low: Frequency
    high: Frequency

    def problems(self, host: HostLoops) -> Iterator[str]:
        """Edges and sizes in the wrong order."""
        yield from super().problems(host)
        if self.low >= self.high:
            yield "low is not below high"
        if self.window > self.fft:
            yield "the window is longer than the transform"


def log_mel(samples: np.ndarray, settings: Record) -> np.ndarray:
    """Log magnitude mel spectrogram of [n], `[frames, mels]`, as the flow was trained on."""
    pad = (settings.fft - settings.hop) // 2
    cut = framed(np.pad(samples, pad, mode="reflect"), settings.fft, settings.hop)
    spectrum = np.fft.rfft(cut * hann(settings.window), settings.fft)
    magnitude = np.sqrt(np.square(np.abs(spectrum)) + 1e-9)
    basis = mel_basis(settings.rate, settings.fft, settings.mels, settings.low, settings.high)
    return np.log(np.maximum(magnitude @ basis.T, 1e-5)).astype(np.float32)


STRATEGY = log_mel
