"""`build`: a checkpoint folder becomes one bundle folder for each target.

The networks are written once as fp32 ONNX, the hub. Each runtime's back end converts them in a
process of its own, so that files do not depend on earlier work and memory is freed. Every result is
run in its runtime and compared with the hub before the bundle exists.
"""

import platform
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from edgepack.builder import budget, limits, schedule
from edgepack.builder.assembly import (
    Contents,
    Enrolment,
    Networks,
    all_voices,
    describe,
    enrolment_networks,
)
from edgepack.builder.backend import Job
from edgepack.builder.calibration.solver_search import Bound
from edgepack.builder.conversion import Conversion, Converted, convert, examine
from edgepack.builder.existing import HUB, clear, existing
from edgepack.builder.hub import HubStage, answers, author
from edgepack.builder.planning import BuildRequest, Plan, Source, plan, require_possible, source_key
from edgepack.builder.recipe_search import Searched
from edgepack.builder.runtime_solver import Solving, solve
from edgepack.builder.survey import survey, writing
from edgepack.builder.text_assets import text_assets
from edgepack.builder.trial import Further, Trial, prepare, require_speaker
from edgepack.bundle import bundle, measurements
from edgepack.bundle.bundle import Bundle
from edgepack.bundle.manifest import Calibrated, Solver, Variant, encode
from edgepack.bundle.measurements import Lap, Measurements
from edgepack.bundle.metrics import Limit, Limits, Quality, Values
from edgepack.files import atomic, locks
from edgepack.machine.cpu import isa
from edgepack.machine.cpu import plan as cpu_plan
from edgepack.process.isolation import isolated
from edgepack.profiles.recipe import QUANTIZED, named
from edgepack.report import Parts, Step, silent
from edgepack.runtime.audio import prompting, waveform
from edgepack.runtime.loading import Host
from edgepack.runtime.stages.solver import REFERENCE, euler
from edgepack.verification import evaluation, gates, intervals, trajectories
from edgepack.verification.footprint import peak
from edgepack.verification.readiness import require_ready


@dataclass(frozen=True)
class Built:
    """A bundle that was built, or `reused` because it was there already.

    `measured` are the measurements of its build, None if they are not known any more. They include
    the memory of speaking for targets with a budget and for those with a GPU, measured on this
    machine's CPU. `warnings` are lines for the user.
    """

    plan: Plan
    bundle: Bundle
    reused: bool
    measured: Measurements | None
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class _Shared:
    """What all bundles of one build have in common; `trial` only if a network is tried."""

    request: BuildRequest
    source: Source
    contents: Contents
    trial: Trial | None


def build(request: BuildRequest, step: Step = silent, told: Step = silent) -> list[Built]:
    """Build every target, one process at a time. If one fails, its folder is left as it was.

    `told` gets an estimate of the duration, if anything has to be built.
    """
    require_possible(request)
    step("reading the checkpoint")
    source, plans = planned(request, step)
    with locks.alone(*(wanted.folder for wanted in plans)):
        return _all(request, source, plans, step, told)


def _all(
    request: BuildRequest, source: Source, plans: Sequence[Plan], step: Step, told: Step
) -> list[Built]:
    clear(request, plans)
    built = {
        p.target: Built(p, found, True, measurements.read(found), source.notes)
        for p in plans
        if (found := existing(p, force=request.force))
    }
    missing = [p for p in plans if p.target not in built]
    for wanted in missing:
        bundle.require_replaceable(wanted.folder)
        atomic.require_writable(measurements.place(wanted.folder))
    if any(p.needs_speech for p in missing):
        require_speaker(request, source)
    if missing:
        budget.require_disk(request.output, source.bytes, [p.profile for p in missing])
        parts = schedule.parts(step, told, schedule.sizes(source, missing))
        with atomic.temporary_folder(request.output / HUB) as folder:
            contents, seconds = _contents(request, source, folder, parts)
            trial = None
            if any(p.needs_speech for p in missing):
                clock = Lap(seconds)
                parts.begin(schedule.CALIBRATION)
                key = source_key(request, source)
                trial = prepare(request, source, contents, key, parts, Further.of(missing))
                clock.lap("calibration")
            shared = _Shared(request, source, contents, trial)
            for wanted in missing:
                built[wanted.target] = _make(shared, wanted, seconds, parts)
    return [built[p.target] for p in plans]


def planned(request: BuildRequest, step: Step = silent) -> tuple[Source, list[Plan]]:
    """The checkpoint and the plans for a request; raises UsageError for an impossible one."""
    source = survey(request.model, request.llm, step)
    plans = plan(request, source)
    for wanted in plans:
        limits.check(wanted)
    return source, plans


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
        for problem in prompting.problems(waveform.read(wanted.recording), wanted.text)
    ]
    networks = enrolment_networks(source, folder, warnings.append)
    enrolment = Enrolment(networks, folder)
    voices = all_voices(request, source, text, enrolment, step, warnings.append)
    clock.lap("voices")
    return Contents(stages, calls, text, voices, folder, networks, warnings), clock.seconds


def _make(shared: _Shared, wanted: Plan, before: Mapping[str, float], step: Parts) -> Built:
    """Convert, compare, evaluate and assemble a bundle; it appears whole or not at all.

    `before` are seconds that were spent on what is shared.
    """
    clock = Lap(dict(before))
    profile = wanted.profile
    if shared.trial and wanted.needs_speech:
        calls = {**shared.contents.calls, **shared.trial.calls}
        shared = replace(shared, contents=replace(shared.contents, calls=calls))
    else:  # the trial is there for another target of the same request
        shared = replace(shared, trial=None)
    request, source = shared.request, shared.source
    contents, trial = shared.contents, shared.trial
    made: dict[str, dict[str, Converted]] = {}
    with ExitStack() as held, atomic.replacing(wanted.folder) as folder:
        for runtime in profile.runtimes:
            work = Conversion(
                runtime,
                _candidates(shared, wanted, runtime, folder),
                folder,
                contents.folder / "recipe_search" / wanted.target / runtime,
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
        solvers = _solvers(shared, wanted, variants, folder, step)
        if solvers and trial and trial.solving:
            shutil.copyfile(trial.solving / trajectories.FILE, folder / trajectories.FILE)
            clock.lap("solver")
        continued = profile.stream.continued
        examined = trial and (_approximate(variants) or solvers or continued)
        if trial and examined:
            shutil.copyfile(trial.evaluation, folder / evaluation.FILE)
        networks = Networks(folder, variants, solvers)
        manifest = describe(request, source, contents, wanted, networks)
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
                runtime: limits.of_runtime(wanted, runtime, variants)
                | limits.of_stream(wanted, runtime)
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
            candidates={r: {s: one.candidates for s, one in of.items()} for r, of in made.items()},
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
    """Converted networks by stage and runtime; recipes of an earlier bundle keep its reasons."""
    found: dict[str, dict[str, Variant]] = {stage.name: {} for stage in stages}
    for runtime, of_runtime in made.items():
        for stage, one in of_runtime.items():
            reason = wanted.choices.reasons.get((runtime, stage), one.variant.reason)
            found[stage][runtime] = msgspec.structs.replace(one.variant, reason=reason)
    return found


def _solvers(
    shared: _Shared,
    wanted: Plan,
    variants: Mapping[str, Mapping[str, Variant]],
    folder: Path,
    step: Parts,
) -> dict[str, Calibrated]:
    """The solver of each runtime that gets another one than the checkpoint's own."""
    trial, contents = shared.trial, shared.contents
    host = shared.source.family.host(shared.source.checkpoint)
    bound = _bound(shared, wanted)
    found: dict[str, Calibrated] = {}
    for runtime in wanted.profile.runtimes:
        table = wanted.solver(runtime)
        if table == REFERENCE or trial is None or trial.solving is None:
            continue
        work = Solving(
            Host(runtime, _threads()),
            folder,
            contents.uses,
            {stage: of_runtime[runtime] for stage, of_runtime in variants.items()},
            host,
            trial.solving,
            bound,
            table if isinstance(table, Solver) else None,
            shared.request.allow_failed_gate,
        )
        step.begin((schedule.SOLVER, wanted.target, runtime))
        with limits.blamed(runtime, found, wanted.profile):
            solver = isolated(solve, work, step=step)
        curve = wanted.choices.curves.get(runtime, solver.curve) if work.given else solver.curve
        found[runtime] = msgspec.structs.replace(solver, curve=tuple(curve))
    return found


def _bound(shared: _Shared, wanted: Plan) -> Bound:
    """What the solvers of a target are held to."""
    host, policy = shared.source.family.host(shared.source.checkpoint), wanted.profile.solver
    return Bound(policy.evaluations, policy.decibel, euler(host.flow).evaluations)


def _approximate(variants: Mapping[str, Mapping[str, Variant]]) -> bool:
    """Whether any network computes with less than fp32, so that an evaluation is needed."""
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
    """The evaluation of a finished bundle in each of its runtimes, and what its solvers missed."""
    values: dict[str, Values] = {}
    for runtime in held_to:
        step.begin((schedule.EVALUATION, wanted.target, runtime))
        with limits.blamed(runtime, values, wanted.profile):
            values[runtime] = isolated(
                examine, folder, evaluation.FILE, runtime, _threads(), step=step
            )
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
    ratio = evaluation.least_ratio(evaluation.read(folder / evaluation.FILE))
    return Quality(
        exam=evaluation.FILE,
        limits=dict(held_to),
        values={r: {m: intervals.rounded(v) for m, v in of.items()} for r, of in values.items()},
        not_measured={runtime: gates.not_measured(found) for runtime, found in values.items()},
        failed=tuple(failed),
        speech_ratio=msgspec.UNSET if ratio is None else ratio,
    )


def _candidates(shared: _Shared, wanted: Plan, runtime: str, folder: Path) -> list[Searched]:
    contents, trial = shared.contents, shared.trial
    options = wanted.profile.runtimes[runtime]
    solving = trial.solving if trial and wanted.solves(runtime) else None
    judged = trajectories.read(solving / trajectories.FILE) if solving else []
    decibel = _bound(shared, wanted).limit(judged) if judged else None
    target_folder = folder / runtime
    target_folder.mkdir()
    found = []
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
            trial.sentences if trial else None,
        )
        held_to = {
            name: limits.of_solved(
                limits.of_stage(wanted, stage.name, named(runtime, name).precision),
                stage.use,
                decibel,
            )
            for name in names
        }
        found.append(Searched(job, stage.use, names, held_to, contents.calls[stage.name]))
    return found
