"""What a benchmark found, in a file of a fixed form (`edgepack.bench/3`)."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edgepack import charset
from edgepack.bench import joules
from edgepack.errors import IntegrityError, UnsupportedError, UsageError
from edgepack.goals import GoalName
from edgepack.ranges import Count, Line, Measure, Number, Positive
from edgepack.runtime.energy import sentence

SCHEMA = "edgepack.bench/3"
_MAX_BYTES = 64 << 20
# What reading one ends in: msgspec's errors are ValueErrors; a record of energy has no type.
_NO_RESULT = (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError)


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a result: immutable, and closed to unknown fields."""


class Environment(Record, frozen=True):
    """The machine: what decides about speed."""

    machine: str
    cpu: str
    isa: tuple[str, ...]
    kinds: dict[Line, Line]
    allowed: str
    quota_cpus: Measure | None
    governor: str | None
    memory_bytes: Count | None
    system: str
    python: str


class Percentiles(Record, frozen=True):
    """Of `count` figures."""

    p50: Measure
    p90: Measure
    p95: Measure
    count: Count


class Spoken(Record, frozen=True):
    """One utterance: seconds of audio, of work by stage, and speech tokens."""

    text: str
    audio_seconds: Positive
    seconds: Measure
    stages: dict[Line, Measure]
    speech_tokens: Count


class Failure(Record, frozen=True):
    """A text that could not be spoken, and why."""

    text: str
    message: str


class StageMemory(Record, frozen=True):
    """Bytes that loading a stage added, and the process' peak with it, in one utterance.

    It may have freed more than it added: then it added none.

    The peak begins where the call of any network ended and ends with this stage's own: what the
    host did in between, such as making its inputs, is counted in. The largest of its calls; None
    if it was not called, or the system cannot begin a peak again.
    """

    loaded_bytes: Count
    peak_bytes: Count | None


class Memory(Record, frozen=True):
    """Resident bytes of a subject's process: with everything loaded, at its peak, by stage."""

    loaded_bytes: Count
    peak_bytes: Count
    stages: dict[str, StageMemory]


class Point(Record, frozen=True):
    """Evaluations of the flow estimator for one row, and the error in dB."""

    evaluations: Count
    decibel: Measure


class SolverUsed(Record, frozen=True):
    """How the ODE of the flow decoder was solved.

    `curve` is what other tables gave when the bundle was built, `limit` what was allowed, in dB,
    `original` the checkpoint's own solver with the fp32 networks; none if nothing was calibrated.
    """

    name: str
    evaluations: Count
    curve: tuple[Point, ...] = ()
    limit: Measure | None = None
    original: Point | None = None


class AtOnce(Record, frozen=True):
    """Utterances of several callers at once: seconds of audio a second, and how long one waits.

    `gain` is that throughput by the one of a single caller.
    """

    callers: Count
    audio_seconds_a_second: Measure
    gain: Measure
    latency: Percentiles


class LongStream(Record, frozen=True):
    """A long text, streamed to a player that begins with the first audio and never stops by itself.

    `waits` is how often all that had come was played and the text was not at its end, with
    `waited_seconds` of silence in all. `fault` is what it ended in, "" if it came to its end.
    """

    first_audio_seconds: Measure
    audio_seconds: Measure
    waits: Count
    waited_seconds: Measure
    fault: str = ""


class Outcome(Record, frozen=True):
    """What came of one of the goals (`edgepack.goals`), which are the most a figure may be.

    `value` is None if it was not measured; `how` says how it was, or why it was not.
    """

    goal: GoalName
    limit: Measure
    value: Measure | None
    verdict: Literal["met", "missed", "not measured"]
    how: str


class Subject(Record, frozen=True):
    """A bundle in one runtime.

    `real_time_factor` is of whole utterances, `first_audio` of streams in a warm process,
    `cold_first_audio_seconds` from the start of a process, files in the page cache.
    `core_seconds` is CPU time of the process for a second of audio. `goals` has those of the
    bundle's target, none if an older edgepack built it.
    `speed` is the first subject's median RTF by this one's: above 1 is faster than the first.
    `energy` is a record of `runtime.energy`, its figures medians of windows.
    `providers` says where each network ran. `operators` is seconds by stage and operator type,
    `operators_missing` why there are none.
    """

    name: str
    bundle: str
    target: str
    architecture: Line
    language: str
    runtime: str
    runtime_version: str
    recipes: dict[Line, Line]
    bytes: Count
    threads: Count
    providers: dict[Line, Line]
    pinned: bool
    masks: dict[Line, Count]
    load_seconds: Measure
    cold_first_audio_seconds: Measure
    spoken: tuple[Spoken, ...]
    real_time_factor: Percentiles
    first_audio: Percentiles
    stages: dict[Line, Measure]
    tokens_per_second: Measure | None
    speed: Measure
    core_seconds: Measure
    memory: Memory
    energy: dict[str, Any]
    quality: dict[Line, Number]
    solver: SolverUsed
    at_once: AtOnce | None
    failures: tuple[Failure, ...]
    long_text: Spoken | None
    long_streams: tuple[LongStream, ...]
    goals: tuple[Outcome, ...]
    operators: dict[Line, dict[Line, Measure]]
    operators_missing: str


class Result(Record, frozen=True):
    """One run of `edgepack bench`."""

    schema: str
    edgepack: str
    taken: str
    rounds: Count
    warm_up: Count
    seed: int
    environment: Environment
    subjects: Annotated[tuple[Subject, ...], Meta(min_length=1)]


def read(path: Path) -> Result:
    """A result from its file; raises an EdgepackError if it is none or of a newer schema."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise IntegrityError(f"{path}: larger than {_MAX_BYTES >> 20} MiB; refused")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    try:
        tree = msgspec.json.decode(charset.unmarked(data))
        if isinstance(tree, dict) and tree.get("schema") not in (SCHEMA, None):
            raise UnsupportedError(
                f"{path}: schema {str(tree['schema'])[:40]!r}, this edgepack reads {SCHEMA}"
            )
        found = msgspec.convert(tree, Result)
        for subject in found.subjects:
            sentence(subject.energy)
            joules.rows(subject.energy)
        return found
    except _NO_RESULT as error:
        raise IntegrityError(f"{path}: not a result of 'edgepack bench' ({error})") from None
