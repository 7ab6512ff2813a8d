"""Measuring bundles and runtimes in turns, each in a process of its own.

In each round every subject (a bundle in a runtime) speaks all sentences, one subject after the
other, so that a slow phase of the machine affects all of them. Energy is measured for each turn.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import msgspec

import edgepack
from edgepack.bench import environment, long_texts, outcome, parts
from edgepack.bench.remote import Remote
from edgepack.bench.request import MeasureRequest
from edgepack.bench.result import (
    SCHEMA,
    AtOnce,
    Failure,
    MemoryUse,
    Percentiles,
    Point,
    Result,
    SolverUsed,
    StageMemory,
    Subject,
    UtteranceTiming,
)
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.bundle.manifest import Accuracy, Manifest
from edgepack.energy import measurement
from edgepack.energy.meter import MANY
from edgepack.errors import EdgepackError, GateError, ResourceError
from edgepack.machine.probe import Machine
from edgepack.profiles import language
from edgepack.report import Parts, Step
from edgepack.runtime.stages.solver import CALIBRATED

_LEAST_WINDOW_SECONDS = 2.0
_ALL = 1 << 20  # more sentences than there are
_ALL_LANGUAGES = 2  # of a bundle for every language, how many are spoken


@dataclass
class _Entry:
    """A subject with what was measured of it so far; `cold` is its first audio in seconds."""

    bundle: Bundle
    runtime: str
    worker: Remote
    texts: Sequence[str]
    cold: float
    spoken: list[UtteranceTiming] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    windows: list[tuple[measurement.Reading, int, float]] = field(default_factory=list)
    cpu_seconds: float = 0.0  # of the process while it speaks texts as a whole
    failures: list[Failure] = field(default_factory=list)

    def speak(self, text: str) -> float:
        """Speak a text and record the timing or the failure; returns seconds of audio."""
        try:
            self.spoken.append(UtteranceTiming(**self.worker.ask("speak", text)))
        except ResourceError:
            raise
        except EdgepackError as error:
            self.failures.append(Failure(text=text, message=str(error)))
            return 0.0
        return self.spoken[-1].audio_seconds

    def stream(self, text: str) -> None:
        """Stream a text and record how long its first audio takes, or the failure."""
        try:
            self.first.append(self.worker.ask("first_audio", text))
        except ResourceError:
            raise
        except EdgepackError as error:
            self.failures.append(Failure(text=text, message=f"streamed: {error}"))


def run(request: MeasureRequest, step: Step, machine: Machine) -> Result:
    """Measure everything that was asked for."""
    entries: list[_Entry] = []
    at = Parts(step, parts.sizes(request))
    try:
        for number, (folder, runtime) in enumerate(request.subjects):
            at.begin((parts.LOADING, number))
            at(f"{folder.name} {runtime}: loading")
            entries.append(_begun(request, folder, runtime))
        meters = measurement.select(request.energy, machine, entries[0].bundle.manifest.device)
        for entry in entries:
            for text in entry.texts[: request.warm_up]:
                entry.worker.ask("speak", text)
        idle = _idling(request, meters, machine, at)
        for number in range(request.rounds):
            for which, entry in enumerate(entries):
                at.begin((parts.ROUND, number, which))
                at(f"round {number + 1} of {request.rounds}: {entry.worker.name}")
                _turn(entry, meters, machine)
        after = _idling(request, meters, machine, at)
        baseline = measurement.baseline(idle, after) if idle and after else None
        subjects = []
        for number, entry in enumerate(entries):
            at.begin((parts.ONCE, number))
            subjects.append(_summed(request, entry, entries[0], meters, baseline, at))
    finally:
        for entry in entries:
            entry.worker.close()
    return Result(
        schema=SCHEMA,
        edgepack=edgepack.__version__,
        taken=datetime.now(UTC).isoformat(timespec="seconds"),
        rounds=request.rounds,
        warm_up=request.warm_up,
        seed=request.seed,
        environment=environment.read(),
        subjects=tuple(subjects),
    )


def _begun(request: MeasureRequest, folder: Path, runtime: str) -> _Entry:
    bundle = open_bundle(folder)
    texts = request.texts or sentences(bundle, request.sentences)
    worker = Remote(request.spec(folder, runtime))
    loaded = time.perf_counter() - worker.started
    return _Entry(bundle, runtime, worker, texts, loaded + worker.ask("first_audio", texts[0]))


def sentences(bundle: Bundle, count: int) -> list[str]:
    """At most `count` sentences, from the bundle's languages in turn."""
    codes = bundle.manifest.languages
    codes = codes if bundle.manifest.trim else codes[:_ALL_LANGUAGES]
    sets = [language.sentences(code) for code in codes]
    most = len(sets) * min(map(len, sets))
    return [sets[n % len(sets)][n // len(sets)] for n in range(min(count, most))]


def _turn(entry: _Entry, meters: measurement.Meters, machine: Machine) -> None:
    """Speak all sentences, repeatedly until the meter has enough readings, then stream each."""
    start = time.perf_counter()
    audio, count = 0.0, 0
    instrument = meters.instrument
    least = max(_LEAST_WINDOW_SECONDS, MANY * instrument.update_s) if instrument else 0.0
    busy = entry.worker.ask("cpu_seconds")
    with measurement.measuring(meters, machine) as readings:
        while True:
            for text in entry.texts:
                audio += entry.speak(text)
                count += 1
            if time.perf_counter() - start >= least or not entry.spoken:
                break
    entry.cpu_seconds += entry.worker.ask("cpu_seconds") - busy
    entry.windows += [(reading, count, audio) for reading in readings]
    for text in entry.texts:
        entry.stream(text)


def _idling(
    request: MeasureRequest, meters: measurement.Meters, machine: Machine, step: Step
) -> measurement.Reading | None:
    """Energy of a window in which nothing is done, with all loaded; None without a meter."""
    if meters.instrument is None or not request.baseline_seconds:
        return None
    step(f"{request.baseline_seconds:g} s of idling, for the baseline")
    with measurement.measuring(meters, machine) as readings:
        machine.sleep(request.baseline_seconds)
    return readings[0]


def _summed(
    request: MeasureRequest,
    entry: _Entry,
    first: _Entry,
    meters: measurement.Meters,
    idle: tuple[float, tuple[str, ...]] | None,
    step: Step,
) -> Subject:
    """The result of a subject, including what is measured only once."""
    if not entry.spoken or not entry.first:
        raise GateError(f"{entry.worker.name}: no sentence was spoken; {entry.failures[0].message}")
    ask, manifest = entry.worker.ask, entry.bundle.manifest
    whole = sentences(entry.bundle, _ALL)
    long_text = _long(entry, whole, step) if request.long_texts else None
    long_streams = long_texts.streamed(entry.worker, whole, request.long_texts, step)
    step(f"{entry.worker.name}: memory")
    memory = ask("memory", entry.texts[0])
    operators, missing = _operators(request, entry, step) if request.profile else ({}, "not asked")
    audio = sum(s.audio_seconds for s in entry.spoken)
    stages = {
        name: sum(s.stages.get(name, 0.0) for s in entry.spoken) / audio for name in manifest.stages
    }
    decoder = manifest.stage_of("language_model")
    decoding = sum(s.stages.get(decoder, 0.0) for s in entry.spoken)
    tokens = sum(s.speech_tokens for s in entry.spoken)
    described = entry.worker.described
    variants = {name: stage.variants[entry.runtime] for name, stage in manifest.stages.items()}
    files = {file for variant in variants.values() for file in variant.files}
    subject = Subject(
        name=entry.worker.name,
        bundle=str(entry.bundle.folder),
        target=manifest.target,
        architecture=manifest.architecture,
        language=manifest.language,
        runtime=entry.runtime,
        runtime_version=described["runtime_version"],
        recipes={name: variant.recipe for name, variant in variants.items()},
        bytes=sum(manifest.files[file].bytes for file in files),
        threads=described["threads"],
        providers=described["providers"],
        pinned=request.plan.pinned,
        masks=ask("masks"),
        load_seconds=described["load_seconds"],
        cold_first_audio_seconds=entry.cold,
        spoken=tuple(entry.spoken),
        real_time_factor=percentiles([s.seconds / s.audio_seconds for s in entry.spoken]),
        first_audio=percentiles(entry.first),
        stages=stages,
        tokens_per_second=tokens / decoding if decoding else None,
        speed=_speed(first, entry),
        core_seconds=entry.cpu_seconds / audio,
        memory=MemoryUse(
            loaded_bytes=memory["loaded_bytes"],
            peak_bytes=memory["peak_bytes"],
            stages={name: StageMemory(**of) for name, of in memory["stages"].items()},
        ),
        energy=_energy(entry, meters, idle),
        quality=_quality(manifest, entry.runtime),
        solver=_solver(entry),
        at_once=_at_once(request, entry, step) if request.concurrency > 1 else None,
        failures=tuple(entry.failures),
        long_text=long_text,
        long_streams=long_streams,
        goals=(),
        operators=operators,
        operators_missing=missing,
    )
    wanted = manifest.device.goals
    if wanted is msgspec.UNSET:
        return subject
    return msgspec.structs.replace(subject, goals=outcome.of(subject, wanted))


def _quality(manifest: Manifest, runtime: str) -> dict[str, float]:
    """Metrics of the bundle's evaluation when it was built; none if it had none."""
    found = manifest.quality.values.get(runtime, {}) if manifest.quality else {}
    return {metric: measure.value for metric, measure in found.items()}


def _long(entry: _Entry, whole: Sequence[str], step: Step) -> UtteranceTiming | None:
    """Timing of a text of many sentences; None if it fails, which is recorded."""
    step(f"{entry.worker.name}: a long text")
    before = len(entry.spoken)
    entry.speak(long_texts.text(whole, 0))
    return entry.spoken.pop() if len(entry.spoken) > before else None


def _solver(entry: _Entry) -> SolverUsed:
    """The solver that was used; for a calibrated one with the results of its calibration."""
    name, evaluations = entry.worker.described["solver"]
    found = entry.bundle.manifest.solvers.get(entry.runtime)
    if found is None or name != CALIBRATED:
        return SolverUsed(name=name, evaluations=evaluations)
    return SolverUsed(
        name=name,
        evaluations=evaluations,
        curve=tuple(_point(accuracy) for accuracy in found.curve),
        limit=found.limit,
        original=_point(found.euler),
    )


def _point(accuracy: Accuracy) -> Point:
    return Point(evaluations=accuracy.evaluations, decibel=accuracy.decibel)


def _at_once(request: MeasureRequest, entry: _Entry, step: Step) -> AtOnce:
    """Throughput of all sentences with one caller and with several, in turns."""
    step(f"{entry.worker.name}: {request.concurrency} callers at once")
    alone: list[float] = []
    together: list[float] = []
    latencies: list[float] = []
    rows = 1
    for _ in range(request.rounds):
        for callers, rates in ((1, alone), (request.concurrency, together)):
            found = entry.worker.ask("at_once", list(entry.texts), callers)
            rates.append(found["audio"] / found["wall"])
        latencies += found["latencies"]
        rows = max(rows, found["rows"])
    return AtOnce(
        callers=request.concurrency,
        audio_seconds_a_second=median(together),
        gain=median(b / a for a, b in zip(alone, together, strict=True)),
        latency=percentiles(latencies),
        rows=rows,
    )


def _operators(
    request: MeasureRequest, entry: _Entry, step: Step
) -> tuple[dict[str, dict[str, float]], str]:
    """Seconds by stage and operator type; and which stages have none, in words."""
    step(f"{entry.worker.name}: operators")
    spec = request.spec(entry.bundle.folder, entry.runtime, profile=True)
    worker = Remote(spec)
    try:
        worker.ask("speak", entry.texts[0])
        found, untimed = worker.ask("operators")
    finally:
        worker.close()
    return found, "; ".join(
        f"{engine} gives no times of operators ({', '.join(stages)})"
        for engine, stages in untimed.items()
    )


def _speed(first: _Entry, entry: _Entry) -> float:
    """Median over common texts of the first subject's real-time factor divided by this one's."""
    rates = [_rates(entry) for entry in (first, entry)]
    both = rates[0].keys() & rates[1].keys()
    if not both:  # different languages: compare medians over all texts
        return median(map(median, rates[0].values())) / median(map(median, rates[1].values()))
    return median(median(rates[0][text]) / median(rates[1][text]) for text in both)


def _rates(entry: _Entry) -> dict[str, list[float]]:
    """Real-time factors by text."""
    found: dict[str, list[float]] = {}
    for s in entry.spoken:
        found.setdefault(s.text, []).append(s.seconds / s.audio_seconds)
    return found


def _energy(
    entry: _Entry, meters: measurement.Meters, idle: tuple[float, tuple[str, ...]] | None
) -> dict[str, Any]:
    """The window with the median joules a second of audio, and the range over all windows."""
    records = [
        measurement.record(meters, reading, utterances=count, audio_seconds=audio, idle=idle)
        for reading, count, audio in entry.windows
    ]
    known = [r for r in records if r["available"] and r["gross_j_per_audio_s"] is not None]
    if not known:
        none = measurement.record(meters, None, utterances=0, audio_seconds=0)
        return records[-1] if records else none
    known.sort(key=lambda r: float(r["gross_j_per_audio_s"]))
    rates = [r["gross_j_per_audio_s"] for r in known]
    windows = {"windows": len(known), "lowest": rates[0], "highest": rates[-1]}
    return {**known[len(known) // 2], "gross_j_per_audio_s_of_windows": windows}


def percentiles(values: Sequence[float]) -> Percentiles:
    """Median, 90th and 95th percentile; of one figure that figure."""
    cuts = quantiles(values, n=100, method="inclusive") if len(values) > 1 else [values[0]] * 99
    return Percentiles(p50=cuts[49], p90=cuts[89], p95=cuts[94], count=len(values))
