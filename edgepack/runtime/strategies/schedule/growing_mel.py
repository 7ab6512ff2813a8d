"""Audio in chunks whose mel grows at its end: nothing overlaps and nothing is faded.

Source: cosyvoice/cli/model.py (`CosyVoice3Model.token2wav`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from edgepack.bundle.host import HostLoops
from edgepack.bundle.manifest import Solver
from edgepack.runtime.stages.chunks import Chunk, ChunkedSynthesis
from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.stages.hops import chunk_mels
from edgepack.runtime.strategies.schedule._growing import GrowingRecord
from edgepack.runtime.strategies.vocoder import causal_hift
from edgepack.runtime.strategies.vocoder.causal_hift import CausalHiFT


class Record(GrowingRecord, frozen=True, kw_only=True, tag="growing_mel"):
    """Nothing besides."""

    def problems(self, host: HostLoops) -> Iterator[str]:
        """A vocoder that cannot begin at any frame."""
        yield from super().problems(host)
        if not isinstance(host.vocoder, causal_hift.Record):
            yield f"a {host.vocoder.kind} vocoder cannot begin in the middle of a mel"


@dataclass(frozen=True)
class GrowingMel(ChunkedSynthesis):
    """Flow decoder on growing prefixes of the tokens, causal vocoder on what is new of the mel."""

    settings: Record
    vocoder: CausalHiFT

    def run(
        self,
        tokens: Iterable[int],
        condition: Condition,
        rng: np.random.Generator | None,
        first_hop: int | None = None,
        *,
        solver: Solver | None = None,
    ) -> Iterator[Chunk]:
        """Chunks of `first_hop` tokens, then growing hops; the rest at the end in one chunk.

        The mel of a chunk is what is new. Its audio ends a few frames earlier, for which the
        vocoder looks ahead, and those follow in the next chunk.
        """
        mels = chunk_mels(self.settings.hops(first_hop), self.flow, tokens, condition, solver)
        return self.voiced(mels, rng)

    def voiced(
        self, mels: Iterable[tuple[np.ndarray, bool]], rng: np.random.Generator | None
    ) -> Iterator[Chunk]:
        """Audio of mels that follow each other, each with whether it is the last one."""
        known: list[np.ndarray] = []
        spoken = 0  # samples
        for new, final in mels:
            known.append(new)
            mel = np.concatenate(known, 2)
            noise = self.vocoder.noise(mel.shape[2], rng)
            start = spoken // self.vocoder.settings.frame
            audio = self.vocoder.synthesize(mel, noise, final=final, start=start).audio
            spoken += audio.shape[1]
            yield Chunk(audio, new)


STRATEGY = GrowingMel
