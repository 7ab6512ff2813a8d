"""Streams of overlapping chunks: which tokens each is made of, and how they are joined."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from fakes import Arrays, Fake

from edgepack.bundle.manifest import Solver, SolverStep
from edgepack.runtime.audio.fading import cross_fade
from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.strategies.flow import regulated
from edgepack.runtime.strategies.flow.regulated import Cache, Piece, Regulated
from edgepack.runtime.strategies.schedule.overlapping_chunks import OverlappingChunks, Record
from edgepack.runtime.strategies.vocoder import phased_hift
from edgepack.runtime.strategies.vocoder.phased_hift import PhasedHiFT

MELS, FRAME, PARTIALS = 2, 4, 3
FLOW = regulated.Record(
    steps=1,
    schedule="linear",
    guidance=0.0,
    mels=MELS,
    noise_frames=1000,
    heads=8,
    tokens=10,
    sample_rate=200,
    hop=10,
    margin=3,
    kept=6,
)  # two frames a token
VOCODER = phased_hift.Record(frame=FRAME, partials=PARTIALS, context=1)
SETTINGS = Record(hop=10, overlap=3, mel_context=2)
SOLVER = Solver(steps=(SolverStep(time=0.0, guided=False, conditional=(1.0,), free=()),))


@dataclass(frozen=True)
class Tokens(Regulated):
    """A flow decoder whose mel says which token each frame is of."""

    seen: list[tuple[list[int], Cache | None]] = field(default_factory=list)

    def piece(
        self,
        tokens: Sequence[int],
        condition: Condition,
        noise: np.ndarray,
        solver: Solver,
        cache: Cache | None = None,
    ) -> Piece:
        self.seen.append((list(tokens), cache))
        frames = np.repeat(np.array(tokens, np.float32), 2)
        mel = np.broadcast_to(frames, (1, MELS, frames.size)).copy()
        return Piece(mel, Cache(noise, np.full((1, MELS, 1), len(self.seen), np.float32)))


def excitation(feeds: Feeds) -> Arrays:
    frames = feeds["mel"].shape[2]
    source = feeds["noise"].sum(2)[:, None] + feeds["phase"].sum()
    return {"source": source.astype(np.float32), "f0": np.zeros((1, frames), np.float32)}


def spoken(feeds: Feeds) -> Arrays:
    """Every sample is its frame's token, a hundredth of it to be in range, plus the excitation."""
    return {"audio": np.repeat(feeds["mel"][:, 0], FRAME, 1) / 100 + feeds["source"][:, 0]}


@pytest.fixture
def chunks() -> OverlappingChunks:
    nothing = Fake(lambda feeds: {})
    flow = Tokens(FLOW, nothing, nothing, nothing, table=SOLVER)
    vocoder = PhasedHiFT(VOCODER, Fake(spoken), excitation=Fake(excitation))
    return OverlappingChunks(SETTINGS, flow, vocoder)


@pytest.mark.parametrize("count", [1, 12, 13, 14, 23, 40])
def test_every_token_is_spoken_once(chunks: OverlappingChunks, count: int) -> None:
    tokens = list(range(1, count + 1))
    made = list(chunks.run(tokens, Condition(np.zeros(3)), None))
    audio = np.concatenate([chunk.audio for chunk in made], 1)
    assert audio.shape == (1, 2 * FRAME * count)
    wanted = np.repeat(tokens, 2 * FRAME) / 100
    np.testing.assert_allclose(audio[0] / wanted, 1, atol=0.18)  # fades are 8 % louder, twice
    pieces = [tokens[start : start + 13] for start in range(0, max(1, count - 12), 10)]
    rest = tokens[len(pieces) * 10 :] if count >= 13 else []
    assert isinstance(chunks.flow, Tokens)
    assert [seen for seen, _ in chunks.flow.seen] == [*pieces, *([rest] if rest else [])]


def test_a_chunk_continues_the_last_one(chunks: OverlappingChunks) -> None:
    made = list(chunks.run(range(1, 31), Condition(np.zeros(3)), None))
    assert isinstance(chunks.flow, Tokens)
    caches = [cache and float(cache.mu[0, 0, 0]) for _, cache in chunks.flow.seen]
    assert caches == [None, 1.0, 2.0]
    assert [chunk.repeated for chunk in made] == [0, 2, 2]
    first, second = made[0].mel[0, 0], made[1].mel[0, 0]
    assert first.tolist() == np.repeat(range(1, 11), 2).tolist()
    assert second[:2].tolist() == first[-2:].tolist()  # context
    overlap = np.repeat([11.0, 12.0, 13.0], 2)  # is the same from both sides
    np.testing.assert_allclose(second[2:8], overlap * (np.hamming(12)[:6] + np.hamming(12)[6:]))


def test_noise_and_phases_are_drawn_for_every_chunk(chunks: OverlappingChunks) -> None:
    def audio(seed: int | None) -> np.ndarray:
        rng = None if seed is None else np.random.default_rng(seed)
        made = chunks.run(range(1, 31), Condition(np.zeros(3)), rng)
        return np.concatenate([chunk.audio for chunk in made], 1)

    assert np.array_equal(audio(1), audio(1))
    assert not np.array_equal(audio(1), audio(2))
    excited = chunks.vocoder.excitation
    assert isinstance(excited, Fake)
    phases = [call["phase"] for call in excited.calls]
    assert phases[0][0, 0, 0] == 0  # of the fundamental
    assert 0 < np.abs(phases[0]).max() <= np.pi
    assert not np.array_equal(phases[0], phases[1])
    audio(None)
    assert not excited.calls[-1]["phase"].any()
    assert not excited.calls[-1]["noise"].any()


def test_a_fade_is_by_halves_of_a_symmetric_hamming_window() -> None:
    before, after = np.ones((1, 2, 3), np.float32), np.full((1, 2, 5), 2, np.float32)
    faded = cross_fade(before, after)
    window = np.hamming(6)
    wanted = [*(2 * window[:3] + window[3:]), 2, 2]
    np.testing.assert_allclose(faded, np.broadcast_to(wanted, (1, 2, 5)), rtol=1e-6)
    assert (after == 2).all()
