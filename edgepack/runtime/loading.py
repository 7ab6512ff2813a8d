"""From a bundle on disk to loaded networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from edgepack import discovery
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.bundle.host import strategy
from edgepack.bundle.manifest import Solver
from edgepack.bundle.stages import Role, Use
from edgepack.errors import UnsupportedError, UsageError
from edgepack.machine.cpu.plan import CpuPlan, Wish, current
from edgepack.machine.memory import require_room
from edgepack.runtime import batching
from edgepack.runtime.audio.enrol import Enroller, EnrolmentModel
from edgepack.runtime.batching import ALONE, Batching
from edgepack.runtime.engines import installed
from edgepack.runtime.engines.residency import Residency, group
from edgepack.runtime.engines.session import Options, Session, engine
from edgepack.runtime.engines.watch import Watched, Watcher
from edgepack.runtime.fit import recorded, require_caches, require_fit, require_shapes
from edgepack.runtime.gpu.placement import AS_PROMISED, Placement, Wanted, place
from edgepack.runtime.gpu.reruns import Guarded
from edgepack.runtime.load_options import LoadOptions
from edgepack.runtime.opened_voices import OpenedVoices
from edgepack.runtime.stages import solver as solvers
from edgepack.runtime.stages.chunks import ChunkedSynthesis
from edgepack.runtime.stages.decode import SpeechDecoder
from edgepack.runtime.stages.flow import FlowDecoder
from edgepack.runtime.stages.prompts import Prompts
from edgepack.runtime.stages.solver import AUTO, CALIBRATED, REFERENCE, euler
from edgepack.runtime.stages.vocoder import Vocoder
from edgepack.runtime.text.front_end import Frontend, read_tokenizer
from edgepack.runtime.text.normalization import Normalization, Reader, normalizers

# Repacking gigabytes that each call reads once would only delay the first one.
# Integer weights are repacked, which is what makes their kernels fast.
_MAPPED_PRECISIONS = frozenset({"fp32", "fp16"})
_LARGE_BYTES = 32 << 20  # files of a network whose memory is worth giving back after each call

_ONNX_ENGINE = "ort"
TWIN = ".fp32.onnx"  # the file of a network that computes in fp32 with the same weights
CONTINUING = ".continuing.onnx"  # that of one that goes on from finished frames, with the same
MEMORY = ("all", "low")


@dataclass(frozen=True)
class Host:
    """Where networks run: an engine by name, its compute threads, and the plan they come from.

    Without a placement they run on the CPU. With `repacked` no weights stay as they lie in files.
    """

    runtime: str
    threads: int
    plan: CpuPlan | None = field(default=None, compare=False)
    profile: bool = False
    placement: Placement | None = field(default=None, compare=False)
    repacked: bool = field(default=False, compare=False)

    @property
    def overlaps(self) -> bool:
        """Whether tokens of the next sentence are decoded while one is made to sound."""
        return self.plan.overlap if self.plan else self.threads > 1

    def options(
        self, stage: str, use: Use, precision: str = "fp32", size: int = 0, taps: Sequence[str] = ()
    ) -> Options:
        """How this host loads a stage with weights of a precision, `size` bytes in all."""
        mapped = use.mapped and precision in _MAPPED_PRECISIONS and not self.repacked
        large = use.memory == "released_if_large" and size > _LARGE_BYTES
        options = Options(self.threads, mapped, large or use.memory == "released", taps)
        options = replace(options, profile=self.profile)
        if self.placement and (on := self.placement.accelerator(stage)):
            return replace(options, accelerator=replace(on, repeated=use.called == "step"))
        return self.on_cpus(options)

    def on_cpus(self, options: Options) -> Options:
        """Options with the CPUs of the plan."""
        plan = self.plan
        if plan is None or not plan.pinned:
            return replace(options, spin=bool(plan and plan.spin))
        return replace(options, cpus=plan.cpus, kind=plan.kind, spin=plan.spin)


@dataclass(frozen=True)
class Loaded:
    """A bundle whose networks are in memory, as the parts of the synthesis that use them.

    With `low_memory` they are loaded when they are called, and released. `prompts` keeps what the
    language model knows of prompts, where it can go on from it. `batching` is which utterances are
    decoded together.
    """

    bundle: Bundle
    host: Host
    frontend: Frontend
    decoder: SpeechDecoder
    flow: FlowDecoder
    vocoder: Vocoder
    voices: OpenedVoices
    low_memory: bool = False
    prompts: Prompts | None = None
    batching: Batching = ALONE

    def solver_name(self, solver: Solver) -> str:
        """CALIBRATED for the bundle's own table, REFERENCE for any other."""
        return CALIBRATED if solver == self.flow.table else REFERENCE

    def with_solver(self, solver: Solver) -> "Loaded":
        """The same bundle with a solver to use unless another is asked for."""
        return replace(self, flow=replace(self.flow, table=solver))

    def solver(self, name: str = AUTO, steps: int | None = None) -> Solver:
        """A solver of the flow decoder by its name; raises UsageError if it is not there.

        A number of steps is one of the reference solver's.
        """
        has = self.flow.table is not None
        solvers.require(name, steps, has, self.host.runtime, self.bundle.folder)
        own = name == REFERENCE or steps
        return euler(self.flow.settings, steps) if own else self.flow.solver

    @property
    def stream(self) -> ChunkedSynthesis:
        """Flow decoder and vocoder on a growing token sequence."""
        settings = self.bundle.manifest.host.schedule
        made: ChunkedSynthesis = strategy("schedule", settings)(settings, self.flow, self.vocoder)
        return made


# Where a loaded bundle has what runs a part of the host's loops. Its sessions are called as roles.
_FIELDS = {"language_model": "decoder", "flow": "flow", "vocoder": "vocoder"}


def _place(loaded: Loaded, stage: str) -> tuple[str, Role]:
    """The field whose part calls a network, and the network's role, which is its name there."""
    manifest = loaded.bundle.manifest
    role = manifest.stages[stage].use.role
    return _FIELDS[manifest.host.networks()[role][0]], role


def session_of(loaded: Loaded, stage: str) -> Session:
    """The session of a network."""
    part, role = _place(loaded, stage)
    return cast(Session, getattr(getattr(loaded, part), role))


def with_session(loaded: Loaded, stage: str, session: Session) -> Loaded:
    """The same bundle with another session for one of its networks."""
    part, role = _place(loaded, stage)
    changed = replace(getattr(loaded, part), **{role: session})
    return replace(loaded, **{part: changed})


def forked(loaded: Loaded, swap: Mapping[int, Watcher]) -> Loaded:
    """The same weights with caches of their own: both may speak at once.

    `swap` has another watcher in place of some, by their `id`.
    """

    def fork(session: Session) -> Session:
        forked = session.fork()
        if not isinstance(forked, Watched):
            return forked
        watchers = [swap.get(id(watcher), watcher) for watcher in forked.watchers]
        return replace(forked, watchers=watchers)

    for stage in loaded.bundle.manifest.stages:
        loaded = with_session(loaded, stage, fork(session_of(loaded, stage)))
    if loaded.flow.continuing is None:
        return loaded
    return replace(loaded, flow=replace(loaded.flow, continuing=fork(loaded.flow.continuing)))


def open_continuing(bundle: Bundle, name: str, host: Host) -> Session | None:
    """The form of a network that goes on from finished frames, loaded when it is first called.

    None if the bundle has none, or where networks run on an accelerator.
    """
    stage = bundle.manifest.stages[name]
    variant = stage.variants[host.runtime]
    file = next((f for f in variant.files if f.endswith(CONTINUING)), None)
    if file is None or (host.placement and host.placement.accelerated):
        return None
    options = host.options(name, stage.use, variant.precision)
    runner = engine(variant.engine or host.runtime)

    def opened() -> Session:
        bundle.check(variant.files)
        bundle.check_folder(file)
        require_room(str(bundle.path(file)))
        return runner.open(bundle.path(file), (), options)

    return Residency().session(name, opened)


def choose(
    bundle: Bundle,
    runtime: str | None,
    threads: int | None = None,
    plan: CpuPlan | None = None,
    wanted: Wanted = AS_PROMISED,
) -> Host:
    """The named runtime or the first that is installed, on the CPUs of a plan, and the provider.

    Without a plan, on those this process may use, with `threads` threads or one a core.
    """
    plan = plan or current(Wish(threads=threads))
    chosen = installed.chosen(bundle, runtime)
    return Host(chosen, plan.threads, plan, placement=place(bundle, chosen, wanted))


def open_stage(bundle: Bundle, name: str, host: Host, taps: Sequence[str] = ()) -> Session:
    """Check and load one network; `taps` are inner values to return as well.

    Its files are hashed each time it is opened: they may have changed since the last time.
    """
    stage = bundle.manifest.stages[name]
    variant = stage.variants[host.runtime]
    size = sum(bundle.manifest.files[file].bytes for file in variant.files)
    options = host.options(name, stage.use, variant.precision, size, taps)
    runner = engine(variant.engine or host.runtime)

    def opened(file: str, options: Options) -> Session:
        bundle.check(variant.files)
        bundle.check_folder(file)
        path = bundle.path(file)
        require_room(str(path))
        session = runner.open(path, stage.states, options)
        if (shapes := session.shapes()) is not None:
            require_shapes(name, shapes, recorded(bundle)[name], path)
            require_caches(name, shapes, stage.states, path)
        return session

    session = opened(variant.files[0], options)
    placed = session.placed
    if not host.placement or placed is None:
        return session
    host.placement.settle(name, placed)
    twin = next((f for f in variant.files if f.endswith(TWIN)), None)
    if twin is None or options.accelerator is None:
        return session
    exact = replace(options, accelerator=options.accelerator.without("tensorrt"))
    again = partial(opened, twin, exact)
    return Guarded(name, session, again, host.placement.reruns)


def load(
    folder: Path,
    runtime: str | None = None,
    threads: int | None = None,
    options: LoadOptions = LoadOptions(),
) -> Loaded:
    """Check and load a bundle for one of its runtimes, or the first that is installed.

    With `options.memory` "low" networks are only checked now. They are loaded, and checked again,
    when they are called, one group of `residency` at a time. Voices and tokenizer have to fit the
    networks. The bundle's path is made absolute, so that this process, or a link to the bundle, may
    move afterwards.
    """
    bundle = open_bundle(folder)
    bundle = replace(bundle, folder=folder.resolve())
    host = choose(bundle, runtime, threads, options.plan, options.wanted)
    host = replace(host, profile=options.profile, repacked=options.repacked or bool(options.batch))
    manifest = bundle.manifest
    if options.memory not in MEMORY:
        raise UsageError(discovery.unknown("memory", options.memory, MEMORY))
    batching.require(options.batch)
    low_memory, watchers = options.memory == "low", list(options.watchers)
    residency = Residency()
    frontend = open_frontend(bundle)
    voices = OpenedVoices(bundle, require_fit(bundle, frontend.tokenizer))

    def watched(name: str, session: Session) -> Session:
        return Watched(name, session, watchers) if watchers else session

    def session(name: str) -> Session:
        stage = manifest.stages[name]
        if low_memory:
            bundle.check(stage.variants[host.runtime].files)
            again = partial(open_stage, bundle, name, host)
            loaded: Session = residency.session(group(name, stage.use), again)
        else:
            loaded = open_stage(bundle, name, host)
            options.on_stage(name)
        return watched(name, loaded)

    def size(name: str) -> int:
        return sum(
            manifest.files[f].bytes for f in manifest.stages[name].variants[host.runtime].files
        )

    # The largest network first: loading one needs more memory than having it.
    names = sorted(manifest.stages, key=size, reverse=True)
    sessions = {manifest.stages[name].use.role: session(name) for name in names}

    def part(name: str) -> Any:
        settings = manifest.host.parts()[name]
        own = {role: sessions[role] for role in settings.networks(manifest.host)}
        return strategy(name, settings)(settings, **own)

    estimator = manifest.stage_of("estimator")
    continuing = None if low_memory else open_continuing(bundle, estimator, host)
    accelerated = bool(host.placement and host.placement.accelerated)
    lacking = "with low memory utterances are decoded one by one" if low_memory else ""
    calibrated = manifest.solvers.get(host.runtime)
    peak = manifest.device.peak_bytes
    loaded = Loaded(
        bundle,
        host,
        frontend,
        part("language_model"),
        replace(
            part("flow"),
            table=calibrated.solver if calibrated else None,
            memory=peak if isinstance(peak, int) else None,
            continuing=continuing and watched(estimator, continuing),
        ),
        part("vocoder"),
        voices,
        low_memory=low_memory,
        prompts=None if accelerated or low_memory else Prompts(bundle, host.runtime),
        batching=batching.chosen(
            options.batch, lacking or _one_by_one(bundle, host, sessions["language_model"])
        ),
    )
    if accelerated:  # it has the memory, and prepares its convolutions for every length
        whole = replace(loaded.vocoder, window=manifest.host.flow.noise_frames)
        return replace(loaded, vocoder=whole)
    return loaded


def _one_by_one(bundle: Bundle, host: Host, language_model: Session) -> str:
    """Why utterances are decoded one by one, in words; or ""."""
    if language_model.rows() is not None:
        return ""
    stage = bundle.manifest.stage_of("language_model")
    recipe = bundle.manifest.stages[stage].variants[host.runtime].recipe
    return (
        f"{bundle.folder}: {stage} in {host.runtime} (recipe {recipe}) decodes one by one; "
        "bundles for ONNX Runtime on Intel CPUs decode several at once, except with dynamic-u8"
    )


def open_frontend(bundle: Bundle) -> Frontend:
    """The text front end, its files checked; a language's reader is loaded when first needed."""
    manifest = bundle.manifest
    bundle.check(file for n in manifest.normalizers.values() for file in n.files)
    if unknown := {n.name for n in manifest.normalizers.values()} - set(normalizers()):
        raise UnsupportedError(
            f"{bundle.folder}: needs the normalizer {min(unknown)!r}, which this edgepack does not "
            "know; update it"
        )
    readers = {
        code: Reader(
            n.name, n.locale, [bundle.path(f) for f in n.files], partial(bundle.check, n.files)
        )
        for code, n in manifest.normalizers.items()
    }
    settings = manifest.host.text
    tokenizer = read_tokenizer(bundle.read(manifest.tokenizer), bundle.path(manifest.tokenizer))
    made: Frontend = strategy("text", settings)(tokenizer, settings, Normalization(readers))
    return made


def open_enroller(bundle: Bundle, host: Host) -> Enroller:
    """The networks that make voices of recordings; raises UsageError if the bundle has none.

    They are ONNX files; an engine that cannot read those has ONNX Runtime beside it.
    """
    models = bundle.manifest.enrolment
    if not models:
        raise UsageError(
            f"{bundle.folder}: has no enrolment networks; build it from a checkpoint that has them"
        )

    # Called once a voice: no GPU is promised for them.
    options = host.on_cpus(Options(host.threads, profile=host.profile))
    runner = engine(host.runtime)
    runner = runner if runner.reads_onnx else engine(_ONNX_ENGINE)

    def model(name: str) -> EnrolmentModel:
        carried = models[name]
        bundle.check([carried.file])
        bundle.check_folder(carried.file)
        path = bundle.path(carried.file)
        return EnrolmentModel(carried, runner.open(path, (), options))

    manifest = bundle.manifest
    return Enroller(
        manifest.sample_rate,
        manifest.host,
        model("speech_tokenizer"),
        model("speaker_encoder"),
    )
