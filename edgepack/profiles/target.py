"""Target profiles: one YAML file per device, found by its file name. Data only, no inheritance."""

import difflib
import re
from collections.abc import Collection, Iterable
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import yaml

from edgepack import discovery
from edgepack.bundle.goals import Goals
from edgepack.bundle.manifest import Device, Release, Sensor, Watts
from edgepack.bundle.metrics import Limit, Limits
from edgepack.bundle.ranges import Precision
from edgepack.bundle.stages import Role
from edgepack.errors import UsageError
from edgepack.profiles.recipe import QUANTIZED


class ProfilePart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a profile: immutable; unknown keys are refused."""


class RuntimeOptions(ProfilePart, frozen=True):
    """How one runtime's files are written.

    `container` is a file format of that runtime; `platform` is the instruction set that its
    optimizer may specialise for. With `on_request` files are written only if the user asks for this
    format. `opset` is an older ONNX opset to write, 0 for the newest. `fuse` is whether several
    ONNX operators may become one that only this runtime has, `fuse_decoder` whether those of the
    language model may, too. `batched` is whether the language model decodes several utterances in
    one call where its recipe allows that, `continuing` whether streams keep what the flow decoder
    computed of finished frames. `delegates` are other runtimes with the roles of stages
    that they may run if they are faster; both have to be installed then.
    """

    container: str
    platform: str = ""
    on_request: bool = False
    opset: int = 0
    fuse: bool = True
    fuse_decoder: bool = False
    batched: bool = False
    continuing: bool = False
    delegates: dict[str, tuple[Role, ...]] = {}

    def delegates_of(self, role: Role) -> list[str]:
        """Other runtimes that may run a stage of a role."""
        return [runtime for runtime, roles in self.delegates.items() if role in roles]


class CoreClass(ProfilePart, frozen=True):
    """Cores of one kind: what they are called, and how many there are."""

    name: str
    count: int


class Cores(ProfilePart, frozen=True):
    """The cores of a device, and which of them speech should use, on how many threads.

    `layout` is uniform, hybrid, big_little, or any if devices differ. No `threads` means as many
    as there are.
    """

    layout: Literal["uniform", "hybrid", "big_little", "any"]
    use: Literal["all", "performance", "efficiency"]
    threads: int | None = None
    classes: tuple[CoreClass, ...] = ()


class MemoryBudget(ProfilePart, frozen=True):
    """Memory of a device, and what speech may take of it: files of one runtime, and peak RSS.

    In MB of 10⁶ bytes. A build that is over a budget fails.
    """

    ram_mb: int
    bundle_mb: int
    peak_mb: int


class Packaging(ProfilePart, frozen=True):
    """How an app store or an installer takes a bundle.

    `part_mb` is the largest file in MB of 10⁶ bytes; files with a suffix of `no_compress` have to
    be stored uncompressed, or they cannot be memory-mapped. `contract` is whether the bundle has
    `host_loop.json`, which tells programs in other languages how to run its networks.
    """

    compression: Literal["stored", "any"]
    part_mb: int
    no_compress: tuple[str, ...] = ()
    contract: bool = False


class Energy(ProfilePart, frozen=True):
    """Energy meters to try, in order of preference, and what the figure should cover.

    `sensors` says what the board's hwmon sensors measure; `watts` are for an estimate on request.
    """

    meters: tuple[str, ...]
    scope: str = ""
    sensors: tuple[Sensor, ...] = ()
    watts: Watts | None = None


class Span(ProfilePart, frozen=True):
    """The smallest, the usual and the largest length that a TensorRT engine is built for."""

    least: int
    usual: int
    most: int


class Gpu(ProfilePart, frozen=True):
    """An NVIDIA GPU, and how ONNX Runtime uses it.

    `architecture` is a compute capability such as sm_87, "" for any. `providers` maps a role to
    tensorrt, cuda or cpu; the key `default` is for all other roles. `text` and `speech` are
    numbers of tokens of one utterance, those of its prompt included. `releases` are releases of
    JetPack, empty for machines that are no Jetson.
    """

    architecture: str
    int8: bool
    providers: dict[Role, Literal["tensorrt", "cuda", "cpu"]]
    workspace_mb: int
    text: Span
    speech: Span
    releases: tuple[Release, ...] = ()

    def provider(self, role: Role) -> str:
        """The provider a stage of a role is to run on."""
        return self.providers.get(role, self.providers["default"])


class SolverPolicy(ProfilePart, frozen=True):
    """How the flow decoder's ODE is solved.

    With `use` auto a solver is calibrated if any network is approximate; with reference it is the
    checkpoint's own. A calibrated solver may take at most `evaluations` of the estimator, and its
    error in dB may be at most `decibel`, None for the error of the original's solver.
    """

    use: Literal["auto", "reference", "calibrated"] = "auto"
    evaluations: int = 10
    decibel: float | None = None


class StreamPolicy(ProfilePart, frozen=True):
    """How streams end, in runtimes that go on from finished chunks (`continuing`).

    The last chunk is computed whole, with all before it, as in the original; or continued, which
    costs less and may be `decibel` from the original's on average (`stream_lsd`).
    """

    last_chunk: Literal["whole", "continued"] = "whole"
    decibel: float = 1.0

    @property
    def continued(self) -> bool:
        """Whether the last chunk goes on."""
        return self.last_chunk == "continued"


class TargetProfile(ProfilePart, frozen=True):
    """What a device runs: its runtimes in order of preference, and the precision of each role.

    `os` names the system with its least version. `isa` are instruction sets beyond the
    architecture's baseline, such as avx2 or neon. `precision` maps a role to fp32, fp16, int8 or
    int4; the key `default` is for all other roles. `gates` are limits of metrics by the precision
    of the networks that they judge; empty means the standard ones. `enrolment` is whether bundles
    carry the networks that make voices of recordings, which a bundle with voices can do without.
    `goals` are what a benchmark of its bundles is measured against.
    """

    summary: str
    architecture: str
    runtimes: dict[str, RuntimeOptions]
    precision: dict[Role, Precision]
    os: dict[str, str] = {}
    isa: tuple[str, ...] = ()
    cores: Cores | None = None
    memory: MemoryBudget | None = None
    packaging: Packaging | None = None
    energy: Energy | None = None
    gpu: Gpu | None = None
    solver: SolverPolicy = SolverPolicy()
    stream: StreamPolicy = StreamPolicy()
    gates: dict[Precision, Limits] = {}
    goals: Goals = Goals()
    enrolment: bool = True

    @property
    def device(self) -> Device:
        """The part of the profile that goes into a bundle's manifest, for the device itself."""
        cores = self.cores or Cores("any", "all")
        energy = self.energy or Energy(())
        return Device(
            cpus=cores.use,
            threads=cores.threads,
            meters=energy.meters,
            scope=energy.scope,
            sensors=energy.sensors,
            watts=energy.watts,
            peak_bytes=self.memory.peak_mb * 1_000_000 if self.memory else msgspec.UNSET,
            goals=self.goals,
        )

    @property
    def features(self) -> tuple[str, ...]:
        """Instruction sets, with "cuda" and "cuda_int8" for a GPU, by which recipes are chosen."""
        if not self.gpu:
            return self.isa
        return (*self.isa, "cuda", *(["cuda_int8"] if self.gpu.int8 else []))

    def precision_of(self, role: Role) -> Precision:
        """The precision this profile gives to stages of a role."""
        return self.precision.get(role, self.precision["default"])


def _files() -> dict[str, Traversable]:
    folder = resources.files("edgepack.profiles") / "targets"
    return {
        entry.name.removesuffix(".yaml"): entry
        for entry in sorted(folder.iterdir(), key=lambda e: e.name)
        if entry.name.endswith(".yaml")
    }


def formats(runtimes: Iterable[str]) -> str:
    """The options of `edgepack build` that choose these runtimes, for messages."""
    return " ".join(f"--format {runtime}" for runtime in runtimes)


def names() -> list[str]:
    """Names of all targets, sorted."""
    return list(_files())


def load(name: str) -> TargetProfile:
    """The profile of a target; raises UsageError for an unknown target, key or value."""
    files = _files()
    if name not in files:
        summaries = {known: load(known).summary for known in files}
        raise UsageError(discovery.unknown("target", name, files, summaries))
    return parse(name, files[name].read_text("utf-8"))


def general(architecture: str, isa: Collection[str]) -> str | None:
    """The profile for any Linux machine of an architecture with these instruction sets, if any.

    Of several the one with the shortest name is taken, as it is the most general.
    """
    profiles = {name: load(name) for name in names()}
    fitting = [
        name
        for name, profile in profiles.items()
        if profile.architecture == architecture
        and "linux" in profile.os.values()
        and not profile.gpu
        and set(profile.isa) <= set(isa)
    ]
    return min(fitting, key=len, default=None)


def parse(name: str, text: str) -> TargetProfile:
    """A profile from its YAML text; an unknown key is refused with the closest known one."""
    try:
        profile = msgspec.convert(yaml.safe_load(text), TargetProfile)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise UsageError(f"target {name}: {error}{_suggestion(str(error))}") from None
    if "default" not in profile.precision:
        raise UsageError(f"target {name}: precision needs a 'default'")
    if profile.stream.continued and not any(r.continuing for r in profile.runtimes.values()):
        raise UsageError(f"target {name}: stream.last_chunk needs a runtime that is 'continuing'")
    if profile.gpu and "default" not in profile.gpu.providers:
        raise UsageError(f"target {name}: gpu.providers needs a 'default'")
    if not profile.gates:
        return msgspec.structs.replace(profile, gates=_standard_gates())
    for precision in set(profile.precision.values()) & set(QUANTIZED):
        if not profile.gates.get(precision):
            raise UsageError(f"target {name}: gates have no limits for {precision}")
    return profile


def _standard_gates() -> dict[Precision, Limits]:
    text = (resources.files("edgepack.profiles") / "standard_gates.yaml").read_text("utf-8")
    return msgspec.convert(yaml.safe_load(text), dict[Precision, Limits])


def _suggestion(message: str) -> str:
    """The known key or value that is closest to the one that was refused, in words."""
    unknown = re.search(r"(?:unknown field `|[Ii]nvalid enum value ')(\w+)", message)
    parts = (
        TargetProfile, RuntimeOptions, Cores, CoreClass, MemoryBudget, Packaging, Energy, Sensor,
        Watts, Gpu, Span, Release, SolverPolicy, StreamPolicy, Limit, Goals,
    )  # fmt: skip
    known = [name for part in parts for name in part.__struct_fields__]
    known += [
        word for part in parts for hint in get_type_hints(part).values() for word in _words(hint)
    ]
    close = difflib.get_close_matches(unknown[1], known, n=1) if unknown else []
    return f"; did you mean {close[0]!r}?" if close else ""


def _words(hint: Any) -> list[str]:
    """The values that the type of a field allows (those of Literal), inner types included."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [word for inner in get_args(hint) for word in _words(inner)]
