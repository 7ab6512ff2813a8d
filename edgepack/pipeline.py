"""`build`: a checkpoint folder becomes one bundle folder for each target.

The networks are written once as the fp32 hub. Each runtime's back end converts them in a process
of its own, so that files do not depend on what ran before and memory is given back. Every result
is run in its own runtime and compared with the hub before the bundle exists.
"""

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path

import msgspec

import edgepack
from edgepack import bundle, target, voices
from edgepack.backend import Job, backend
from edgepack.bundle import Bundle
from edgepack.carried import carry
from edgepack.checkpoint.folder import Checkpoint, open_checkpoint
from edgepack.discovery import unknown
from edgepack.errors import GateError, UsageError
from edgepack.family import Family, recognise
from edgepack.hub import HubStage, answers, author
from edgepack.isolation import isolated
from edgepack.manifest import FORMAT, Manifest, Stage, Variant, encode
from edgepack.report import Step, silent
from edgepack.runtime.session import Options, engine
from edgepack.target import PRECISIONS, TargetProfile
from edgepack.verification import selftest
from edgepack.verification.selftest import Calls

DEMO = "demo"
_DOCUMENTS = ("MODEL_CARD.md", "README.md", "LICENSE")
_TOOLS = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "openvino", "tokenizers")


@dataclass(frozen=True)
class BuildRequest:
    """What to build: `model` is a checkpoint folder or "demo".

    `formats` limits the target's runtimes; `precision` replaces the profile's unless "auto".
    """

    model: str
    targets: Sequence[str]
    output: Path
    formats: Sequence[str] = ()
    precision: str = "auto"
    force: bool = False


@dataclass(frozen=True)
class Source:
    """A recognised checkpoint: name, family, and the hashes of the files it is read from."""

    name: str
    checkpoint: Checkpoint
    family_name: str
    family: Family
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class Plan:
    """A bundle to be. `profile` has only the runtimes asked for; `key` stands for every input."""

    target: str
    profile: TargetProfile
    folder: Path
    key: str


@dataclass(frozen=True)
class Hub:
    """The written fp32 networks, their answers to the self-test, and the seconds it took."""

    stages: Sequence[HubStage]
    calls: Calls
    seconds: Mapping[str, float]


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


def open_source(model: str) -> Source:
    """The checkpoint to build, recognised and hashed."""
    folder = Path(str(resources.files("edgepack") / "demo_voice")) if model == DEMO else Path(model)
    checkpoint = open_checkpoint(folder)
    family_name, family = recognise(checkpoint)
    name = model if model == DEMO else re.sub(r"[^\w.-]+", "_", folder.resolve().name)
    hashes = {file: checkpoint.sha256(file) for file in family.sources(checkpoint)}
    return Source(name, checkpoint, family_name, family, hashes)


def plan(request: BuildRequest, source: Source) -> list[Plan]:
    """What would be built, without building; raises UsageError for an impossible request."""
    if request.precision not in ("auto", *PRECISIONS):
        raise UsageError(unknown("precision", request.precision, ["auto", *PRECISIONS]))
    return [_plan(request, source, name) for name in dict.fromkeys(request.targets)]


def _plan(request: BuildRequest, source: Source, name: str) -> Plan:
    profile = target.load(name)
    for wanted in request.formats:
        if wanted not in profile.runtimes:
            raise UsageError(f"target {name}: {unknown('format', wanted, profile.runtimes)}")
    chosen = {r: o for r, o in profile.runtimes.items() if r in (request.formats or (r,))}
    precision = profile.precision
    if request.precision != "auto":
        precision = {"default": request.precision}
    profile = msgspec.structs.replace(profile, runtimes=chosen, precision=precision)
    identity = {
        "edgepack": edgepack.__version__,
        "name": source.name,
        "target": name,
        "profile": msgspec.to_builtins(profile),
        "source": dict(source.hashes),
        "tools": _tools(),
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return Plan(name, profile, request.output / f"{source.name}-{name}", key)


def _tools() -> dict[str, str]:
    return {name: metadata.version(name) for name in _TOOLS}


def build(request: BuildRequest, step: Step = silent) -> list[Built]:
    """Build every target. If one fails, its folder is left as it was."""
    step("reading the checkpoint")
    source = open_source(request.model)
    plans = plan(request, source)
    built = {p.target: found for p in plans if (found := _existing(p, force=request.force))}
    missing = [p for p in plans if p.target not in built]
    if missing:
        with bundle.temporary_folder(request.output / "hub") as folder:
            hub = _write_hub(source, folder, step)
            for wanted in missing:
                built[wanted.target] = _make(source, hub, wanted, step)
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


def _write_hub(source: Source, folder: Path, step: Step) -> Hub:
    start = time.perf_counter()
    stages = isolated(author, source.checkpoint.folder, folder, step=step)
    written = time.perf_counter()
    calls = isolated(answers, stages, step=step)
    seconds = {"networks": written - start, "reference": time.perf_counter() - written}
    return Hub(stages, calls, seconds)


def _make(source: Source, hub: Hub, wanted: Plan, step: Step) -> Built:
    """Convert, compare, and put the bundle together; it appears whole or not at all."""
    seconds = dict(hub.seconds)
    errors: dict[tuple[str, str], float] = {}
    with bundle.replacing(wanted.folder) as folder:
        variants: dict[str, dict[str, Variant]] = {stage.name: {} for stage in hub.stages}
        for runtime in wanted.profile.runtimes:
            start = time.perf_counter()
            jobs = _jobs(hub, wanted, runtime, folder)
            made = isolated(convert, runtime, jobs, hub.calls, folder, _threads(), step=step)
            for stage, (variant, error) in made.items():
                variants[stage][runtime] = variant
                errors[stage, runtime] = error
            seconds[runtime] = time.perf_counter() - start
        manifest = _describe(source, hub, wanted, folder, variants)
        (folder / bundle.MANIFEST).write_bytes(encode(manifest))
    return Built(wanted, Bundle(wanted.folder, manifest), False, seconds, errors)


def _jobs(hub: Hub, wanted: Plan, runtime: str, folder: Path) -> list[Job]:
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
        for stage in hub.stages
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


def _describe(
    source: Source,
    hub: Hub,
    wanted: Plan,
    folder: Path,
    variants: Mapping[str, dict[str, Variant]],
) -> Manifest:
    """Write what is not a network, and the manifest over everything."""
    checkpoint, family = source.checkpoint, source.family
    (folder / "tokenizer.json").write_text(family.tokenizer(checkpoint), "utf-8")
    (folder / selftest.FILE).write_bytes(selftest.to_bytes(hub.calls))
    enrolment = {
        role: carry(checkpoint.file(file), folder, f"enrolment/{role}.onnx")
        for role, file in sorted(family.enrolment(checkpoint).items())
    }
    files = {}
    for name, speaker in family.voices(checkpoint).items():
        data = speaker.to_bytes()
        files[name] = voices.file_name(name, data)
        (folder / "voices").mkdir(exist_ok=True)
        (folder / files[name]).write_bytes(data)
    documents = tuple(name for name in _DOCUMENTS if checkpoint.has(name))
    for name in documents:
        shutil.copyfile(checkpoint.file(name), folder / name)
    host = family.host(checkpoint)
    return Manifest(
        format=FORMAT,
        edgepack=edgepack.__version__,
        name=source.name,
        family=source.family_name,
        target=wanted.target,
        architecture=wanted.profile.architecture,
        language="all",
        stages={
            stage.name: Stage(
                variants=variants[stage.name],
                inputs=stage.inputs,
                outputs=stage.outputs,
                states=stage.states,
                parameters=stage.parameters,
                operators=stage.operators,
            )
            for stage in hub.stages
        },
        enrolment=enrolment,
        tokenizer="tokenizer.json",
        voices=files,
        self_test=selftest.FILE,
        documents=documents,
        source=dict(source.hashes),
        tools=_tools(),
        build=wanted.key,
        files={
            str(path.relative_to(folder)): bundle.stored(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
        **{field: getattr(host, field) for field in host.__dataclass_fields__},
    )
