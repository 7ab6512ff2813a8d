"""From a bundle on disk to loaded networks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from edgepack import arrays, discovery
from edgepack.bundle import Bundle, open_bundle
from edgepack.errors import IntegrityError, UnsupportedError, UsageError
from edgepack.manifest import Solver
from edgepack.runtime import installed
from edgepack.runtime import solver as solvers
from edgepack.runtime.coverage import Coverage, from_text
from edgepack.runtime.cpu.plan import CpuPlan, Wish, current
from edgepack.runtime.decode import SpeechDecoder
from edgepack.runtime.enrol import Enroller, Model
from edgepack.runtime.fit import recorded, require_caches, require_fit, require_shapes
from edgepack.runtime.flow import FlowDecoder
from edgepack.runtime.gpu.guard import Guarded
from edgepack.runtime.gpu.placement import AS_PROMISED, Placement, Wanted, place
from edgepack.runtime.memory import require_room
from edgepack.runtime.normalization import Normalization, Reader, normalizers
from edgepack.runtime.opened_voices import OpenedVoices
from edgepack.runtime.prompts import Prompts
from edgepack.runtime.residency import Residency
from edgepack.runtime.session import Options, Session, engine
from edgepack.runtime.solver import AUTO, CALIBRATED, REFERENCE, euler
from edgepack.runtime.stream import ChunkedSynthesis
from edgepack.runtime.text import Frontend
from edgepack.runtime.vocoder import WINDOW, Vocoder
from edgepack.runtime.watch import Watched, Watcher

# Decoding reads each weight once a token: repacking gigabytes would only delay the first one.
# Integer weights are repacked, which is what makes their kernels fast.
_MAPPED = frozenset({"speech_lm", "text_embedding", "speech_embedding"})
_MAPPED_PRECISIONS = frozenset({"fp32", "fp16"})
# Called once an utterance: what they compute with need not be resident all at once.
_TRANSIENT = frozenset({"flow_encoder", "hift_source", "hift"})
# Called with equal shapes several times in a row.
_REPEATED = frozenset({"flow_estimator"})
# Called a few times an utterance: giving memory back costs a small network more than a large one.
_TRANSIENT_IF_LARGE, _LARGE_BYTES = frozenset({"flow_estimator"}), 32 << 20

_ONNX_ENGINE = "ort"
TWIN = ".fp32.onnx"  # the file of a network that computes in fp32 with the same weights
MEMORY = ("all", "low")


@dataclass(frozen=True)
class Host:
    """Where networks run: an engine by name, its compute threads, and the plan they come from.

    Without a placement they run on the CPU.
    """

    runtime: str
    threads: int
    plan: CpuPlan | None = field(default=None, compare=False)
    profile: bool = False
    placement: Placement | None = field(default=None, compare=False)

    @property
    def overlaps(self) -> bool:
        """Whether tokens of the next sentence are decoded while one is made to sound."""
        return self.plan.overlap if self.plan else self.threads > 1

    def options(
        self, stage: str, precision: str = "fp32", size: int = 0, taps: Sequence[str] = ()
    ) -> Options:
        """How this host loads a stage with weights of a precision, `size` bytes in all."""
        mapped = stage in _MAPPED and precision in _MAPPED_PRECISIONS
        large = stage in _TRANSIENT_IF_LARGE and size > _LARGE_BYTES
        transient = large or stage in _TRANSIENT
        options = Options(self.threads, mapped, transient, taps, profile=self.profile)
        if self.placement and (on := self.placement.accelerator(stage)):
            return replace(options, accelerator=replace(on, repeated=stage in _REPEATED))
        if not self.plan or not self.plan.pinned:
            return replace(options, spin=bool(self.plan and self.plan.spin))
        plan = self.plan
        return replace(options, cpus=plan.cpus, kind=plan.kind, spin=plan.spin)


@dataclass(frozen=True)
class Loaded:
    """A bundle whose networks are in memory, as the parts of the synthesis that use them.

    With `low_memory` they are loaded when they are called, and released. `prompts` keeps what the
    language model knows of prompts, where it can go on from it.
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
        return ChunkedSynthesis(self.bundle.manifest.stream, self.flow, self.vocoder)


# Where each network of a loaded bundle is: the part, and its field there.
_PLACES: dict[str, tuple[str, str]] = {
    "speech_lm": ("decoder", "decoder"),
    "text_embedding": ("decoder", "text_embedding"),
    "speech_embedding": ("decoder", "speech_embedding"),
    "flow_encoder": ("flow", "encoder"),
    "flow_time": ("flow", "time"),
    "flow_estimator": ("flow", "estimator"),
    "hift_source": ("vocoder", "excitation"),
    "hift": ("vocoder", "generator"),
}


def session_of(loaded: Loaded, stage: str) -> Session:
    """The session of a network."""
    part, name = _PLACES[stage]
    return cast(Session, getattr(getattr(loaded, part), name))


def with_session(loaded: Loaded, stage: str, session: Session) -> Loaded:
    """The same bundle with another session for one of its networks."""
    part, name = _PLACES[stage]
    changed = replace(getattr(loaded, part), **{name: session})
    return replace(loaded, **{part: changed})


def forked(loaded: Loaded, swap: Mapping[int, Watcher]) -> Loaded:
    """The same weights with caches of their own: both may speak at once.

    `swap` has another watcher in place of some, by their `id`.
    """
    for stage in _PLACES:
        session = session_of(loaded, stage).fork()
        if isinstance(session, Watched):
            watchers = [swap.get(id(watcher), watcher) for watcher in session.watchers]
            session = Watched(stage, session.session, watchers)
        loaded = with_session(loaded, stage, session)
    return loaded


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
    runtimes = bundle.runtimes()
    if runtime and runtime not in runtimes:
        raise UsageError(f"{bundle.folder}: {discovery.unknown('runtime', runtime, runtimes)}")
    plan = plan or current(Wish(threads=threads))
    chosen = runtime or installed.usable(bundle)[0]
    installed.require(bundle, chosen)
    return Host(chosen, plan.threads, plan, placement=place(bundle, chosen, wanted))


def open_stage(bundle: Bundle, name: str, host: Host, taps: Sequence[str] = ()) -> Session:
    """Check and load one network; `taps` are inner values to return as well.

    Its files are hashed each time it is opened: they may have changed since the last time.
    """
    stage = bundle.manifest.stages[name]
    variant = stage.variants[host.runtime]
    size = sum(bundle.manifest.files[file].bytes for file in variant.files)
    options = host.options(name, variant.precision, size, taps)
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
    watchers: Sequence[Watcher] = (),
    *,
    plan: CpuPlan | None = None,
    memory: str = "all",
    profile: bool = False,
    wanted: Wanted = AS_PROMISED,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> Loaded:
    """Check and load a bundle; `watchers` see every call of a network.

    `on_stage` is told of each network that is in memory. With `profile` engines time operators.
    With `memory` "low" networks are only checked now, and loaded when they are called, checked
    again: one group of `residency` at a time. Voices and tokenizer have to fit the networks.
    What is read later is found wherever this process, or a link to the bundle, has gone by then.
    """
    bundle = open_bundle(folder)
    bundle = replace(bundle, folder=folder.resolve())
    host = replace(choose(bundle, runtime, threads, plan, wanted), profile=profile)
    manifest = bundle.manifest
    if memory not in MEMORY:
        raise UsageError(discovery.unknown("memory", memory, MEMORY))
    residency = Residency()
    frontend = open_frontend(bundle)
    voices = OpenedVoices(bundle, require_fit(bundle, frontend.tokenizer))

    def session(name: str) -> Session:
        if memory == "low":
            bundle.check(manifest.stages[name].variants[host.runtime].files)
            again = partial(open_stage, bundle, name, host)
            loaded: Session = residency.session(name, again)
        else:
            loaded = open_stage(bundle, name, host)
            on_stage(name)
        return Watched(name, loaded, list(watchers)) if watchers else loaded

    accelerated = bool(host.placement and host.placement.accelerated)
    calibrated = manifest.solvers.get(host.runtime)
    peak = manifest.device.peak_bytes
    # The largest network first: loading one needs more memory than having it.
    lm = session("speech_lm")
    return Loaded(
        bundle,
        host,
        frontend,
        SpeechDecoder(
            manifest.language_model, session("text_embedding"), session("speech_embedding"), lm
        ),
        FlowDecoder(
            manifest.flow,
            session("flow_encoder"),
            session("flow_time"),
            session("flow_estimator"),
            calibrated.solver if calibrated else None,
            peak if isinstance(peak, int) else None,
        ),
        Vocoder(
            manifest.vocoder,
            session("hift_source"),
            session("hift"),
            # A GPU has the memory, and prepares its convolutions for every length.
            manifest.flow.noise_frames if accelerated else WINDOW,
        ),
        voices,
        low_memory=memory == "low",
        prompts=None if accelerated or memory == "low" else Prompts(bundle, host.runtime),
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
    return Frontend.read(
        bundle.read(manifest.tokenizer),
        bundle.path(manifest.tokenizer),
        manifest.end_of_prompt,
        Normalization(readers),
    )


def kept_rows(bundle: Bundle) -> list[int]:
    """The original id of each text token of a trimmed bundle, ascending; empty for others."""
    trim = bundle.manifest.trim
    if trim is None:
        return []
    path = bundle.path(trim.rows)
    rows = arrays.parse(bundle.read(trim.rows), path, "a list of rows").get("rows")
    if (
        rows is None
        or arrays.mismatch({"rows": rows}, {"rows": ("i", (trim.rows_after,))})
        or not arrays.within(rows, trim.rows_before)
        or (np.diff(rows) <= 0).any()
    ):
        raise IntegrityError(f"{path}: not a list of {trim.rows_after} ascending rows")
    return [int(row) for row in rows]


def open_coverage(bundle: Bundle, frontend: Frontend) -> Coverage | None:
    """Which text the bundle's tokenizer was trimmed for; None if it was not trimmed."""
    trim = bundle.manifest.trim
    if trim is None:
        return None
    special = [token.content for token in frontend.tokenizer.get_added_tokens_decoder().values()]
    return Coverage(from_text(trim.alphabet), frozenset(trim.words), special)


def open_enroller(bundle: Bundle, host: Host) -> Enroller:
    """The networks that make voices of recordings; raises UsageError if the bundle has none.

    They are ONNX files; an engine that cannot read those has ONNX Runtime beside it.
    """
    models = bundle.manifest.enrolment
    if not models:
        raise UsageError(
            f"{bundle.folder}: has no enrolment networks; build it from a checkpoint that has them"
        )

    on_cpu = replace(host, placement=None)  # once a voice: no GPU is promised for it
    runner = engine(host.runtime)
    runner = runner if runner.reads_onnx else engine(_ONNX_ENGINE)

    def model(name: str) -> Model:
        carried = models[name]
        bundle.check([carried.file])
        bundle.check_folder(carried.file)
        path = bundle.path(carried.file)
        return Model(carried, runner.open(path, (), on_cpu.options(name)))

    manifest = bundle.manifest
    return Enroller(
        manifest.sample_rate,
        manifest.flow.ratio,
        manifest.prompt_mel,
        model("speech_tokenizer"),
        model("speaker_encoder"),
    )
