"""The result of a benchmark, and its JSON file (schema `edgepack.bench/3`)."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edgepack.bench import joules
from edgepack.bundle.goals import GoalName
from edgepack.bundle.ranges import Count, Line, Magnitude, Number, Positive
from edgepack.energy.measurement import sentence
from edgepack.errors import IntegrityError, UnsupportedError, UsageError
from edgepack.files import charset

SCHEMA = "edgepack.bench/3"
_MAX_BYTES = 64 << 20
# Errors of reading a file: msgspec's are ValueErrors; the rest is of energy, which has no type.
_NO_RESULT = (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, RecursionError)


class ResultPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a result: immutable; unknown fields are refused."""


class Environment(ResultPart, frozen=True):
    """The properties of the machine that determine speed."""

    machine: str
    cpu: str
    isa: tuple[str, ...]
    kinds: dict[Line, Line]
    allowed: str
    quota_cpus: Magnitude | None
    governor: str | None
    memory_bytes: Count | None
    system: str
    python: str


class Percentiles(ResultPart, frozen=True):
    """The 50th, 90th and 95th percentile of `count` figures."""

    p50: Magnitude
    p90: Magnitude
    p95: Magnitude
    count: Count


class UtteranceTiming(ResultPart, frozen=True):
    """One spoken text: seconds of audio, seconds of work in all and by stage, speech tokens."""

    text: str
    audio_seconds: Positive
    seconds: Magnitude
    stages: dict[Line, Magnitude]
    speech_tokens: Count


class Failure(ResultPart, frozen=True):
    """A text that could not be spoken, and why."""

    text: str
    message: str


class StageMemory(ResultPart, frozen=True):
    """Bytes that loading a stage added, and the process' peak around its calls in one utterance.

    `loaded_bytes` is 0 if loading freed more than it added. `peak_bytes` is the largest resident
    size from the end of the previous call of any network to the end of this stage's, so that the
    making of its inputs is included; the largest over its calls. It is None if the stage was not
    called or the system cannot reset a peak.
    """

    loaded_bytes: Count
    peak_bytes: Count | None


class MemoryUse(ResultPart, frozen=True):
    """Resident bytes of a subject's process: after loading, at its peak, and by stage."""

    loaded_bytes: Count
    peak_bytes: Count
    stages: dict[str, StageMemory]


class Point(ResultPart, frozen=True):
    """Evaluations of the flow estimator for one row, and the error in dB."""

    evaluations: Count
    decibel: Magnitude


class SolverUsed(ResultPart, frozen=True):
    """How the ODE of the flow decoder was solved.

    `curve` has the errors of all tables that were tried when the bundle was built, `limit` is the
    largest error allowed, in dB, and `original` is the checkpoint's own solver with the fp32
    networks. They are empty or None if nothing was calibrated.
    """

    name: str
    evaluations: Count
    curve: tuple[Point, ...] = ()
    limit: Magnitude | None = None
    original: Point | None = None


class AtOnce(ResultPart, frozen=True):
    """Several callers at once: seconds of audio made in a second, and the latency of a request.

    `gain` is this throughput divided by that of a single caller. `rows` is how many utterances were
    decoded in one call at most.
    """

    callers: Count
    audio_seconds_a_second: Magnitude
    gain: Magnitude
    latency: Percentiles
    rows: Count = 1


class LongStream(ResultPart, frozen=True):
    """A long text, streamed to a player that begins with the first chunk of audio.

    `waits` is how often the player had nothing left to play before the end, `waited_seconds` the
    silence in all. `fault` is the error that ended the stream, "" if it came to its end.
    """

    first_audio_seconds: Magnitude
    audio_seconds: Magnitude
    waits: Count
    waited_seconds: Magnitude
    fault: str = ""


class GoalOutcome(ResultPart, frozen=True):
    """The outcome of one goal (`edgepack.bundle.goals`): `limit` is the most it may be.

    `value` is None if it was not measured; `how` says how it was, or why it was not.
    """

    goal: GoalName
    limit: Magnitude
    value: Magnitude | None
    verdict: Literal["met", "missed", "not measured"]
    how: str


class Subject(ResultPart, frozen=True):
    """A bundle in one runtime.

    `real_time_factor` is of whole utterances, `first_audio` of streams in a warm process,
    `cold_first_audio_seconds` from the start of a process, files in the page cache.
    `core_seconds` is CPU time of the process for a second of audio. `goals` are the outcomes of the
    target's goals, empty if an older edgepack built the bundle.
    `speed` is the first subject's median RTF divided by this one's: above 1 is faster.
    `energy` is a record of `energy.measurement`, its figures medians of windows.
    `providers` says where each network ran. `operators` is seconds by stage and operator type,
    `operators_missing` why there are none of some stages or of all.
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
    load_seconds: Magnitude
    cold_first_audio_seconds: Magnitude
    spoken: tuple[UtteranceTiming, ...]
    real_time_factor: Percentiles
    first_audio: Percentiles
    stages: dict[Line, Magnitude]
    tokens_per_second: Magnitude | None
    speed: Magnitude
    core_seconds: Magnitude
    memory: MemoryUse
    energy: dict[str, Any]
    quality: dict[Line, Number]
    solver: SolverUsed
    at_once: AtOnce | None
    failures: tuple[Failure, ...]
    long_text: UtteranceTiming | None
    long_streams: tuple[LongStream, ...]
    goals: tuple[GoalOutcome, ...]
    operators: dict[Line, dict[Line, Magnitude]]
    operators_missing: str


class Result(ResultPart, frozen=True):
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
    """Read a result; raises an EdgepackError if the file is invalid or of another schema."""
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
