"""Metrics with 95 % confidence intervals, which are wide where observations are few."""

import math
from collections.abc import Sequence

import numpy as np

from edgepack.bundle.metrics import Measure

_Z = 1.959964  # the normal distribution's 97.5 % quantile
_RESAMPLES, _SEED, _TAILS = 1000, 0, (2.5, 97.5)
_HUGE = 1e300  # JSON has no infinity

Groups = Sequence[Sequence[float]]  # observations, those of one sentence together


def share(groups: Groups) -> Measure:
    """The share of ones among zeros and ones, with Wilson's score interval (1927)."""
    count = sum(map(len, groups))
    if not count:
        return _unknown(0)
    found = sum(map(sum, groups)) / count
    around = found + _Z**2 / (2 * count)
    half = _Z * math.sqrt(found * (1 - found) / count + _Z**2 / (4 * count**2))
    low, high = ((around + sign * half) / (1 + _Z**2 / count) for sign in (-1, 1))
    # Rounding may put the ends of the interval slightly outside of 0 and 1.
    return Measure(value=found, low=max(0.0, low), high=min(1.0, high), count=count)


def enough(limit: float) -> int:
    """How many observations, if all are zero, show with 95 % confidence a share up to `limit`."""
    return math.ceil(_Z**2 * (1 - limit) / limit)


def mean(groups: Groups) -> Measure:
    """The mean of all observations; its interval is the bootstrap's over groups, two at least."""
    return _resampled([(sum(group), float(len(group))) for group in groups])


def ratio(groups: Groups) -> Measure:
    """Σ first / Σ second over groups that are pairs; its interval is the bootstrap's over pairs."""
    return _resampled([(group[0], group[1]) for group in groups])


def largest(groups: Groups) -> Measure:
    """The largest observation. Its interval is the value itself."""
    return _seen(float(np.max([value for group in groups for value in group])), len(groups))


def smallest(groups: Groups) -> Measure:
    """The smallest observation. Its interval is the value itself."""
    return _seen(float(np.min([value for group in groups for value in group])), len(groups))


def total(groups: Groups) -> Measure:
    """The sum of all observations. Its interval is the value itself."""
    return _seen(float(sum(map(sum, groups))), len(groups))


def rounded(measure: Measure) -> Measure:
    """The measure rounded to three significant digits."""
    return Measure(
        value=digits(measure.value),
        low=digits(measure.low),
        high=digits(measure.high),
        count=measure.count,
    )


def finite(measure: Measure) -> bool:
    """Whether the value is known: all observations were finite."""
    return -_HUGE < measure.value < _HUGE


def digits(value: float) -> float:
    """Three significant digits; what is not finite becomes the largest number of its sign."""
    return float(f"{value:.3g}") if math.isfinite(value) else math.copysign(_HUGE, value)


def _seen(value: float, count: int) -> Measure:
    if not math.isfinite(value):
        return _unknown(count)
    return Measure(value=value, low=value, high=value, count=count)


def _unknown(count: int) -> Measure:
    """An unknown value, since observations were missing or not finite: it is within no limit."""
    return Measure(value=_HUGE, low=-_HUGE, high=_HUGE, count=count)


def _resampled(pairs: Sequence[tuple[float, float]]) -> Measure:
    """Σ first / Σ second, with the percentile bootstrap's interval (Efron, 1979) over pairs."""
    table = np.array(pairs, np.float64).reshape(-1, 2)
    if len(table) < 2 or not np.isfinite(table).all() or not (table[:, 1].sum() > 0):
        return _unknown(len(table))
    draws = np.random.default_rng(_SEED).integers(len(table), size=(_RESAMPLES, len(table)))
    sums = table[draws].sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = np.nanpercentile(sums[:, 0] / sums[:, 1], _TAILS)
    first, second = table.sum(0)
    return Measure(value=float(first / second), low=float(low), high=float(high), count=len(table))
