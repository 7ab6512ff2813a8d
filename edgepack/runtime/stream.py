"""Audio in chunks while tokens still arrive, with the original's schedule and cross-fade.

Source: cosyvoice/cli/model.py (`CosyVoice2Model.tts`, `token2wav`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from edgepack.manifest import Solver, Stream
from edgepack.runtime.flow import Condition, FlowDecoder
from edgepack.runtime.vocoder import Vocoder


@dataclass(frozen=True)
class Tail:
    """What the next chunk continues: the last mel frames, excitation and audio samples."""

    mel: np.ndarray
    source: np.ndarray
    audio: np.ndarray


@dataclass(frozen=True)
class Chunk:
    """New audio [1, n], and the mel [1, mels, frames] the vocoder was given for it."""

    audio: np.ndarray
    mel: np.ndarray


@dataclass(frozen=True)
class ChunkedSynthesis:
    """Flow decoder and vocoder run on growing prefixes of the token sequence."""

    settings: Stream
    flow: FlowDecoder
    vocoder: Vocoder

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

        The first hop is lengthened so that prompt and hop fill whole attention chunks. The
        last chunk is decoded with full attention.
        """
        hop = first_hop or self.settings.first_hop
        known: list[int] = []
        offset = 0
        tail: Tail | None = None
        padding = -len(condition.tokens) % hop
        for token in tokens:
            known.append(token)
            wanted = hop + (padding if offset == 0 else 0)
            if len(known) - offset < wanted + self.flow.settings.look_ahead:
                continue
            mel = self.flow.mel(known, condition, final=False, chunked=True, solver=solver)
            chunk, tail = self.voice(self._fresh(mel, offset, tail), tail, rng, final=False)
            yield chunk
            offset += wanted
            hop = min(self.settings.max_hop, hop * self.settings.growth)
        if known:
            mel = self.flow.mel(known, condition, solver=solver)
            yield self.voice(self._fresh(mel, offset, tail), tail, rng, final=True)[0]

    def _fresh(self, mel: np.ndarray, offset: int, tail: Tail | None) -> np.ndarray:
        """The frames from token `offset` on, after those kept from the chunk before."""
        new = mel[:, :, offset * self.flow.settings.ratio :]
        return np.concatenate([tail.mel, new], 2) if tail else new

    def voice(
        self, mel: np.ndarray, tail: Tail | None, rng: np.random.Generator | None, *, final: bool
    ) -> tuple[Chunk, Tail]:
        """Audio of a chunk's mel, joined to what came before; without `rng` no excitation noise."""
        noise = self.vocoder.noise(mel.shape[2], rng)
        sound = self.vocoder.synthesize(mel, noise, tail.source if tail else None)
        audio = _cross_fade(tail.audio, sound.audio) if tail else sound.audio
        overlap = self.settings.mel_overlap
        samples = overlap * self.vocoder.settings.frame
        rest = Tail(mel[:, :, -overlap:], sound.source[:, :, -samples:], audio[:, -samples:])
        return Chunk(audio if final else audio[:, :-samples], mel), rest


def _cross_fade(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`after` with its start faded in over `before`, by the halves of a symmetric Hamming window.

    The halves add up to about 1.08, as in the original.
    """
    n = before.shape[1]
    window = np.hamming(2 * n)
    faded = after.copy()
    faded[:, :n] = after[:, :n] * window[:n] + before * window[n:]
    return faded
