"""Audio in chunks of equal length that overlap: mels and audio are faded from one to the next.

Source: cosyvoice/cli/model.py (`CosyVoiceModel.tts`, `token2wav`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgepack.bundle.host import HostLoops, SchedulePart
from edgepack.bundle.manifest import Solver
from edgepack.bundle.ranges import Few
from edgepack.runtime.audio.fading import cross_fade
from edgepack.runtime.stages.chunks import Chunk, ChunkedSynthesis
from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.strategies.flow import regulated
from edgepack.runtime.strategies.flow.regulated import Cache, Regulated
from edgepack.runtime.strategies.vocoder._excited import Excited, ExcitedRecord


class Record(SchedulePart, frozen=True, tag="overlapping_chunks"):
    """A chunk has `hop` new tokens, and `overlap` more that are decoded again with the next one.

    Of a chunk's mel, the vocoder is given the last `mel_context` frames again with the next one.
    """

    hop: Few
    overlap: Few
    mel_context: Few

    def problems(self, host: HostLoops) -> Iterator[str]:
        """Too short chunks, and a flow or a vocoder that cannot go on from a chunk."""
        if self.mel_context > host.flow.frames(self.hop):
            yield "mel_context is longer than a chunk"
        if not isinstance(host.flow, regulated.Record):
            yield f"a {host.flow.kind} flow cannot go on from a cache"
        if not isinstance(host.vocoder, ExcitedRecord):
            yield f"a {host.vocoder.kind} vocoder cannot go on from a known excitation"


class _Voiced(NamedTuple):
    """What the vocoder was given last and made of it, as far as the next chunk repeats it."""

    mel: np.ndarray
    source: np.ndarray
    audio: np.ndarray


@dataclass(frozen=True)
class OverlappingChunks(ChunkedSynthesis):
    """Flow decoder and vocoder run on consecutive pieces of the token sequence."""

    settings: Record
    flow: Regulated
    vocoder: Excited

    def run(
        self,
        tokens: Iterable[int],
        condition: Condition,
        rng: np.random.Generator | None,
        first_hop: int | None = None,
        *,
        solver: Solver | None = None,
    ) -> Iterator[Chunk]:
        """Chunks while tokens arrive, and the rest at the end; all noise is of `rng`, or none.

        The overlap is decoded twice, and its two mels are faded from the first to the second.
        """
        waiting: list[int] = []
        stream = _Stream(self, condition, solver or self.flow.solver, rng)
        hop = first_hop or self.settings.hop
        for token in tokens:
            waiting.append(token)
            if len(waiting) == hop + self.settings.overlap:
                yield stream.chunk(waiting, final=False)
                waiting = waiting[hop:]
                hop = self.settings.hop
        if waiting:
            yield stream.chunk(waiting, final=True)


@dataclass
class _Stream:
    """The state of one stream: what each chunk leaves for the next."""

    made: OverlappingChunks
    condition: Condition
    solver: Solver
    rng: np.random.Generator | None
    cache: Cache | None = None
    overlap: np.ndarray | None = None
    voiced: _Voiced | None = None

    def chunk(self, tokens: list[int], *, final: bool) -> Chunk:
        """Audio of the next tokens, and the mel that the vocoder was given for it."""
        made = self.made
        shape = (1, made.flow.settings.mels, made.flow.frames(tokens, self.condition))
        drawn = self.rng.standard_normal(shape, np.float32) if self.rng else np.zeros(shape)
        noise = drawn.astype(np.float32)
        piece = made.flow.piece(tokens, self.condition, noise, self.solver, self.cache)
        self.cache, mel = piece.cache, piece.mel
        if self.overlap is not None:
            mel = cross_fade(self.overlap, mel)
        repeated = 0
        if self.voiced is not None:
            mel = np.concatenate([self.voiced.mel, mel], 2)
            repeated = self.voiced.mel.shape[2]
        if not final:
            kept = mel.shape[2] - made.flow.settings.frames(made.settings.overlap)
            mel, self.overlap = mel[:, :, :kept], mel[:, :, kept:]
        return Chunk(self._voice(mel, final=final), mel, repeated)

    def _voice(self, mel: np.ndarray, *, final: bool) -> np.ndarray:
        """Audio [1, n] of a chunk's mel, joined to what came before."""
        vocoder, before = self.made.vocoder, self.voiced
        noise = vocoder.noise(mel.shape[2], self.rng)
        mel = np.ascontiguousarray(mel)
        sound = vocoder.synthesize(mel, noise, before.source if before else None)
        audio = cross_fade(before.audio, sound.audio) if before else sound.audio
        if final:
            return audio
        frames = self.made.settings.mel_context
        samples = audio.shape[1] - frames * vocoder.settings.frame
        self.voiced = _Voiced(
            mel[:, :, mel.shape[2] - frames :], sound.source[:, :, samples:], audio[:, samples:]
        )
        return audio[:, :samples]


STRATEGY = OverlappingChunks
