"""Mel frames between speech tokens."""

import numpy as np
import pytest

from edgepack.runtime.stages.length_regulation import FrameRate, stretched

FAST = FrameRate(tokens=50, sample_rate=22050, hop=256, margin=20)
SLOW = FrameRate(tokens=25, sample_rate=22050, hop=256, margin=20)


@pytest.mark.parametrize(
    ("rate", "tokens", "frames"),
    [
        (FAST, 0, 0),
        (FAST, 1, 1),
        (FAST, 20, 34),
        (FAST, 260, 447),
        (SLOW, 20, 68),
        (SLOW, 130, 447),
    ],
)
def test_frames_are_whole_ones(rate: FrameRate, tokens: int, frames: int) -> None:
    assert rate.frames(tokens) == frames


@pytest.mark.parametrize(("count", "frames"), [(17, 29), (33, 56), (5, 5), (1, 4), (40, 7)])
def test_values_are_interpolated_between_centres(count: int, frames: int) -> None:
    """The value of a frame is that of the piecewise linear function at its centre."""
    values = np.random.default_rng(0).standard_normal(count)
    left, right, share = stretched(count, frames)
    found = values[left] + (values[right] - values[left]) * share
    centres = (np.arange(count) + 0.5) / count
    wanted = np.interp((np.arange(frames) + 0.5) / frames, centres, values)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert [str(value.dtype) for value in (left, right, share)] == ["int64", "int64", "float32"]
    assert share.min() >= 0
    assert share.max() < 1


def test_a_prompt_and_both_margins_have_lengths_of_their_own() -> None:
    places = FAST.places(61, prompt_tokens=17, prompt_frames=29)
    borders = [(17, 29), (20, 34), (21, 105 - 68), (20, 34)]
    assert len(places.left) == 29 + FAST.frames(61)
    token = frame = 0
    for tokens, frames in borders:  # no frame lies between tokens of two parts
        part = slice(frame, frame + frames)
        assert places.left[part].min() == token
        assert places.right[part].max() == token + tokens - 1
        token, frame = token + tokens, frame + frames


def test_few_tokens_have_one_length() -> None:
    places = FAST.places(40)
    whole = stretched(40, FAST.frames(40))
    assert all(np.array_equal(a, b) for a, b in zip(places, whole, strict=True))
    split = FAST.places(41)
    whole = stretched(41, FAST.frames(41))
    assert not np.array_equal(split.share, whole.share)
