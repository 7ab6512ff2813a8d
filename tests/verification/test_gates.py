"""Limits are kept by the worse end of an interval, and by what was measured."""

import re
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from edgepack.bundle.metrics import Limit, Limits, Measure
from edgepack.bundle.stages import Use
from edgepack.model.families.cosyvoice2 import FAMILY
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
    for use in FAMILY.stages.values():
        assert use.judged is not None
        assert gates.part_of(use).judged == use.judged
    assert gates.part_of(Use(role="vocoder")).judged is None  # of speech alone


def test_what_is_close_to_a_limit_is_asked_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two good sentences are no proof; a network that is far from its limits needs no more."""

    def answers(of_later: float) -> Callable[..., Iterator[gates.Answers]]:
        def each(loaded: object, exam: object, numbers: Sequence[int]) -> Iterator[gates.Answers]:
            for number in numbers:
                good = round(20 * (1.0 if number < 2 else of_later))
                yield {"lm_agreement": [1.0] * good + [0.0] * (20 - good)}

        return each

    limit: Limits = {"lm_agreement": Limit(low=0.9)}
    stage = SimpleNamespace(use=Use(role="encoder", judged="flow"))
    manifest = SimpleNamespace(stages={"net": stage})
    loaded: Any = SimpleNamespace(bundle=SimpleNamespace(manifest=manifest))
    for of_later, asked, passes in ((0.9, 50, False), (1.0, 4, True)):
        part = gates.JudgedPart("flow", ("lm_agreement",), answers(of_later), lambda question: True)
        monkeypatch.setattr(gates, "PARTS", (part,))
        values, failed = gates.judge(loaded, [None] * 50, "net", limit)  # type: ignore[list-item]
        assert bool(failed) != passes
        assert values["lm_agreement"].count <= 20 * asked
        assert (values["lm_agreement"].count == 1000) != passes
