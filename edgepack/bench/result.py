"""What a benchmark found, in a file of a fixed form (`edgepack.bench/2`)."""

from pathlib import Path
from typing import Any

import msgspec

from edgepack.errors import IntegrityError, UnsupportedError, UsageError

SCHEMA = "edgepack.bench/2"


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a result: immutable, and closed to unknown fields."""


class Environment(Record, frozen=True):
    """The machine: what decides about speed."""

    machine: str
    cpu: str
    isa: tuple[str, ...]
    kinds: dict[str, str]
    allowed: str
    quota_cpus: float | None
    governor: str | None
    memory_bytes: int | None
    system: str
    python: str


class Percentiles(Record, frozen=True):
    """Of `count` figures."""

    p50: float
    p90: float
    p95: float
    count: int


class Spoken(Record, frozen=True):
    """One utterance: seconds of audio, of work by stage, and speech tokens."""

    text: str
    audio_seconds: float
    seconds: float
    stages: dict[str, float]
    speech_tokens: int


class Failure(Record, frozen=True):
    """A text that could not be spoken, and why."""

    text: str
    message: str


class StageMemory(Record, frozen=True):
    """Bytes that loading a stage added, and the process' peak while it ran."""

    loaded_bytes: int
    peak_bytes: int | None


class Memory(Record, frozen=True):
    """Resident bytes of a subject's process: with everything loaded, at its peak, by stage."""

    loaded_bytes: int
    peak_bytes: int
    stages: dict[str, StageMemory]


class Point(Record, frozen=True):
    """Evaluations of the flow estimator for one row, and the error in dB."""

    evaluations: int
    decibel: float


class SolverUsed(Record, frozen=True):
    """How the ODE of the flow decoder was solved.

    `curve` is what other tables gave when the bundle was built, `limit` what was allowed, in dB,
    `original` the checkpoint's own solver with the fp32 networks; none if nothing was calibrated.
    """

    name: str
    evaluations: int
    curve: tuple[Point, ...] = ()
    limit: float | None = None
    original: Point | None = None


class AtOnce(Record, frozen=True):
    """Utterances of several callers at once: seconds of audio a second, and how long one waits.

    `gain` is that throughput by the one of a single caller.
    """

    callers: int
    audio_seconds_a_second: float
    gain: float
    latency: Percentiles


class Subject(Record, frozen=True):
    """A bundle in one runtime.

    `real_time_factor` is of whole utterances, `first_audio` of streams in a warm process,
    `cold_first_audio_seconds` from the start of a process, files in the page cache.
    `speed` is the first subject's median RTF by this one's: above 1 is faster than the first.
    `energy` is a record of `runtime.energy`, its figures medians of windows.
    `providers` says where each network ran. `operators` is seconds by stage and operator type,
    `operators_missing` why there are none.
    """

    name: str
    bundle: str
    target: str
    language: str
    runtime: str
    runtime_version: str
    recipes: dict[str, str]
    bytes: int
    threads: int
    providers: dict[str, str]
    pinned: bool
    masks: dict[str, int]
    load_seconds: float
    cold_first_audio_seconds: float
    spoken: tuple[Spoken, ...]
    real_time_factor: Percentiles
    first_audio: Percentiles
    stages: dict[str, float]
    tokens_per_second: float | None
    speed: float
    memory: Memory
    energy: dict[str, Any]
    quality: dict[str, float]
    solver: SolverUsed
    at_once: AtOnce | None
    failures: tuple[Failure, ...]
    long_text: Spoken | None
    operators: dict[str, dict[str, float]]
    operators_missing: str


class Result(Record, frozen=True):
    """One run of `edgepack bench`."""

    schema: str
    edgepack: str
    taken: str
    rounds: int
    warm_up: int
    seed: int
    environment: Environment
    subjects: tuple[Subject, ...]


def read(path: Path) -> Result:
    """A result from its file; raises an EdgepackError if it is none or of a newer schema."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    try:
        tree = msgspec.json.decode(data)
        if isinstance(tree, dict) and tree.get("schema") not in (SCHEMA, None):
            raise UnsupportedError(
                f"{path}: schema {str(tree['schema'])[:40]!r}, this edgepack reads {SCHEMA}"
            )
        return msgspec.convert(tree, Result)
    except (ValueError, RecursionError) as error:  # ValueError: msgspec's, and no UTF-8
        raise IntegrityError(f"{path}: not a result of 'edgepack bench' ({error})") from None
