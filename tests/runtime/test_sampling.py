"""The choice of the next token: nucleus, repetition rule, draws of the original."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from repeatable import repeatable
from support import GOLDEN, RECORDED

from edgepack.bundle.host import Sampling
from edgepack.runtime.stages.sampling import (
    greedy,
    inverse_cdf,
    log_softmax,
    nucleus,
    repetition_aware,
)

SETTINGS = Sampling(top_p=0.8, top_k=25, window=10, repetition=0.1)
ALMOST_ONE = 1 - 2**-53
RUNS = ("ras", "ras_noprompt", "ras_rep")

# Shares that often tie and often are zero, as those of masked ids are.
SHARES = st.lists(st.integers(0, 5), min_size=1, max_size=40).filter(any)
UNIFORMS = st.one_of(st.just(0.0), st.just(ALMOST_ONE), st.floats(0, ALMOST_ONE))


def recorded(model: str) -> Mapping[str, np.ndarray]:
    return np.load(GOLDEN / model / "lm.npz")


def distribution(shares: Sequence[float]) -> np.ndarray:
    values = np.array(shares, np.float32)
    return values / values.sum()


def logs(shares: Sequence[float]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(distribution(shares))


def slow_nucleus(probabilities: np.ndarray, top_p: float, top_k: int) -> list[int]:
    """The original's loop: the test comes before an id is added."""
    taken: list[int] = []
    reached = np.float32(0)
    for i in sorted(range(probabilities.size), key=lambda i: -probabilities[i]):
        if not (reached < np.float32(top_p) and len(taken) < top_k):
            break
        reached += probabilities[i]
        taken.append(i)
    return taken


@repeatable
@given(SHARES, st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]), st.integers(1, 30))
def test_nucleus_is_that_of_the_original_loop(
    shares: list[float], top_p: float, top_k: int
) -> None:
    probabilities = distribution(shares)
    wanted = slow_nucleus(probabilities, top_p, top_k) or [int(probabilities.argmax())]
    assert nucleus(probabilities, top_p, top_k).tolist() == wanted


@repeatable
@given(SHARES, UNIFORMS)
def test_a_draw_is_the_first_share_above_the_uniform_number(
    shares: list[float], uniform: float
) -> None:
    index = inverse_cdf(lambda: uniform)(np.array(shares, np.float32))
    assert shares[index] > 0
    assert sum(shares[:index]) <= uniform * sum(shares) < sum(shares[: index + 1])


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("model", RECORDED)
def test_nucleus_draws_of_the_original_come_out_again(model: str, run: str) -> None:
    v = recorded(model)
    rows = zip(*(v[f"{run}_{name}"] for name in ("u", "u_n", "u_idx", "nucleus_p")), strict=True)
    nuclei = [row for row in rows if row[1] <= SETTINGS.top_k]
    uniforms = iter(float(row[0]) for row in nuclei)
    draw = inverse_cdf(lambda: next(uniforms))
    assert len(nuclei) > 20
    assert all(draw(weights[:count]) == index for _, count, index, weights in nuclei)


@pytest.mark.parametrize("model", RECORDED)
def test_first_token_of_the_original_comes_out_again(model: str) -> None:
    v = recorded(model)
    log_probabilities = log_softmax(v["prefill_logits_last"][0])
    np.testing.assert_allclose(log_probabilities, v["prefill_logp_last"][0], atol=1e-5)
    end = log_probabilities.size - 3
    log_probabilities[end] = -np.inf
    seen: list[np.ndarray] = []

    def draw(weights: np.ndarray) -> int:
        seen.append(weights / weights.sum())
        return inverse_cdf(lambda: float(v["ras_u"][0]))(weights)

    assert repetition_aware(SETTINGS, draw)(log_probabilities, []) == v["ras_tokens"][0]
    np.testing.assert_allclose(seen[0], v["ras_nucleus_p"][0, : v["ras_u_n"][0]], atol=1e-6)


@pytest.mark.parametrize(
    ("history", "repetition", "draws"),
    [
        ([], 0.1, 1),
        ([0], 0.1, 2),
        ([0, *[9] * 9], 0.1, 2),
        ([0, *[9] * 10], 0.1, 1),
        ([0, *[9] * 5], 0.2, 1),
        ([0, *[9] * 5, 0], 0.2, 2),
    ],
    ids=["nothing", "just now", "in window", "before window", "once of two", "twice"],
)
def test_an_id_repeated_in_the_window_is_drawn_anew(
    history: list[int], repetition: float, draws: int
) -> None:
    settings = Sampling(top_p=0.8, top_k=25, window=10, repetition=repetition)
    weights: list[np.ndarray] = []

    def first(candidates: np.ndarray) -> int:
        weights.append(candidates)
        return 0

    def last(candidates: np.ndarray) -> int:
        weights.append(candidates)
        return candidates.size - 1 if len(weights) == 2 else 0

    shares = logs([60, 20, 10, 8, 2])
    before = shares.copy()
    repetition_aware(settings, first)(shares, history)
    assert len(weights) == draws
    assert np.array_equal(shares, before)
    weights.clear()
    chosen = repetition_aware(settings, last)(shares, history)
    assert chosen == (0 if draws == 1 else 4)
    if draws == 2:  # over all other ids, far beyond the nucleus
        np.testing.assert_allclose(weights[1], np.array([0, 50, 25, 20, 5]) / 100, rtol=1e-5)


def test_the_second_draw_is_final() -> None:
    replies = iter([0, 1])
    sample = repetition_aware(SETTINGS, lambda weights: next(replies))
    assert sample(logs([5, 4, 1]), [0, 1]) == 1


@pytest.mark.parametrize(
    ("history", "wanted"),
    [
        ([], [50 / 85, 35 / 85, 0, 0, 0]),
        ([0], [0, 35 / 85 + 50 / 85 * 35 / 50, *(50 / 85 * x / 50 for x in (10, 3, 2))]),
    ],
    ids=["nucleus", "repetition"],
)
def test_ids_are_as_frequent_as_they_should_be(history: list[int], wanted: list[float]) -> None:
    count, probabilities = 6000, np.array(wanted)
    sample = repetition_aware(SETTINGS, inverse_cdf(np.random.default_rng(3).random))
    shares = logs([50, 35, 10, 3, 2])
    found = np.bincount([sample(shares, history) for _ in range(count)], minlength=5) / count
    deviation = np.sqrt(probabilities * (1 - probabilities) / count)
    assert (np.abs(found - probabilities) <= 4 * deviation).all()


@repeatable
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30))
def test_log_probabilities_add_up_to_one(values: list[float]) -> None:
    logits = np.array(values, np.float32)
    found = log_softmax(logits)
    assert found.dtype == np.float32
    assert np.exp(found.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
    assert found[greedy(found, [])] == found.max()
