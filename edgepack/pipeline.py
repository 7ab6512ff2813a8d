"""`build`: a checkpoint folder becomes one bundle folder for each target.

The networks are written once as the fp32 hub. Each runtime's back end converts them in a process
of its own, so that files do not depend on what ran before and memory is given back. Every result
is run in its own runtime and compared with the hub before the bundle exists.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgepack import bundle
from edgepack.assembly import Contents, all_voices, describe, enrolment_networks
from edgepack.backend import Job, backend
from edgepack.bundle import Bundle
from edgepack.errors import GateError, UsageError
from edgepack.hub import HubStage, answers, author
from edgepack.isolation import isolated
from edgepack.manifest import Variant, encode
from edgepack.plan import BuildRequest, Plan, Source, open_source, plan
from edgepack.report import Step, silent
from edgepack.runtime.session import Options, engine
from edgepack.text_assets import text_assets
from edgepack.verification import selftest
from edgepack.verification.selftest import Calls


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

    `seconds` is by build step; `errors` are the self-test's, by stage and runtime.
    """

    plan: Plan
    bundle: Bundle
    reused: bool
    seconds: Mapping[str, float]
    errors: Mapping[tuple[str, str], float]


def build(request: BuildRequest, step: Step = silent) -> list[Built]:
    """Build every target. If one fails, its folder is left as it was."""
    step("reading the checkpoint")
    source = open_source(request.model)
    plans = plan(request, source)
    built = {p.target: found for p in plans if (found := _existing(p, force=request.force))}
    missing = [p for p in plans if p.target not in built]
    if missing:
        with bundle.temporary_folder(request.output / "hub") as folder:
            contents, seconds = _contents(request, source, folder, step)
            for wanted in missing:
                built[wanted.target] = _make(request, source, contents, wanted, seconds, step)
    return [built[p.target] for p in plans]


def _existing(wanted: Plan, *, force: bool) -> Built | None:
    """The bundle that is there already, if it is of the same inputs and intact."""
    if force or not wanted.folder.exists():
        return None
    found = bundle.open_bundle(wanted.folder)
    if found.manifest.build != wanted.key:
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
    wanted: Plan,
    before: Mapping[str, float],
    step: Step,
) -> Built:
    """Convert, compare, and put the bundle together; it appears whole or not at all."""
    clock = Lap(dict(before))
    errors: dict[tuple[str, str], float] = {}
    with bundle.replacing(wanted.folder) as folder:
        variants: dict[str, dict[str, Variant]] = {stage.name: {} for stage in contents.stages}
        for runtime in wanted.profile.runtimes:
            jobs = _jobs(contents.stages, wanted, runtime, folder)
            made = isolated(convert, runtime, jobs, contents.calls, folder, _threads(), step=step)
            for stage, (variant, error) in made.items():
                variants[stage][runtime] = variant
                errors[stage, runtime] = error
            clock.lap(runtime)
        manifest = describe(request, source, contents, wanted, folder, variants)
        (folder / bundle.MANIFEST).write_bytes(encode(manifest))
    return Built(wanted, Bundle(wanted.folder, manifest), False, clock.seconds, errors)


def _jobs(stages: Sequence[HubStage], wanted: Plan, runtime: str, folder: Path) -> list[Job]:
    options = wanted.profile.runtimes[runtime]
    target_folder = folder / runtime
    target_folder.mkdir()
    return [
        Job(
            stage.name,
            stage.model,
            target_folder,
            stage.states,
            wanted.profile.stage_precision(stage.name),
            options,
        )
        for stage in stages
    ]


def convert(
    runtime: str, jobs: Sequence[Job], calls: Calls, root: Path, threads: int, step: Step
) -> dict[str, tuple[Variant, float]]:
    """Convert networks for one runtime and compare each with the hub; runs in its own process.

    Returns each stage with its error. Raises GateError if one differs by more than it may.
    """
    variants = {}
    for job in jobs:
        step(f"{runtime}: converting {job.stage}")
        files = backend(runtime).convert(job)
        step(f"{runtime}: checking {job.stage}")
        session = engine(runtime).open(files[0], job.states, Options(threads, mapped=True))
        error = selftest.error(session, calls[job.stage])
        allowed = selftest.limit(job.stage, job.precision)
        if error > allowed:
            raise GateError(
                f"{job.stage} in {runtime} at {job.precision} differs from the fp32 hub by "
                f"{error:.1e}, more than {allowed:.1e}; no bundle was written"
            )
        names = tuple(str(file.relative_to(root)) for file in files)
        variant = Variant(files=names, precision=job.precision, limit=allowed)
        variants[job.stage] = variant, error
    return variants
