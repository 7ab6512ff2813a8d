"""What an examination of a bundle measures, with limits: records of its manifest.

`verification.gates` says how each metric is measured.
"""

from typing import Literal

from edgepack.ranges import Count, FileName, Line, Name, Number, Struct

Metric = Literal[
    "lm_top1", "lm_agreement", "lm_kld", "mel_l1", "mel_lsd", "si_sdr", "pesq",
    "duration_ratio", "mcd_dtw", "clipped", "silent", "broken",
]  # fmt: skip


class Limit(Struct, frozen=True):
    """The range a metric has to be in; None is no end.

    An `optional` one is not asked for where the metric cannot be measured.
    """

    low: Number | None = None
    high: Number | None = None
    optional: bool = False


class Measure(Struct, frozen=True):
    """A metric over `count` observations, with its 95 % confidence interval `low` to `high`."""

    value: Number
    low: Number
    high: Number
    count: Count


Values = dict[Metric, Measure]
Limits = dict[Metric, Limit]


class Quality(Struct, frozen=True):
    """How the bundle did in its exam when it was built, by runtime.

    `limits` are those of the target for the precisions that the networks of a runtime have.
    `not_measured` are metrics that could not be, such as PESQ without its package. `failed` lists
    what was not reached: such a bundle exists only because it was asked for with
    --allow-failed-gate.
    """

    exam: FileName
    limits: dict[Name, Limits]
    values: dict[Name, Values]
    not_measured: dict[Name, tuple[Metric, ...]]
    failed: tuple[Line, ...]
