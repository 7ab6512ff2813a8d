"""Chunks that grow, cross-faded: flow decoder and vocoder on longer and longer prefixes.

Source: cosyvoice/cli/model.py (`CosyVoice2Model.tts`, `token2wav`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from edgepack.bundle.host import HostLoops
from edgepack.bundle.manifest import Solver
from edgepack.bundle.ranges import Some
from edgepack.runtime.audio.fading import cross_fade
from edgepack.runtime.stages.chunks import Chunk, ChunkedSynthesis
from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.stages.hops import chunk_mels
from edgepack.runtime.strategies.schedule._growing import GrowingRecord
from edgepack.runtime.strategies.vocoder._excited import Excited, ExcitedRecord


class Record(GrowingRecord, frozen=True, kw_only=True, tag="growing_chunks"):
    """The last `mel_overlap` frames of a chunk are vocoded again with the next one, and faded."""

    mel_overlap: Some

    def problems(self, host: HostLoops) -> Iterator[str]:
        """An overlap that is too long, or a vocoder that cannot go on from an excitation."""
        yield from super().problems(host)
        if self.mel_overlap > host.flow.frames(self.first_hop):
            yield "mel_overlap is longer than the first chunk"
        if not isinstance(host.vocoder, ExcitedRecord):
            yield f"a {host.vocoder.kind} vocoder cannot go on from a known excitation"


@dataclass(frozen=True)
class Tail:
    """What the next chunk continues: the last mel frames, excitation and audio samples."""

    mel: np.ndarray
    source: np.ndarray
    audio: np.ndarray


@dataclass(frozen=True)
class GrowingChunks(ChunkedSynthesis):
    """Every chunk is decoded from the first token on, and cut at where the last one ended."""

    settings: Record
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
        """Chunks of `first_hop` tokens, then growing hops; the rest at the end in one chunk."""
        tail: Tail | None = None
        hops = self.settings.hops(first_hop)
        for new, final in chunk_mels(hops, self.flow, tokens, condition, solver):
            mel = np.concatenate([tail.mel, new], 2) if tail else new
            chunk, tail = self.voice(mel, tail, rng, final=final)
            yield chunk

    def voice(
        self, mel: np.ndarray, tail: Tail | None, rng: np.random.Generator | None, *, final: bool
    ) -> tuple[Chunk, Tail]:
        """Audio of a chunk's mel, joined to what came before; without `rng` no excitation noise."""
        noise = self.vocoder.noise(mel.shape[2], rng)
        sound = self.vocoder.synthesize(mel, noise, tail.source if tail else None)
        audio = cross_fade(tail.audio, sound.audio) if tail else sound.audio
        kept = mel.shape[2] - self.settings.mel_overlap
        samples = audio.shape[1] - self.settings.mel_overlap * self.vocoder.settings.frame
        rest = Tail(mel[:, :, kept:], sound.source[:, :, samples:], audio[:, samples:])
        repeated = tail.mel.shape[2] if tail else 0
        return Chunk(audio if final else audio[:, :samples], mel, repeated), rest


STRATEGY = GrowingChunks
