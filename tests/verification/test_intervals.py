"""Confidence intervals against published values and their own definition."""

import math

import numpy as np
import pytest

from edgepack.verification import evaluation, intervals


def test_a_share_has_wilsons_interval() -> None:
    """Newcombe (1998), table I: 81 of 263, and 0 of 20."""
    found = intervals.share([[1.0] * 81, [0.0] * 182])
    assert (found.low, found.high) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    none = intervals.share([[0.0] * 20])
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(0.1611, abs=5e-5)


def test_four_sentences_cannot_tell_96_from_95_and_an_exam_can() -> None:
    few = intervals.share([[1.0] * 288 + [0.0] * 12])
    assert few.low < 0.95 < few.value
    for share in (0.9, 0.96, 0.99):
        hits = round(evaluation.POSITIONS * share)
        many = intervals.share([[1.0] * hits + [0.0] * (evaluation.POSITIONS - hits)])
        assert many.high - many.low <= 0.04


def test_a_mean_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        found = intervals.mean([[x] for x in rng.normal(3.0, 1.0, 30)])
        covered += found.low <= 3.0 <= found.high
    assert 175 <= covered <= 199


def test_observations_of_one_sentence_count_together() -> None:
    apart = intervals.mean([[x] for x in [0.0, 1.0] * 20])
    together = intervals.mean([[0.0] * 20, [1.0] * 20])
    assert together.high - together.low > apart.high - apart.low
    assert together.count == 2


def test_a_ratio_is_of_sums() -> None:
    found = intervals.ratio([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0]])
    assert found.value == 1.0
    assert found.low < 1.0 < found.high


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("summary", [intervals.mean, intervals.ratio])
def test_what_is_not_finite_says_nothing(summary: object, wrong: float) -> None:
    found = summary([[1.0, 1.0], [wrong, 1.0]])  # type: ignore[operator]
    assert not intervals.finite(found)
    assert found.low < -1e200
    assert found.high > 1e200


def test_the_same_observations_give_the_same_interval() -> None:
    groups = [[x] for x in np.random.default_rng(2).random(12)]
    assert intervals.mean(groups) == intervals.mean(groups)
