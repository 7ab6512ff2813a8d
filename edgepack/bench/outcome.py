"""Whether a subject reaches the goals of its target; without a measurement it does not."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from edgepack.bench import joules
from edgepack.bench.result import GoalOutcome, LongStream, Subject
from edgepack.bundle.goals import GoalName, Goals
from edgepack.verification import intervals


@dataclass(frozen=True)
class _Found:
    """A measured value, None if there is none, and how it was measured or why it was not."""

    value: float | None
    how: str = ""


def of(subject: Subject, goals: Goals) -> tuple[GoalOutcome, ...]:
    """The outcome of each goal that the target has, in the order of `Goals`."""
    return tuple(
        _judged(name, limit, figure(subject, limit))
        for name, figure in _FIGURES.items()
        if (limit := getattr(goals, name)) is not None
    )


def _judged(goal: GoalName, limit: float, found: _Found) -> GoalOutcome:
    verdict: Literal["met", "missed", "not measured"] = "not measured"
    if found.value is not None:
        verdict = "met" if found.value <= limit else "missed"
    return GoalOutcome(goal=goal, limit=limit, value=found.value, verdict=verdict, how=found.how)


def _first_audio(subject: Subject, limit: float) -> _Found:
    first = subject.first_audio
    return _Found(first.p95, f"95th percentile of {first.count} streams in a warm process")


def _rtf(subject: Subject, limit: float) -> _Found:
    factor = subject.real_time_factor
    return _Found(factor.p95, f"95th percentile of {factor.count} utterances")


def _long_rtf(subject: Subject, limit: float) -> _Found:
    long_text = subject.long_text
    if long_text is None:
        return _Found(None, "no long text was spoken")
    return _Found(
        long_text.seconds / long_text.audio_seconds, f"{long_text.audio_seconds:.0f} s of audio"
    )


def _peak(subject: Subject, limit: float) -> _Found:
    return _Found(subject.memory.peak_bytes / 1e6, "resident memory of the process")


def _energy(subject: Subject, limit: float) -> _Found:
    energy = subject.energy
    if not energy["available"] or energy["gross_wh_per_audio_min"] is None:
        return _Found(None, joules.missing(energy))
    hours = energy["gross_wh_per_audio_min"]
    if energy["estimate"]:
        return _Found(None, f"~{hours:.3g} Wh is an estimate: {energy['source']}")
    return _Found(hours, f"gross, of {energy['scope']}, {energy['quality']}")


def _interrupted(subject: Subject, limit: float) -> _Found:
    """The share of interrupted streams, if it is on one side of the limit at 95 % confidence."""
    streams = subject.long_streams
    if not streams:
        return _Found(None, "no long text was streamed")
    share = intervals.share([[float(interrupted(stream))] for stream in streams])
    seen = f"{round(share.value * share.count)} of {share.count} long texts interrupted"
    if share.high <= limit or share.low > limit:
        return _Found(share.value, f"{seen}, 95 % interval {_percent(share.low, share.high)}")
    return _Found(
        None,
        f"{seen}, which proves only {_percent(share.low, share.high)}; "
        f"--long-texts {intervals.enough(limit)} would do, if none is",
    )


def interrupted(stream: LongStream) -> bool:
    """Whether the sound stopped before its end: the player had to wait, or there was an error."""
    return bool(stream.waits or stream.fault)


def _percent(low: float, high: float) -> str:
    return f"{100 * low:.3g} to {100 * high:.3g} %"


_FIGURES: Mapping[GoalName, Callable[[Subject, float], _Found]] = {
    "interactive_first_audio_s": _first_audio,
    "first_audio_s": _first_audio,
    "rtf": _rtf,
    "long_rtf": _long_rtf,
    "peak_mb": _peak,
    "wh_per_minute": _energy,
    "interrupted_share": _interrupted,
}
