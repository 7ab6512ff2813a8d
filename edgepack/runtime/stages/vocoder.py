"""Mel spectrogram → audio; how is a strategy's (`strategies.vocoder`)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from edgepack.bundle.host import VocoderPart
from edgepack.runtime.engines.session import Session

WINDOW = 192


class Sound(NamedTuple):
    """Audio [1, n] in ±1, the excitation [1, 1, n] that drove it, and f0 [1, frames] in Hz."""

    audio: np.ndarray
    source: np.ndarray
    f0: np.ndarray


@dataclass(frozen=True)
class Vocoder(ABC):
    """A vocoder; kinds have a session for each of their roles besides.

    `window` is how many mel frames are computed at once at most: memory grows with them.
    """

    settings: VocoderPart
    vocoder: Session
    window: int = field(default=WINDOW, kw_only=True)

    @abstractmethod
    def noise(self, frames: int, rng: np.random.Generator | None) -> np.ndarray:
        """What is random in the audio of so many frames; without a generator, silence."""

    @abstractmethod
    def synthesize(self, mel: np.ndarray, noise: np.ndarray) -> Sound:
        """Audio of a whole mel [1, mels, T]."""
