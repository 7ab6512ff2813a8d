"""Goals of a target: measured and by how much, and never met by what was not measured."""

from typing import Any

import msgspec
import pytest

from bench.test_page import result, subject
from edgepack.bench import joules, outcome, page, summary
from edgepack.bench.result import GoalOutcome, LongStream, Subject, UtteranceTiming
from edgepack.bundle.goals import Goals
from edgepack.verification import intervals

LONG = UtteranceTiming(text="a", audio_seconds=40.0, seconds=10.0, stages={}, speech_tokens=9)
FINE = LongStream(first_audio_seconds=0.5, audio_seconds=40.0, waits=0, waited_seconds=0.0)
DRY = msgspec.structs.replace(FINE, waits=2, waited_seconds=1.5)
FAULTY = msgspec.structs.replace(FINE, fault="runaway")


def judged(goals: Goals, *, metered: bool = False, **parts: Any) -> Subject:
    made = msgspec.structs.replace(subject("x ort", 1.0, metered=metered), **parts)
    return msgspec.structs.replace(made, goals=outcome.of(made, goals))


def of(found: Subject, goal: str) -> GoalOutcome:
    return next(o for o in found.goals if o.goal == goal)


def test_each_goal_is_judged_by_its_figure() -> None:
    found = judged(Goals(peak_mb=2000), metered=True, long_text=LONG)
    verdicts = {o.goal: (o.verdict, o.value) for o in found.goals}
    assert verdicts == {
        "interactive_first_audio_s": ("missed", pytest.approx(0.6)),  # the 95th percentile
        "first_audio_s": ("met", pytest.approx(0.6)),
        "rtf": ("met", 1.0),
        "long_rtf": ("met", 0.25),
        "peak_mb": ("met", 900.0),
        "wh_per_minute": ("met", pytest.approx(2.5 / 60)),
        "interrupted_share": ("not measured", None),
    }
    assert of(judged(Goals(peak_mb=800)), "peak_mb").verdict == "missed"
    assert [o.goal for o in judged(Goals(rtf=None)).goals][:3] == [
        "interactive_first_audio_s", "first_audio_s", "long_rtf",
    ]  # fmt: skip


def test_what_was_not_measured_is_never_met() -> None:
    found = judged(Goals())
    for goal in ("long_rtf", "wh_per_minute", "interrupted_share"):
        assert (of(found, goal).verdict, of(found, goal).value) == ("not measured", None)
        assert of(found, goal).how
    estimate = {**subject("x", 1.0, metered=True).energy, "estimate": True, "source": "CPU time"}
    assert of(judged(Goals(), energy=estimate), "wh_per_minute") == GoalOutcome(
        goal="wh_per_minute", limit=10.0, value=None, verdict="not measured",
        how="~0.0417 Wh is an estimate: CPU time",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("streams", "verdict", "words"),
    [
        ([], "not measured", "no long text was streamed"),
        ([FINE], "not measured", "0 of 1 long texts interrupted, which proves only 0 to 79.3 %"),
        ([FINE] * 1000, "not measured", "--long-texts 3838 would do, if none is"),
        ([FINE] * 3838, "met", "0 of 3838 long texts interrupted, 95 % interval 0 to 0.1 %"),
        ([DRY], "missed", "1 of 1 long texts interrupted"),
        ([FINE] * 99 + [FAULTY], "missed", "1 of 100 long texts interrupted"),
    ],
)
def test_interrupted_long_texts_need_enough_of_them(
    streams: list[LongStream], verdict: str, words: str
) -> None:
    found = of(judged(Goals(), long_streams=tuple(streams)), "interrupted_share")
    assert found.verdict == verdict
    assert words in found.how


def test_so_many_are_enough_and_not_one_less() -> None:
    for limit in (0.001, 0.01, 0.2):
        count = intervals.enough(limit)
        assert intervals.share([[0.0]] * count).high <= limit
        assert intervals.share([[0.0]] * (count - 1)).high > limit


def test_a_cell_says_by_how_much() -> None:
    found = judged(Goals(rtf=0.8, first_audio_s=0.2), metered=True, long_text=LONG)
    words = {title: cells[0].words for title, cells in summary.goals([found])}
    assert words == {
        "first audio, somebody waits": "missed: 0.6 s of 0.2 s, ×3.0",
        "first audio, otherwise": "missed: 0.6 s of 0.2 s, ×3.0",
        "RTF": "missed: 1 of 0.8, 25 % more",
        "RTF of a long text": "met: 0.25 of 1, 75 % less",
        "energy a minute of speech": "met: 0.0417 Wh of 10 Wh, 100 % less",
        "interrupted long texts": "not measured, at most 0.1 %",
    }


def test_energy_is_in_three_units_with_how_it_was_measured() -> None:
    found = dict(summary.work([judged(Goals(), metered=True, long_text=LONG, long_streams=(DRY,))]))
    assert {title: cells[0] for title, cells in found.items()} == {
        "energy an utterance": "8 J, net 1 J",
        "energy a second of audio": "2.5 J, net 0.5 J",
        "energy a minute of speech": "0.0417 Wh, net 0.00833 Wh",
        "energy: sensor": "rapl: rapl",
        "energy: boundary": "package, measured",
        "energy: window, idle": "3.0 s, 60 updates; net: 4 W of idle subtracted",
        "core-seconds a second of audio": "0.750",
        "long text": "40.0 s of audio, RTF 0.250",
        "long texts streamed": (
            "1, 1 interrupted (2 gaps), 1.50 s of silence at most, "
            "none if players begin 1.50 s later"
        ),
        "texts that failed": "1",
    }


def test_energy_without_idle_a_meter_or_certainty() -> None:
    record = subject("x", 1.0, metered=True).energy
    gross = {name: None if name.startswith("net") else value for name, value in record.items()}
    assert joules.rows(gross)["energy a second of audio"] == "2.5 J"
    assert joules.rows(gross)["energy: window, idle"].endswith("idle not subtracted")
    estimate = joules.rows({**gross, "estimate": True, "method": "model", "source": "CPU time"})
    assert estimate["energy a second of audio"] == "~2.5 J"
    assert estimate["energy: sensor"] == "ESTIMATE, model: CPU time"
    assert set(joules.rows({"available": False}).values()) == {"not measured"}
    titles = [title for title, _ in summary.work([subject("x", 1.0)])]
    assert "energy an utterance" in titles
    assert not set(joules.HOW) & set(titles)  # nothing to say of a meter that nobody has


def test_goals_come_first_on_the_page_and_say_what_they_are_of() -> None:
    first = judged(Goals(), metered=True, architecture="aarch64")
    second = msgspec.structs.replace(subject("y ort", 1.0), goals=())
    text = page.render([result(first, second)])
    order = [text.index(words) for words in (
        "<h2>Goals", "missed: 0.6 s of 0.2 s, ×3.0", "<h2>Energy and work", "<h2>Figures",
        "<h2>Plots",
    )]  # fmt: skip
    assert order == sorted(order)
    assert 'class="not-measured">not measured, at most 0.1 %' in text
    assert ">no goal<" in text
    assert "y ort: no goals: an older edgepack built it" in text
    assert "x ort: figures are of this machine (x86_64)" in text
    assert "energy a minute of speech: gross, of package, measured" in text
