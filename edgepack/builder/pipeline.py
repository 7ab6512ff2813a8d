"""`build`: a checkpoint folder becomes one bundle folder for each target.

The networks are written once as the fp32 hub. Each runtime's back end converts them in a process
of its own, so that files do not depend on what ran before and memory is given back. Every result
is run in its own runtime and compared with the hub before the bundle exists.
"""

import platform
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from edgepack import atomic, budget, bundle, limits, locks, measurements, schedule
from edgepack.assembly import Contents, all_voices, describe, enrolment_networks
from edgepack.auction import Lot
from edgepack.backend import Job
from edgepack.bundle import Bundle
from edgepack.calibration.solver import Bound
from edgepack.conversion import Conversion, Converted, convert, examine
from edgepack.errors import GateError, UnsupportedError, UsageError
from edgepack.hub import HubStage, answers, author
from edgepack.isolation import isolated
from edgepack.manifest import Calibrated, Manifest, Solver, Variant, encode
from edgepack.measurements import Lap, Measurements
from edgepack.metrics import Limit, Limits, Quality, Values
from edgepack.plan import BuildRequest, Plan, Source, plan, require_possible, source_key
from edgepack.recipe import QUANTIZED, named
from edgepack.report import Parts, Step, silent
from edgepack.runtime import audio, prompting
from edgepack.runtime.cpu import isa
from edgepack.runtime.cpu import plan as cpu_plan
from edgepack.runtime.loading import Host
from edgepack.runtime.solver import REFERENCE, euler
from edgepack.solving import Solving, solve
from edgepack.survey import survey, writing
from edgepack.text_assets import text_assets
from edgepack.trial import Trial, prepare, require_speaker
from edgepack.verification import exam, gates, intervals, trajectories
from edgepack.verification.footprint import peak
from edgepack.verification.readiness import require_ready

_HUB = "hub"  # below the output: what is there only while it is built


@dataclass(frozen=True)
class Built:
    """A bundle that exists now; `reused` if it did before.

    `measured` is what was measured when it was built, None if that is not known any more. There
    is memory of speaking for targets with a budget and those with a GPU, which this machine's CPU
    stands in for. `warnings` are lines to show.
    """

    plan: Plan
    bundle: Bundle
    reused: bool
    measured: Measurements | None
    warnings: Sequence[str] = ()


def build(request: BuildRequest, step: Step = silent, told: Step = silent) -> list[Built]:
    """Build every target, one process at a time. If one fails, its folder is left as it was.

    How long it will take is `told` when that is known, if anything has to be built.
    """
    require_possible(request)
    step("reading the checkpoint")
    source, plans = planned(request, step)
    with locks.alone(*(wanted.folder for wanted in plans)):
        return _all(request, source, plans, step, told)


def _all(
    request: BuildRequest, source: Source, plans: Sequence[Plan], step: Step, told: Step
) -> list[Built]:
    _clear(request, plans)
    built = {
        p.target: replace(found, warnings=source.notes)
        for p in plans
        if (found := _existing(p, force=request.force))
    }
    missing = [p for p in plans if p.target not in built]
    for wanted in missing:
        bundle.require_replaceable(wanted.folder)
        atomic.require_writable(measurements.place(wanted.folder))
    if any(p.needs_speech(gates.STAGES) for p in missing):
        require_speaker(request, source)
    if missing:
        budget.require_disk(request.output, source.bytes, [p.profile for p in missing])
        parts = schedule.parts(step, told, schedule.sizes(source, missing))
        with atomic.temporary_folder(request.output / _HUB) as folder:
            contents, seconds = _contents(request, source, folder, parts)
            trial = None
            names = [stage.name for stage in contents.stages]
            if any(p.needs_speech(names) for p in missing):
                clock = Lap(seconds)
                parts.begin(schedule.CALIBRATION)
                key = source_key(request, source)
                solving = any(
                    p.solves(runtime, names) for p in missing for runtime in p.profile.runtimes
                )
                trial = prepare(request, source, contents, key, parts, solving=solving)
                clock.lap("calibration")
            for wanted in missing:
                built[wanted.target] = _make(
                    request, source, contents, trial, wanted, seconds, parts
                )
    return [built[p.target] for p in plans]


def planned(request: BuildRequest, step: Step = silent) -> tuple[Source, list[Plan]]:
    """The checkpoint, and what would be made of it; raises UsageError for what cannot be."""
    source = survey(request.model, request.llm, step)
    plans = plan(request, source)
    for wanted in plans:
        limits.check(wanted)
    return source, plans


def _clear(request: BuildRequest, plans: Sequence[Plan]) -> None:
    """Remove what killed builds left, also where nothing has to be built now."""
    atomic.clear(request.output / _HUB)
    for wanted in plans:
        atomic.clear(wanted.folder)
        atomic.clear(measurements.place(wanted.folder))


def _existing(wanted: Plan, *, force: bool) -> Built | None:
    """The bundle that is there already, if it is of the same inputs, intact, and passed its gates.

    One that failed them is the outcome of a request that allows it, which has a key of its own.
    """
    if force or not wanted.folder.exists():
        return None
    try:
        found = bundle.open_bundle(wanted.folder)
    except UnsupportedError as error:
        raise UsageError(f"{error}: give --force to replace it, or another -o") from None
    manifest = found.manifest
    if manifest.build != wanted.key or not _as_chosen(wanted, manifest):
        if manifest.quality and manifest.quality.failed:
            raise GateError(
                f"{wanted.folder}: holds a bundle that failed its gates and was allowed to "
                f"({'; '.join(manifest.quality.failed)}); give --force to replace it"
            )
        raise UsageError(
            f"{wanted.folder}: holds a bundle of other inputs, options or tools; "
            "give --force to replace it, or another -o"
        )
    found.check(manifest.files)
    return Built(wanted, found, True, measurements.read(found))


def _as_chosen(wanted: Plan, manifest: Manifest) -> bool:
    """Whether a bundle has the recipes and solvers that a plan fixes, if it fixes any."""
    for name, stage in manifest.stages.items():
        for runtime, variant in stage.variants.items():
            if wanted.choices.name(runtime, name) not in (None, variant.recipe):
                return False
    tables = {runtime: solver.solver for runtime, solver in manifest.solvers.items()}
    return all(tables.get(runtime) == table for runtime, table in wanted.choices.solvers.items())


def _threads() -> int:
    return len(cpu_plan.allowed())


def _contents(
    request: BuildRequest, source: Source, folder: Path, step: Parts
) -> tuple[Contents, dict[str, float]]:
    """Text, the fp32 hub with its answers to the self-test, and voices; seconds by build step."""
    clock = Lap()
    step("preparing text" if not request.languages else "trimming the text vocabulary")
    text = text_assets(request, source)
    clock.lap("text")
    step.begin(schedule.NETWORKS)
    checkpoint = source.checkpoint
    bounds = writing(checkpoint.folder)
    stages = isolated(author, checkpoint, text.rows, folder, step=step, bounds=bounds)
    clock.lap("networks")
    step.begin(schedule.REFERENCE)
    calls = isolated(answers, stages, step=step)
    clock.lap("reference")
    step.begin(schedule.VOICES)
    warnings = [
        problem
        for wanted in request.voices
        for problem in prompting.problems(audio.read(wanted.recording), wanted.text)
    ]
    networks = enrolment_networks(source, folder, warnings.append)
    voices = all_voices(request, source, text, networks, folder, step, warnings.append)
    clock.lap("voices")
    return Contents(stages, calls, text, voices, folder, networks, warnings), clock.seconds


def _make(
    request: BuildRequest,
    source: Source,
    contents: Contents,
    trial: Trial | None,
    wanted: Plan,
    before: Mapping[str, float],
    step: Parts,
) -> Built:
    """Convert, compare, examine, and put the bundle together; it appears whole or not at all."""
    clock = Lap(dict(before))
    profile = wanted.profile
    if trial and wanted.needs_speech([stage.name for stage in contents.stages]):
        contents = replace(contents, calls={**contents.calls, **trial.calls})
    else:  # it is there for another target of the same request
        trial = None
    made: dict[str, dict[str, Converted]] = {}
    with ExitStack() as held, atomic.replacing(wanted.folder) as folder:
        for runtime in profile.runtimes:
            work = Conversion(
                runtime,
                _lots(contents, wanted, runtime, folder, trial),
                folder,
                contents.folder / "auction" / wanted.target / runtime,
                _threads(),
                trial,
                profile.architecture == platform.machine(),
                request.allow_failed_gate,
            )
            step.begin((schedule.CONVERSION, wanted.target, runtime))
            with limits.blamed(runtime, made, profile):
                made[runtime] = isolated(convert, work, step=step)
            clock.lap(runtime)
        variants = _variants(wanted, contents.stages, made)
        solvers = _solvers(
            wanted, contents, source, variants, folder, trial, request.allow_failed_gate, step
        )
        if solvers and trial and trial.solving:
            shutil.copyfile(trial.solving / trajectories.FILE, folder / trajectories.FILE)
            clock.lap("solver")
        examined = trial and (_approximate(variants) or solvers)
        if trial and examined:
            shutil.copyfile(trial.exam, folder / exam.FILE)
        manifest = describe(request, source, contents, wanted, folder, variants, solvers)
        (folder / bundle.MANIFEST).write_bytes(encode(manifest))
        require_ready(Bundle(folder, manifest))
        budget.require_size(manifest, profile)
        peaks: dict[str, int] = {}
        for runtime in profile.runtimes if profile.memory or profile.gpu else ():
            step.begin((schedule.MEMORY, wanted.target, runtime))
            with limits.blamed(runtime, peaks, profile):
                peaks[runtime] = isolated(peak, folder, runtime, _threads(), step=step)
        budget.require_memory(wanted.target, profile, peaks)
        if examined:
            held_to = {
                runtime: limits.of_runtime(profile, runtime, variants)
                for runtime in profile.runtimes
            }
            quality = _quality(folder, wanted, held_to, solvers, step)
            clock.lap("exam")
            if not request.allow_failed_gate:
                limits.require_passed(wanted.folder, quality)
            manifest = msgspec.structs.replace(manifest, quality=quality)
            (folder / bundle.MANIFEST).write_bytes(encode(manifest))
        bundle.open_bundle(folder)  # whether a device would
        measured = Measurements(
            build=wanted.key,
            cpu=isa.model(),
            threads=_threads(),
            seconds=clock.seconds,
            offers={r: {s: one.offers for s, one in of.items()} for r, of in made.items()},
            errors={r: {s: one.error for s, one in of.items()} for r, of in made.items()},
            peaks=peaks,
        )
        # First: if they were missing, nothing would build a bundle again that is there.
        measurements.write(wanted.folder, measured)
        if wanted.folder.exists():  # no voice may be added between this and the exchange
            held.enter_context(locks.alone(wanted.folder / bundle.MANIFEST))
    warnings = [*source.notes, *contents.warnings]
    return Built(wanted, Bundle(wanted.folder, manifest), False, measured, warnings)


def _variants(
    wanted: Plan, stages: Sequence[HubStage], made: Mapping[str, Mapping[str, Converted]]
) -> dict[str, dict[str, Variant]]:
    """Converted networks by stage and runtime; what a bundle chose before keeps its reason."""
    found: dict[str, dict[str, Variant]] = {stage.name: {} for stage in stages}
    for runtime, of_runtime in made.items():
        for stage, one in of_runtime.items():
            reason = wanted.choices.reasons.get((runtime, stage), one.variant.reason)
            found[stage][runtime] = msgspec.structs.replace(one.variant, reason=reason)
    return found


def _solvers(
    wanted: Plan,
    contents: Contents,
    source: Source,
    variants: Mapping[str, Mapping[str, Variant]],
    folder: Path,
    trial: Trial | None,
    lenient: bool,
    step: Parts,
) -> dict[str, Calibrated]:
    """The solver of each runtime that is to have another than the checkpoint's own."""
    names = [stage.name for stage in contents.stages]
    host = source.family.host(source.checkpoint)
    policy = wanted.profile.solver
    bound = Bound(policy.evaluations, policy.decibel, euler(host.flow).evaluations)
    found: dict[str, Calibrated] = {}
    for runtime in wanted.profile.runtimes:
        table = wanted.solver(runtime, names)
        if table == REFERENCE or trial is None or trial.solving is None:
            continue
        work = Solving(
            Host(runtime, _threads()),
            folder,
            {stage: of_runtime[runtime] for stage, of_runtime in variants.items()},
            host.flow,
            trial.solving,
            bound,
            table if isinstance(table, Solver) else None,
            lenient,
        )
        step.begin((schedule.SOLVER, wanted.target, runtime))
        with limits.blamed(runtime, found, wanted.profile):
            solver = isolated(solve, work, step=step)
        curve = wanted.choices.curves.get(runtime, solver.curve) if work.given else solver.curve
        found[runtime] = msgspec.structs.replace(solver, curve=tuple(curve))
    return found


def _approximate(variants: Mapping[str, Mapping[str, Variant]]) -> bool:
    """Whether any network computes with less than fp32, so that an exam has to be held."""
    return any(
        v.precision in QUANTIZED or named(runtime, v.recipe).calibrated
        for stage in variants.values()
        for runtime, v in stage.items()
    )


def _quality(
    folder: Path,
    wanted: Plan,
    held_to: Mapping[str, Limits],
    solvers: Mapping[str, Calibrated],
    step: Parts,
) -> Quality:
    """The exam of a finished bundle in each of its runtimes, and what its solvers missed."""
    values: dict[str, Values] = {}
    for runtime in held_to:
        step.begin((schedule.EXAM, wanted.target, runtime))
        with limits.blamed(runtime, values, wanted.profile):
            values[runtime] = isolated(examine, folder, exam.FILE, runtime, _threads(), step=step)
    failed = [
        f"{runtime}: {words}"
        for runtime, found in values.items()
        for words in gates.failures(found, held_to[runtime])
    ]
    for runtime, solver in solvers.items():
        error = gates.solver_measure(solver.accuracy.decibel, solver.utterances)
        allowed = {gates.SOLVER_ERROR: Limit(high=solver.limit)}
        missed = gates.failures({gates.SOLVER_ERROR: error}, allowed)
        failed += [f"{runtime}: {words}" for words in missed]
    ratio = exam.least_ratio(exam.read(folder / exam.FILE))
    return Quality(
        exam=exam.FILE,
        limits=dict(held_to),
        values={r: {m: intervals.rounded(v) for m, v in of.items()} for r, of in values.items()},
        not_measured={runtime: gates.not_measured(found) for runtime, found in values.items()},
        failed=tuple(failed),
        speech_ratio=msgspec.UNSET if ratio is None else ratio,
    )


def _lots(
    contents: Contents, wanted: Plan, runtime: str, folder: Path, trial: Trial | None
) -> list[Lot]:
    options = wanted.profile.runtimes[runtime]
    target_folder = folder / runtime
    target_folder.mkdir()
    lots = []
    for stage in contents.stages:
        names = wanted.recipes(runtime, stage.name)
        job = Job(
            stage.name,
            stage.model,
            target_folder,
            stage.states,
            named(runtime, names[0]),
            options,
            trial.samples if trial else None,
        )
        held_to = {
            name: limits.of_stage(wanted.profile, stage.name, named(runtime, name).precision)
            for name in names
        }
        lots.append(Lot(job, names, held_to, contents.calls[stage.name]))
    return lots
