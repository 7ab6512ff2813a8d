"""Limits are kept by the worse end of an interval, and by what was measured."""

import re

import pytest

from edgepack.metrics import Limit, Measure
from edgepack.verification import gates


def measure(value: float, low: float, high: float) -> Measure:
    return Measure(value=value, low=low, high=high, count=9)


@pytest.mark.parametrize(
    ("found", "limit", "words"),
    [
        (measure(0.97, 0.955, 0.98), Limit(low=0.96), r"is 0\.97 \(0\.955 to 0\.98\), at least 0"),
        (measure(0.97, 0.961, 0.98), Limit(low=0.96), ""),
        (measure(0.9, 0.7, 1.2), Limit(high=1.0), "at most 1 is asked for"),
        (measure(1.0, 0.85, 1.05), Limit(low=0.9, high=1.1), "at least 0.9 and at most 1.1"),
        (measure(1.0, 0.95, 1.05), Limit(low=0.9, high=1.1), ""),
        (measure(1e300, -1e300, 1e300), Limit(low=0.9), "at least"),
        (measure(1e300, -1e300, 1e300), Limit(high=0.9), "at most"),
    ],
)
def test_the_worse_end_counts(found: Measure, limit: Limit, words: str) -> None:
    failed = gates.failures({"lm_kld": found}, {"lm_kld": limit})
    assert len(failed) == bool(words)
    for text in failed:
        assert re.search(words, text)


def test_what_was_not_measured_keeps_no_limit() -> None:
    assert gates.failures({}, {"si_sdr": Limit(low=20)}) == [
        "si_sdr was not measured, at least 20 is asked for"
    ]
    assert gates.failures({}, {"pesq": Limit(low=4.0, optional=True)}) == []
    low = {"pesq": measure(3.0, 2.9, 3.1)}
    assert gates.failures(low, {"pesq": Limit(low=4.0, optional=True)})


def test_every_network_and_metric_has_a_part() -> None:
    metrics = [metric for part in gates.PARTS for metric in part.metrics]
    assert len(metrics) == len(set(metrics))
    assert gates.not_measured({}) == tuple(metrics)
    for stage in gates.STAGES:
        assert stage in gates.part_of(stage).stages
        assert gates.part_of(stage) is not gates.PARTS[-1]
