"""A benchmark's result in short: goals first, then energy, work and long texts."""

from collections.abc import Sequence
from dataclasses import dataclass

from edgepack.bench import joules
from edgepack.bench.outcome import interrupted
from edgepack.bench.result import GoalOutcome, Result, Subject

_GOALS = {  # title, unit, and the factor from the value to that unit
    "interactive_first_audio_s": ("first audio, somebody waits", " s", 1.0),
    "first_audio_s": ("first audio, otherwise", " s", 1.0),
    "rtf": ("RTF", "", 1.0),
    "long_rtf": ("RTF of a long text", "", 1.0),
    "peak_mb": ("peak memory", " MB", 1.0),
    "wh_per_minute": ("energy a minute of speech", " Wh", 1.0),
    "interrupted_share": ("interrupted long texts", " %", 100.0),
}
_MACHINES = {"arm64": "aarch64", "AMD64": "x86_64"}  # what other systems call them
_NONE = {joules.NOT_MEASURED}
_FAR = 2.0  # times a goal: from there on the distance is given as a factor


@dataclass(frozen=True)
class Cell:
    """A goal of one subject: verdict ("" for no goal), and the value and its distance in words."""

    verdict: str
    words: str


def goals(subjects: Sequence[Subject]) -> list[tuple[str, list[Cell]]]:
    """A row for each goal that any subject has: its title, and a cell for every subject."""
    return [
        (title, [_cell(subject, goal) for subject in subjects])
        for goal, (title, *_) in _GOALS.items()
        if any(outcome.goal == goal for subject in subjects for outcome in subject.goals)
    ]


def work(subjects: Sequence[Subject]) -> list[tuple[str, list[str]]]:
    """Energy and how it was measured, core-seconds, long texts and what failed, for each."""
    columns = [_work(subject) for subject in subjects]
    found = [(title, [column[title] for column in columns]) for title in columns[0]]
    return [(t, cells) for t, cells in found if t not in joules.HOW or {*cells} != _NONE]


def notes(result: Result) -> list[str]:
    """How goals were measured or why not, and a warning if this is not the target's machine."""
    found: dict[str, list[str]] = {}
    for subject in result.subjects:
        if not subject.goals:
            found.setdefault("no goals: an older edgepack built it", []).append(subject.name)
        machine = _MACHINES.get(result.environment.machine, result.environment.machine)
        if subject.architecture != machine:
            words = f"figures are of this machine ({machine}), the target's is another kind"
            found.setdefault(f"{words} ({subject.architecture})", []).append(subject.name)
        for outcome in subject.goals:
            if outcome.how:
                title = _GOALS.get(outcome.goal, (outcome.goal,))[0]
                verdict = f"{outcome.verdict}; " if outcome.value is None else ""
                found.setdefault(f"{title}: {verdict}{outcome.how}", []).append(subject.name)
    every = len(result.subjects)
    return [
        words if len(names) == every else f"{', '.join(names)}: {words}"
        for words, names in found.items()
    ]


def _cell(subject: Subject, goal: str) -> Cell:
    outcome = next((o for o in subject.goals if o.goal == goal), None)
    return Cell("", "no goal") if outcome is None else Cell(outcome.verdict, _words(outcome))


def _words(outcome: GoalOutcome) -> str:
    """An outcome in words, such as "met: 0.143 s of 0.2 s, 29 % less"."""
    _, unit, scale = _GOALS[outcome.goal]
    limit = f"{outcome.limit * scale:.4g}{unit}"
    if outcome.value is None:
        return f"{outcome.verdict}, at most {limit}"
    ratio = outcome.value / outcome.limit
    if ratio >= _FAR:
        distance = f"×{ratio:.1f}" if ratio < 10 else f"×{ratio:.0f}"
    else:
        distance = f"{100 * abs(1 - ratio):.0f} % {'more' if ratio > 1 else 'less'}"
    return f"{outcome.verdict}: {outcome.value * scale:.3g}{unit} of {limit}, {distance}"


def _work(subject: Subject) -> dict[str, str]:
    long_text, streams = subject.long_text, subject.long_streams
    spoken, streamed = "not spoken", "not streamed"
    if long_text:
        factor = long_text.seconds / long_text.audio_seconds
        spoken = f"{long_text.audio_seconds:.1f} s of audio, RTF {factor:.3f}"
    if streams:
        waited = max(stream.waited_seconds for stream in streams)
        gaps = sum(stream.waits for stream in streams)
        longest = (
            f" ({gaps} gap{'s' if gaps > 1 else ''}), {waited:.2f} s of silence at most, none if "
            f"players begin {waited:.2f} s later"
            if waited
            else ""
        )
        stopped = sum(interrupted(stream) for stream in streams)
        streamed = f"{len(streams)}, {stopped} interrupted{longest}"
    return {
        **joules.rows(subject.energy),
        "core-seconds a second of audio": f"{subject.core_seconds:.3f}",
        "long text": spoken,
        "long texts streamed": streamed,
        "texts that failed": str(len(subject.failures)),
    }
