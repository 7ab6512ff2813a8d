"""Metrics of a bundle's evaluation with their limits, as records of its manifest.

`verification.gates` says how each metric is measured.
"""

from typing import Literal

import msgspec

from edgepack.bundle.ranges import Count, FileName, Line, Name, Number, Ratio, Struct

Metric = Literal[
    "lm_top1", "lm_agreement", "lm_kld", "mel_l1", "mel_lsd", "si_sdr", "pesq",
    "duration_ratio", "mcd_dtw", "clipped", "silent", "broken", "stream_lsd",
]  # fmt: skip


class Limit(Struct, frozen=True):
    """The range that a metric has to be in; None is for no bound.

    An `optional` limit is ignored where the metric cannot be measured.
    """

    low: Number | None = None
    high: Number | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for a range without a bound, or an empty one."""
        if self.low is None and self.high is None:
            raise ValueError("a limit needs a low or a high end")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"a limit from {self.low:g} to {self.high:g} has nothing in it")


class Measure(Struct, frozen=True):
    """A metric with its 95 % confidence interval `low` to `high`.

    `count` is the number of independent observations: tokens for shares, sentences for the rest.
    """

    value: Number
    low: Number
    high: Number
    count: Count


Values = dict[Metric, Measure]
Limits = dict[Metric, Limit]


def looser(limits: Limits, others: Limits) -> Limits:
    """The limits, each widened to the other one of its metric where that is wider."""
    return {
        metric: _wider(limit, others[metric]) if metric in others else limit
        for metric, limit in limits.items()
    }


def _wider(one: Limit, other: Limit) -> Limit:
    return Limit(
        low=None if one.low is None or other.low is None else min(one.low, other.low),
        high=None if one.high is None or other.high is None else max(one.high, other.high),
        optional=one.optional or other.optional,
    )


class Quality(Struct, frozen=True):
    """How the bundle did in its evaluation when it was built, by runtime.

    `limits` are those of the target for the precisions that the networks of a runtime have.
    `not_measured` are metrics that could not be, such as PESQ without its package. `failed` lists
    what was not reached: such a bundle exists only because it was asked for with
    --allow-failed-gate. `speech_ratio` is the fewest speech tokens a text token of sentences that
    the evaluation heard to their end, left out if there are none.
    """

    exam: FileName
    limits: dict[Name, Limits]
    values: dict[Name, Values]
    not_measured: dict[Name, tuple[Metric, ...]]
    failed: tuple[Line, ...]
    speech_ratio: Ratio | msgspec.UnsetType = msgspec.UNSET
