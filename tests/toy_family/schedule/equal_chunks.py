"""Chunks of equal length that are joined as they are."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from edgepack.bundle.host import SchedulePart
from edgepack.bundle.manifest import Solver
from edgepack.bundle.ranges import Few
from edgepack.runtime.stages.chunks import Chunk, ChunkedSynthesis
from edgepack.runtime.stages.flow import Condition


class Record(SchedulePart, frozen=True, tag="equal_chunks"):
    """Tokens of a chunk."""

    hop: Few


@dataclass(frozen=True)
class EqualChunks(ChunkedSynthesis):
    """The mel of all tokens so far, of which the new frames are vocoded."""

    settings: Record

    def run(
        self,
        tokens: Iterable[int],
        condition: Condition,
        rng: np.random.Generator | None,
        first_hop: int | None = None,
        *,
        solver: Solver | None = None,
    ) -> Iterator[Chunk]:
        """Chunks of `hop` tokens; the rest at the end."""
        hop = first_hop or self.settings.hop
        known: list[int] = []
        done = 0
        for token in tokens:
            known.append(token)
            if len(known) - done >= hop + self.flow.look_ahead:
                mel = self.flow.mel(known, condition, final=False, chunked=True, solver=solver)
                yield self._chunk(mel, done, done + hop, rng)
                done += hop
        if known:
            mel = self.flow.mel(known, condition, solver=solver)
            yield self._chunk(mel, done, len(known), rng)

    def _chunk(
        self, mel: np.ndarray, start: int, end: int, rng: np.random.Generator | None
    ) -> Chunk:
        first, last = (self.flow.settings.frames(token) for token in (start, end))
        new = np.ascontiguousarray(mel[:, :, first:last])
        return Chunk(self.vocoder.synthesize(new, self.vocoder.noise(last - first, rng)).audio, new)


STRATEGY = EqualChunks
