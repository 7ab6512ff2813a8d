"""HiFT whose harmonics start at phases that are drawn for each piece of audio.

Source: cosyvoice/hifigan/generator.py (`SineGen`, `HiFTGenerator.inference`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np

from edgepack.bundle.host import HostLoops, Signature
from edgepack.runtime.strategies.vocoder._excited import Excited, ExcitedRecord


class Record(ExcitedRecord, frozen=True, tag="phased_hift"):
    """Nothing besides."""

    def networks(self, host: HostLoops) -> Mapping[str, Signature]:
        """The excitation is given the phases."""
        found = super().networks(host)
        excitation = found["excitation"]
        phase = ("f", (1, 1, self.partials))
        told = msgspec.structs.replace(excitation, inputs={**excitation.inputs, "phase": phase})
        return {**found, "excitation": told}


@dataclass(frozen=True)
class PhasedHiFT(Excited):
    """What is random are phases and noise: the first row of its `noise` are the phases."""

    settings: Record

    def noise(self, frames: int, rng: np.random.Generator | None) -> np.ndarray:
        """Phases, then noise [1, 1 + samples, partials]; zeros without a generator.

        Phases are in ±π, that of the fundamental is 0; noise is standard normal.
        """
        noise = super().noise(frames, rng)
        phase = np.zeros((1, 1, self.settings.partials), np.float32)
        if rng:
            phase[..., 1:] = rng.uniform(-np.pi, np.pi, phase[..., 1:].shape)
        return np.concatenate([phase, noise], 1)

    def excitation_feeds(self, mel: np.ndarray, noise: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs of the excitation's network: phases and noise apart."""
        apart = {"phase": noise[:, :1], "noise": np.ascontiguousarray(noise[:, 1:])}
        return {"mel": mel, **apart}


STRATEGY = PhasedHiFT
