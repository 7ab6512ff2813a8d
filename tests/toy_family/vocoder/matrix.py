"""A vocoder without an excitation."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgepack.bundle.host import HostLoops, Signature, VocoderPart
from edgepack.runtime.stages import vocoder as vocoders


class Record(VocoderPart, frozen=True, tag="matrix"):
    """Nothing but the length of a frame."""

    def networks(self, host: HostLoops) -> Mapping[str, Signature]:
        """The audio of a mel."""
        mel = {"mel": ("f", (1, host.flow.mels, None))}
        return {"vocoder": Signature(mel, {"audio": None})}


@dataclass(frozen=True)
class Matrix(vocoders.Vocoder):
    """One network."""

    def noise(self, frames: int, rng: np.random.Generator | None) -> np.ndarray:
        """None."""
        return np.zeros((1, 0, 0), np.float32)

    def synthesize(self, mel: np.ndarray, noise: np.ndarray) -> vocoders.Sound:
        """Audio of a mel."""
        nothing = np.zeros((1, 1, 0), np.float32)
        return vocoders.Sound(self.vocoder.run({"mel": mel})["audio"], nothing, nothing[0])


STRATEGY = Matrix
