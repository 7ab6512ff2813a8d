"""Audio in chunks while tokens still arrive; how is a strategy's (`strategies.schedule`)."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from edgepack.bundle.host import SchedulePart
from edgepack.bundle.manifest import Solver
from edgepack.runtime.stages.flow import Condition, FlowDecoder
from edgepack.runtime.stages.vocoder import Vocoder


@dataclass(frozen=True)
class Chunk:
    """New audio [1, n], and the mel [1, mels, frames] the vocoder was given for it.

    The first `repeated` frames of the mel were in the chunk before, too.
    """

    audio: np.ndarray
    mel: np.ndarray
    repeated: int = 0


@dataclass(frozen=True)
class ChunkedSynthesis(ABC):
    """Flow decoder and vocoder on a growing token sequence."""

    settings: SchedulePart
    flow: FlowDecoder
    vocoder: Vocoder

    @abstractmethod
    def run(
        self,
        tokens: Iterable[int],
        condition: Condition,
        rng: np.random.Generator | None,
        first_hop: int | None = None,
        *,
        solver: Solver | None = None,
    ) -> Iterator[Chunk]:
        """Chunks as soon as there are tokens for them; the rest at the end in one chunk.

        `rng` is of the excitation noise, None for none. `first_hop` replaces the schedule's own
        number of tokens in the first chunk.
        """
