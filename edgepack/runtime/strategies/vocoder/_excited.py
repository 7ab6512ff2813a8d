"""Mel spectrogram → audio. Source: cosyvoice/hifigan/generator.py (`HiFTGenerator.inference`)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgepack.manifest import Vocoder as Settings
from edgepack.runtime.session import Session


class Sound(NamedTuple):
    """Audio [1, n] in ±1, the excitation [1, 1, n] that drove it, and f0 [1, frames] in Hz."""

    audio: np.ndarray
    source: np.ndarray
    f0: np.ndarray


WINDOW = 192  # frames that are vocoded at once: memory grows with them


@dataclass(frozen=True)
class Vocoder:
    """The vocoder: a graph for the excitation and one for the audio.

    The excitation is made in one go, as its phase runs on; audio in windows of equal length, with
    as many frames around each as its samples depend on, so that it is the same as if made at once.
    """

    settings: Settings
    excitation: Session
    generator: Session
    window: int = WINDOW

    def noise(self, frames: int, rng: np.random.Generator | None) -> np.ndarray:
        """Standard normal excitation noise [1, samples, partials]; zeros without a generator."""
        shape = (1, frames * self.settings.frame, self.settings.partials)
        return rng.standard_normal(shape, np.float32) if rng else np.zeros(shape, np.float32)

    def synthesize(
        self, mel: np.ndarray, noise: np.ndarray, known_source: np.ndarray | None = None
    ) -> Sound:
        """Audio of a mel [1, mels, T]; `known_source` replaces the excitation's first samples."""
        excited = self.excitation.run_kept({"mel": mel, "noise": noise}, ("source",))
        source = excited["source"]
        if known_source is not None:
            rest = np.asarray(source)[:, :, known_source.shape[2] :]
            source = np.concatenate([known_source, rest], 2)
        if mel.shape[2] <= self.window:
            audio = self.generator.run({"mel": mel, "source": source})["audio"]
        else:
            audio = self._in_windows(mel, np.asarray(source))
        return Sound(audio, np.asarray(source), excited["f0"])

    def _in_windows(self, mel: np.ndarray, source: np.ndarray) -> np.ndarray:
        """Audio of a long mel, [1, n]."""
        frames, frame, context = mel.shape[2], self.settings.frame, self.settings.context
        count = -(-frames // self.window)
        length = -(-frames // count)
        width = min(frames, length + 2 * context)  # of every window: a new shape costs memory
        pieces = []
        for start in range(0, frames, length):
            end = min(start + length, frames)
            first = min(max(0, start - context), frames - width)
            last = first + width
            window = {
                "mel": np.ascontiguousarray(mel[:, :, first:last]),
                "source": np.ascontiguousarray(source[:, :, first * frame : last * frame]),
            }
            audio = self.generator.run(window)["audio"]
            pieces.append(audio[:, (start - first) * frame : (end - first) * frame])
        return np.concatenate(pieces, 1)
