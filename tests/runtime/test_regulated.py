"""Pieces of a stream: what one keeps for the next, on networks that are functions."""

import numpy as np
import pytest
from fakes import Arrays, Fake

from edgepack.bundle.manifest import Solver, SolverStep
from edgepack.errors import GateError, ResourceError, UsageError
from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.stages.flow import Condition
from edgepack.runtime.strategies.flow.regulated import Record, Regulated

MELS, KEPT = 2, 4
SETTINGS = Record(
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
    kept=KEPT,
)  # two frames a token
ONCE = Solver(steps=(SolverStep(time=0.5, guided=False, conditional=(1.0,), free=()),))
PROMPT = Condition(np.ones(3), [8, 9], np.full((5, MELS), 7.0, np.float32))


def encoded(feeds: Feeds) -> Arrays:
    """The conditioning of a frame is the token to its left."""
    rows = feeds["tokens"][0][feeds["left"]].astype(np.float32)
    return {"mu": np.broadcast_to(rows, (1, MELS, rows.size)), "spk": np.zeros((1, MELS))}


def estimated(feeds: Feeds) -> Arrays:
    """One step goes from the noise to noise, conditioning and prompt together."""
    velocity = feeds["mu"] + feeds["cond"]
    return {"velocity": velocity, "next": feeds["x"] + velocity}


def decoder(memory: int | None = None) -> Regulated:
    time = Fake(lambda feeds: {"shift": np.zeros((feeds["t"].size, 1), np.float32)})
    return Regulated(SETTINGS, Fake(encoded), time, Fake(estimated), memory=memory)


def noise(frames: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, MELS, frames), np.float32)


def test_a_piece_is_made_of_its_noise_and_its_conditions_without_the_prompt() -> None:
    drawn = noise(15, 0)
    piece = decoder().piece([1, 2, 3, 4, 5], PROMPT, drawn, ONCE)
    assert piece.mel.shape == (1, MELS, 10)
    tokens = np.repeat([1.0, 2.0, 3.0, 4.0, 5.0], 2)  # the left token of a frame's two
    wanted = drawn[:, :, 5:] + np.concatenate([[1.0], tokens[:-1]])
    np.testing.assert_allclose(piece.mel, wanted, rtol=1e-6)


def test_the_prompt_is_a_condition_of_its_own_frames() -> None:
    of = decoder()
    of.piece([1, 2], PROMPT, noise(9, 0), ONCE)
    assert isinstance(of.estimator, Fake)
    (call,) = of.estimator.calls
    assert (call["cond"][:, :, :5] == 7).all()
    assert not call["cond"][:, :, 5:].any()
    assert call["chunk"].tolist() == [9]  # nothing is hidden


def test_the_next_piece_has_the_noise_and_conditions_of_prompt_and_overlap() -> None:
    of = decoder()
    first, second = noise(15, 1), noise(17, 2)
    begun = of.piece([1, 2, 3, 4, 5], PROMPT, first, ONCE)
    kept = np.concatenate([first[:, :, :5], first[:, :, -KEPT:]], 2)
    assert np.array_equal(begun.cache.noise, kept)
    of.piece([4, 5, 6, 7, 8, 9], PROMPT, second, ONCE, begun.cache)
    assert isinstance(of.estimator, Fake)
    before, after = of.estimator.calls
    assert np.array_equal(after["x"][:, :, : 5 + KEPT], kept)
    assert np.array_equal(after["x"][:, :, 5 + KEPT :], second[:, :, 5 + KEPT :])
    overlap = np.concatenate([before["mu"][:, :, :5], before["mu"][:, :, -KEPT:]], 2)
    assert np.array_equal(after["mu"][:, :, : 5 + KEPT], overlap)


def test_without_a_prompt_only_the_overlap_is_kept() -> None:
    alone = Condition(np.ones(3))
    piece = decoder().piece([1, 2, 3], alone, noise(6, 0), ONCE)
    assert piece.cache.mu.shape == (1, MELS, KEPT)
    short = decoder().piece([1], alone, noise(2, 0), ONCE)
    assert short.cache.mu.shape == (1, MELS, 2)


@pytest.mark.parametrize(
    ("tokens", "condition", "message"),
    [
        ([], Condition(np.ones(3)), "too few for a mel frame"),
        ([1], Condition(np.ones(3), [1]), "0 mel frames and 1 speech tokens"),
        ([1], Condition(np.ones(3), [], np.zeros((3, MELS))), "3 mel frames and 0 speech tokens"),
    ],
    ids=["nothing", "tokens alone", "mel alone"],
)
def test_what_cannot_be_decoded_is_refused(
    tokens: list[int], condition: Condition, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        decoder().piece(tokens, condition, noise(9, 0), ONCE)


def test_too_few_tokens_to_continue_with_are_refused() -> None:
    of = decoder()
    begun = of.piece([1, 2, 3, 4], PROMPT, noise(13, 0), ONCE)
    with pytest.raises(UsageError, match="too few to continue"):
        of.piece([1], PROMPT, noise(7, 0), ONCE, begun.cache)


def test_an_utterance_too_long_for_the_memory_is_refused() -> None:
    with pytest.raises(ResourceError, match="an utterance of 105 mel frames"):
        decoder(memory=1 << 20).piece([1] * 50, PROMPT, noise(105, 0), ONCE)


def test_more_frames_than_there_can_be_are_refused() -> None:
    with pytest.raises(UsageError, match="1005 mel frames are more than the 1000"):
        decoder().piece([1] * 500, PROMPT, noise(1005, 0), ONCE)


def test_a_mel_without_numbers_is_an_error() -> None:
    with pytest.raises(GateError, match="NaN or infinite"):
        decoder().piece([1, 2], PROMPT, np.full((1, MELS, 9), np.nan, np.float32), ONCE)


def test_noise_is_drawn_anew_of_a_generator_or_the_same_each_time() -> None:
    of = decoder()
    assert of.frames([1, 2], PROMPT) == 9
    assert np.array_equal(of.start(9), of.start(9))
    drawing = of.drawing(np.random.default_rng(3))
    first = drawing.start(9)
    assert np.array_equal(first, noise(9, 3))
    assert not np.array_equal(first, drawing.start(9))
    assert of.rng is None


def test_a_mel_at_once_is_a_piece_of_the_noise_that_is_drawn() -> None:
    of = decoder().drawing(np.random.default_rng(3))
    tokens = [1, 2, 3, 4, 5]
    piece = decoder().piece(tokens, PROMPT, noise(15, 3), ONCE)
    assert np.array_equal(of.mel(tokens, PROMPT, solver=ONCE), piece.mel)
