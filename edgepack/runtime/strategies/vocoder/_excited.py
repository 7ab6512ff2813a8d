"""What HiFT vocoders share whose audio may be made in windows: both networks are symmetric.

Source: cosyvoice/hifigan/generator.py (`HiFTGenerator.inference`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.bundle.ranges import Some
from edgepack.runtime import cancellation
from edgepack.runtime.engines.session import Session
from edgepack.runtime.stages import vocoder as vocoders
from edgepack.runtime.strategies.vocoder._excitation import ExcitedPart


class ExcitedRecord(ExcitedPart, frozen=True):
    """A sample depends on `context` frames to each side."""

    context: Some

    def misfit(self, calls: Mapping[str, Any]) -> str:
        """Another number of samples a frame."""
        for feeds, _ in calls["vocoder"]:
            if feeds["source"].shape[2] != self.frame * feeds["mel"].shape[2]:
                return f"not {self.frame} samples a frame of mel"
        return ""


@dataclass(frozen=True)
class Excited(vocoders.Vocoder):
    """A network for the excitation and one for the audio.

    The excitation is made in one go, as its phase runs on; audio in windows of equal length, with
    as many frames around each as its samples depend on, so that it is the same as if made at once.
    """

    settings: ExcitedRecord
    excitation: Session

    def noise(self, frames: int, rng: np.random.Generator | None) -> np.ndarray:
        """Standard normal excitation noise [1, samples, partials]; zeros without a generator."""
        shape = (1, frames * self.settings.frame, self.settings.partials)
        return rng.standard_normal(shape, np.float32) if rng else np.zeros(shape, np.float32)

    def synthesize(
        self, mel: np.ndarray, noise: np.ndarray, known_source: np.ndarray | None = None
    ) -> vocoders.Sound:
        """Audio of a mel [1, mels, T]; `known_source` replaces the excitation's first samples."""
        excited = self.excitation.run_kept(self.excitation_feeds(mel, noise), ("source",))
        source = excited["source"]
        if known_source is not None:
            rest = np.asarray(source)[:, :, known_source.shape[2] :]
            source = np.concatenate([known_source, rest], 2)
        if mel.shape[2] <= self.window:
            audio = self.vocoder.run({"mel": mel, "source": source})["audio"]
        else:
            audio = self._in_windows(mel, np.asarray(source))
        return vocoders.Sound(audio, np.asarray(source), excited["f0"])

    def excitation_feeds(self, mel: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs of the excitation's network."""
        return {"mel": mel, "noise": noise}

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
            cancellation.check()
            audio = self.vocoder.run(window)["audio"]
            pieces.append(audio[:, (start - first) * frame : (end - first) * frame])
        return np.concatenate(pieces, 1)
