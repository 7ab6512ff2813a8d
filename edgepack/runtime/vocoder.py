"""Mel spectrogram → audio. Source: cosyvoice/hifigan/generator.py (`HiFTGenerator.inference`)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgepack.manifest import Vocoder as Settings
from edgepack.runtime.session import Session, run_kept


class Sound(NamedTuple):
    """Audio [1, n] in ±1, the excitation [1, 1, n] that drove it, and f0 [1, frames] in Hz."""

    audio: np.ndarray
    source: np.ndarray
    f0: np.ndarray


@dataclass(frozen=True)
class Vocoder:
    """The vocoder: a graph for the excitation and one for the audio."""

    settings: Settings
    excitation: Session
    generator: Session

    def noise(self, frames: int, rng: np.random.Generator | None) -> np.ndarray:
        """Standard normal excitation noise [1, samples, partials]; zeros without a generator."""
        shape = (1, frames * self.settings.frame, self.settings.partials)
        return rng.standard_normal(shape, np.float32) if rng else np.zeros(shape, np.float32)

    def synthesize(
        self, mel: np.ndarray, noise: np.ndarray, known_source: np.ndarray | None = None
    ) -> Sound:
        """Audio of a mel [1, mels, T]; `known_source` replaces the excitation's first samples."""
        excited = run_kept(self.excitation, {"mel": mel, "noise": noise}, ("source",))
        source = excited["source"]
        if known_source is not None:
            rest = np.asarray(source)[:, :, known_source.shape[2] :]
            source = np.concatenate([known_source, rest], 2)
        audio = self.generator.run({"mel": mel, "source": source})["audio"]
        return Sound(audio, np.asarray(source), excited["f0"])
