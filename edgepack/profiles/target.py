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
from edgepack.errors import UsageError
from edgepack.goals import Goals
from edgepack.manifest import Device, Release, Sensor, Watts
from edgepack.metrics import Limit, Limits
from edgepack.ranges import Precision
from edgepack.recipe import QUANTIZED


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a profile: immutable, and closed to unknown keys."""


class RuntimeOptions(Record, frozen=True):
    """How one runtime's files are written.

    `container` is a file format of that runtime; `platform` the instruction set that its
    optimizer may specialise for. What is `on_request` is written only if its format is asked for.
    `opset` is an older one than the hub's, 0 for the hub's own. `fuse` is whether operators that
    only this runtime has may stand for several of ONNX. `guests` are other runtimes that may run
    stages of this one, where they are faster: both have to be installed on the device.
    """

    container: str
    platform: str = ""
    on_request: bool = False
    opset: int = 0
    fuse: bool = True
    guests: dict[str, tuple[str, ...]] = {}

    def guests_of(self, stage: str) -> list[str]:
        """Other runtimes that may run a stage."""
        return [guest for guest, stages in self.guests.items() if stage in stages]


class CoreClass(Record, frozen=True):
    """Cores of one kind: what they are called, and how many there are."""

    name: str
    count: int


class Cores(Record, frozen=True):
    """The cores of a device, and which of them speech should use, on how many threads.

    `layout` is uniform, hybrid, big_little, or any if devices differ. No `threads` means as many
    as there are.
    """

    layout: Literal["uniform", "hybrid", "big_little", "any"]
    use: Literal["all", "performance", "efficiency"]
    threads: int | None = None
    classes: tuple[CoreClass, ...] = ()


class Memory(Record, frozen=True):
    """Memory of a device, and what speech may take of it: files of one runtime, and peak RSS.

    In MB of 10⁶ bytes. A build that is over a budget fails.
    """

    ram_mb: int
    bundle_mb: int
    peak_mb: int


class Packaging(Record, frozen=True):
    """How an app store or an installer takes a bundle.

    `part_mb` is the largest file in MB of 10⁶ bytes; files with a suffix of `no_compress` have to
    be stored as they are, or they cannot be mapped. `contract` is whether the bundle says for
    programmers of other languages how its networks are driven.
    """

    compression: Literal["stored", "any"]
    part_mb: int
    no_compress: tuple[str, ...] = ()
    contract: bool = False


class Energy(Record, frozen=True):
    """Energy meters to try, in order of preference, and what the figure should cover.

    `sensors` says what the board's hwmon sensors measure; `watts` are for an estimate on request.
    """

    meters: tuple[str, ...]
    scope: str = ""
    sensors: tuple[Sensor, ...] = ()
    watts: Watts | None = None


class Span(Record, frozen=True):
    """The least, the usual and the greatest length that an engine is built for."""

    least: int
    usual: int
    most: int


class Gpu(Record, frozen=True):
    """An NVIDIA GPU, and how ONNX Runtime uses it.

    `architecture` is such as sm_87, "" for any. `providers` maps a stage to tensorrt, cuda or cpu;
    `default` is every other one. `text` and `speech` are tokens of one utterance, its prompt
    counted in. `releases` are those of JetPack, none for machines that are no Jetson.
    """

    architecture: str
    int8: bool
    providers: dict[str, Literal["tensorrt", "cuda", "cpu"]]
    workspace_mb: int
    text: Span
    speech: Span
    releases: tuple[Release, ...] = ()

    def provider(self, stage: str) -> str:
        """The provider a stage is to run on."""
        return self.providers.get(stage, self.providers["default"])


class SolverPolicy(Record, frozen=True):
    """How the flow decoder's ODE is solved.

    With `use` auto a solver is calibrated if any network is approximate; reference is the
    checkpoint's own. `evaluations` is the budget of a calibrated one, `decibel` its largest error,
    none for that of the original's solver.
    """

    use: Literal["auto", "reference", "calibrated"] = "auto"
    evaluations: int = 10
    decibel: float | None = None


class TargetProfile(Record, frozen=True):
    """What a device runs: its runtimes in order of preference, and the precision of each stage.

    `os` names the system with its least version. `isa` are instruction sets beyond the
    architecture's least, such as avx2 or neon. `precision` maps a stage to fp32, fp16, int8 or
    int4; `default` is every other one. `gates` are limits of metrics by the precision of the
    networks they are about, the standard ones if there are none. `enrolment` is whether bundles
    carry the networks that make voices of recordings, which a bundle with voices can do without.
    `goals` are what a benchmark of its bundles is measured against.
    """

    summary: str
    architecture: str
    runtimes: dict[str, RuntimeOptions]
    precision: dict[str, Precision]
    os: dict[str, str] = {}
    isa: tuple[str, ...] = ()
    cores: Cores | None = None
    memory: Memory | None = None
    packaging: Packaging | None = None
    energy: Energy | None = None
    gpu: Gpu | None = None
    solver: SolverPolicy = SolverPolicy()
    gates: dict[Precision, Limits] = {}
    goals: Goals = Goals()
    enrolment: bool = True

    @property
    def device(self) -> Device:
        """What the device itself has to know of this."""
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
        """Instruction sets, and what a GPU adds to them for the choice of recipes."""
        if not self.gpu:
            return self.isa
        return (*self.isa, "cuda", *(["cuda_int8"] if self.gpu.int8 else []))

    def stage_precision(self, stage: str) -> Precision:
        """The precision this profile gives to a stage."""
        return self.precision.get(stage, self.precision["default"])


def _files() -> dict[str, Traversable]:
    folder = resources.files("edgepack") / "targets"
    return {
        entry.name.removesuffix(".yaml"): entry
        for entry in sorted(folder.iterdir(), key=lambda e: e.name)
        if entry.name.endswith(".yaml")
    }


def formats(runtimes: Iterable[str]) -> str:
    """How some of a target's runtimes are asked for alone."""
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

    Of those that would do, the one that says least of its device has the shortest name.
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
    if profile.gpu and "default" not in profile.gpu.providers:
        raise UsageError(f"target {name}: gpu.providers needs a 'default'")
    if not profile.gates:
        return msgspec.structs.replace(profile, gates=_standard_gates())
    for precision in set(profile.precision.values()) & set(QUANTIZED):
        if not profile.gates.get(precision):
            raise UsageError(f"target {name}: gates have no limits for {precision}")
    return profile


def _standard_gates() -> dict[Precision, Limits]:
    text = (resources.files("edgepack") / "standard_gates.yaml").read_text("utf-8")
    return msgspec.convert(yaml.safe_load(text), dict[Precision, Limits])


def _suggestion(message: str) -> str:
    """The known key or value that is closest to the one that was refused, in words."""
    unknown = re.search(r"(?:unknown field `|[Ii]nvalid enum value ')(\w+)", message)
    parts = (
        TargetProfile, RuntimeOptions, Cores, CoreClass, Memory, Packaging, Energy, Sensor, Watts,
        Gpu, Span, Release, SolverPolicy, Limit, Goals,
    )  # fmt: skip
    known = [name for part in parts for name in part.__struct_fields__]
    known += [
        word for part in parts for hint in get_type_hints(part).values() for word in _words(hint)
    ]
    close = difflib.get_close_matches(unknown[1], known, n=1) if unknown else []
    return f"; did you mean {close[0]!r}?" if close else ""


def _words(hint: Any) -> list[str]:
    """The words that a type of a field takes, inner types included."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [word for inner in get_args(hint) for word in _words(inner)]
