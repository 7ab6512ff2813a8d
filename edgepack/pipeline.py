"""`build`: a checkpoint folder becomes one bundle folder for each target.

The networks are written once as the fp32 hub. Each runtime's back end converts them in a process
of its own, so that files do not depend on what ran before and memory is given back. Every result
is run in its own runtime and compared with the hub before the bundle exists.
"""

import os
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgepack import atomic, budget, bundle
from edgepack.assembly import Contents, all_voices, describe, enrolment_networks
from edgepack.auction import Lot
from edgepack.backend import Job
from edgepack.bundle import Bundle
from edgepack.calibration.solver import Bound
from edgepack.conversion import Conversion, convert, examine
from edgepack.errors import GateError, UsageError
from edgepack.hub import HubStage, answers, author
from edgepack.isolation import isolated
from edgepack.manifest import Calibrated, Limit, Quality, Solver, Variant, encode
from edgepack.plan import BuildRequest, Plan, Source, open_source, plan, source_key
from edgepack.recipe import QUANTIZED, named
from edgepack.report import Step, silent
from edgepack.runtime.loading import Host
from edgepack.runtime.solver import REFERENCE, euler
from edgepack.solving import Solving, solve
from edgepack.text_assets import text_assets
from edgepack.trial import Trial, prepare
from edgepack.verification import exam, gates, trajectories
from edgepack.verification.footprint import peak


@dataclass
class Lap:
    """Seconds by name, each since the one before."""

    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        """The time until now goes to `name`."""
        now = time.perf_counter()
        self.seconds[name] = now - self.started
        self.started = now


@dataclass(frozen=True)
class Built:
    """A bundle that exists now; `reused` if it did before.

    `seconds` is by build step; `errors` are the self-test's, by stage and runtime. `peaks` is the
    memory that speaking took on this machine, in bytes by runtime, for targets with a budget and
    those with a GPU, which this machine's CPU stands in for.
    """

    plan: Plan
    bundle: Bundle
    reused: bool
    seconds: Mapping[str, float]
    errors: Mapping[tuple[str, str], float]
    peaks: Mapping[str, int] = field(default_factory=dict)


def build(request: BuildRequest, step: Step = silent) -> list[Built]:
    """Build every target. If one fails, its folder is left as it was."""
    step("reading the checkpoint")
    source = open_source(request.model)
    plans = plan(request, source)
    built = {p.target: found for p in plans if (found := _existing(p, force=request.force))}
    missing = [p for p in plans if p.target not in built]
    if missing:
        with atomic.temporary_folder(request.output / "hub") as folder:
            contents, seconds = _contents(request, source, folder, step)
            trial = None
            if _needs_trial(missing, contents.stages):
                clock = Lap(seconds)
                key, names = source_key(request, source), [s.name for s in contents.stages]
                solving = any(
                    p.solver(runtime, names) != REFERENCE
                    for p in missing
                    for runtime in p.profile.runtimes
                )
                trial = prepare(request, source, contents, key, step, solving=solving)
                clock.lap("calibration")
            for wanted in missing:
                built[wanted.target] = _make(
                    request, source, contents, trial, wanted, seconds, step
                )
    return [built[p.target] for p in plans]


def _existing(wanted: Plan, *, force: bool) -> Built | None:
    """The bundle that is there already, if it is of the same inputs and intact."""
    if force or not wanted.folder.exists():
        return None
    found = bundle.open_bundle(wanted.folder)
    chosen = {
        (runtime, name): variant.recipe
        for name, stage in found.manifest.stages.items()
        for runtime, variant in stage.variants.items()
    }
    fixed = {at: wanted.choices.name(*at) for at in chosen}
    same = all(name in (None, chosen[at]) for at, name in fixed.items())
    for runtime, table in wanted.choices.solvers.items():
        found_table = found.manifest.solvers.get(runtime)
        same = same and (found_table.solver if found_table else None) == table
    if found.manifest.build != wanted.key or not same:
        raise UsageError(
            f"{wanted.folder}: holds a bundle of other inputs or tools; "
            "give --force to replace it, or another -o"
        )
    found.check(found.manifest.files)
    return Built(wanted, found, True, {}, {})


def _threads() -> int:
    return len(os.sched_getaffinity(0))


def _contents(
    request: BuildRequest, source: Source, folder: Path, step: Step
) -> tuple[Contents, dict[str, float]]:
    """Text, the fp32 hub with its answers to the self-test, and voices; seconds by build step."""
    clock = Lap()
    step("preparing text" if not request.languages else "trimming the text vocabulary")
    text = text_assets(request, source)
    clock.lap("text")
    stages = isolated(author, source.checkpoint.folder, text.rows, folder, step=step)
    clock.lap("networks")
    calls = isolated(answers, stages, step=step)
    clock.lap("reference")
    networks = enrolment_networks(source, folder)
    voices = all_voices(request, source, text, networks, folder, step)
    clock.lap("voices")
    return Contents(stages, calls, text, voices, folder, networks), clock.seconds


def _make(
    request: BuildRequest,
    source: Source,
    contents: Contents,
    trial: Trial | None,
    wanted: Plan,
    before: Mapping[str, float],
    step: Step,
) -> Built:
    """Convert, compare, examine, and put the bundle together; it appears whole or not at all."""
    clock = Lap(dict(before))
    errors: dict[tuple[str, str], float] = {}
    profile = wanted.profile
    limits = profile.gates.get(profile.stage_precision("speech_lm"), {})
    with atomic.replacing(wanted.folder) as folder:
        variants: dict[str, dict[str, Variant]] = {stage.name: {} for stage in contents.stages}
        for runtime in profile.runtimes:
            work = Conversion(
                runtime,
                _lots(contents.stages, wanted, runtime, folder, trial),
                contents.calls,
                folder,
                contents.folder / "auction" / wanted.target / runtime,
                _threads(),
                trial,
                limits,
                profile.architecture == platform.machine(),
                request.allow_failed_gate,
            )
            for stage, (variant, error) in isolated(convert, work, step=step).items():
                known = wanted.choices.offers.get((runtime, stage), variant.offers)
                variants[stage][runtime] = msgspec.structs.replace(variant, offers=tuple(known))
                errors[stage, runtime] = error
            clock.lap(runtime)
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
        budget.require_size(manifest, profile)
        peaks = {
            runtime: isolated(peak, folder, runtime, _threads(), step=step)
            for runtime in (profile.runtimes if profile.memory or profile.gpu else ())
        }
        budget.require_memory(wanted.target, profile, peaks)
        if examined:
            quality = _quality(folder, list(profile.runtimes), limits, solvers, step)
            clock.lap("exam")
            if quality.failed and not request.allow_failed_gate:
                raise GateError(
                    f"{wanted.folder}: {'; '.join(quality.failed)}; no bundle was written. "
                    "Try another --precision, or --allow-failed-gate"
                )
            manifest = msgspec.structs.replace(manifest, quality=quality)
            (folder / bundle.MANIFEST).write_bytes(encode(manifest))
        bundle.open_bundle(folder)  # whether a device would
    return Built(wanted, Bundle(wanted.folder, manifest), False, clock.seconds, errors, peaks)


def _solvers(
    wanted: Plan,
    contents: Contents,
    source: Source,
    variants: Mapping[str, Mapping[str, Variant]],
    folder: Path,
    trial: Trial | None,
    lenient: bool,
    step: Step,
) -> dict[str, Calibrated]:
    """The solver of each runtime that is to have another than the checkpoint's own."""
    names = [stage.name for stage in contents.stages]
    host = source.family.host(source.checkpoint)
    policy = wanted.profile.solver
    bound = Bound(policy.evaluations, policy.decibel, euler(host.flow).evaluations)
    found = {}
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
        found[runtime] = isolated(solve, work, step=step)
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
    runtimes: Sequence[str],
    limits: Mapping[str, Limit],
    solvers: Mapping[str, Calibrated],
    step: Step,
) -> Quality:
    """The exam of a finished bundle in each of its runtimes, and what its solvers missed."""
    values = {
        runtime: isolated(examine, folder, exam.FILE, runtime, _threads(), step=step)
        for runtime in runtimes
    }
    failed = [
        f"{runtime}: {words}"
        for runtime, found in values.items()
        for words in gates.failures(found, limits)
    ]
    for runtime, solver in solvers.items():
        error = {gates.SOLVER_ERROR: solver.accuracy.decibel}
        missed = gates.failures(error, {gates.SOLVER_ERROR: gates.solver_limit(solver)})
        failed += [f"{runtime}: {words}" for words in missed]
    return Quality(exam=exam.FILE, limits=dict(limits), values=values, failed=tuple(failed))


def _lots(
    stages: Sequence[HubStage], wanted: Plan, runtime: str, folder: Path, trial: Trial | None
) -> list[Lot]:
    options = wanted.profile.runtimes[runtime]
    target_folder = folder / runtime
    target_folder.mkdir()
    lots = []
    for stage in stages:
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
        lots.append(Lot(job, names))
    return lots


def _needs_trial(plans: Sequence[Plan], stages: Sequence[HubStage]) -> bool:
    """Whether any plan needs recorded speech: for networks that approximate, or for a solver."""
    names = [stage.name for stage in stages]
    return any(
        p.approximates(runtime, names) or p.solver(runtime, names) != REFERENCE
        for p in plans
        for runtime in p.profile.runtimes
    )
