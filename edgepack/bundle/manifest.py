"""The manifest of a bundle: records that say what the network files cannot say, nothing twice."""

import hashlib
import json
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from edgepack.bundle.goals import Goals
from edgepack.bundle.host import HostLoops
from edgepack.bundle.metrics import Quality
from edgepack.bundle.ranges import (  # fmt: skip
    Alphabet,
    Amount,
    Bytes,
    Count,
    Cpus,
    FileName,
    Length,
    Line,
    Name,
    Precision,
    Rate,
    Ratio,
    Sha256,
    Share,
    Some,
    Struct,
    Text,
    Threads,
    Weight,
    Word,
)
from edgepack.bundle.stages import Role, Use, of_role

FORMAT = 5


class StoredFile(Struct, frozen=True):
    """Size and hash of a file of the bundle."""

    bytes: Bytes
    sha256: Sha256


class State(Struct, frozen=True):
    """A cache of a stage: `output` of one call is `input` of the next, `shape` before the first."""

    input: Word
    output: Word
    shape: Annotated[tuple[Length, ...], Meta(min_length=1, max_length=8)]


class Variant(Struct, frozen=True):
    """A stage in one runtime: `files[0]` is opened, the others are read with it.

    `precision` is how weights are stored. When the bundle was built, the self-test in this
    runtime differed from the fp32 hub by `limit` at most (`verification.selftest.relative_error`);
    how much exactly changes from run to run and is not written down. `recipe` is how it was
    converted, `reason` why that was chosen, "" if there was no choice. `engine` is the runtime that
    runs it if that is another one.
    """

    files: Annotated[tuple[FileName, ...], Meta(min_length=1, max_length=1000)]
    precision: Precision
    limit: Amount
    recipe: Word
    reason: Line = ""
    engine: Line = ""


class Stage(Struct, frozen=True):
    """One network: its use, its runtimes, its caches, its graph inputs and outputs in order.

    `parameters` and `operators` are of the fp32 hub graph, operators counted by type.
    """

    use: Use
    variants: Annotated[dict[Name, Variant], Meta(min_length=1)]
    inputs: tuple[Word, ...]
    outputs: tuple[Word, ...]
    states: Annotated[tuple[State, ...], Meta(max_length=1000)]
    parameters: Count
    operators: dict[Word, Count]


class Carried(Struct, frozen=True):
    """A network of the checkpoint taken over as ONNX, run by any runtime: see `carried`."""

    file: FileName
    inputs: Annotated[tuple[Word, ...], Meta(min_length=1)]
    outputs: Annotated[tuple[Word, ...], Meta(min_length=1)]


class Saving(Struct, frozen=True):
    """Bytes of a part of the bundle if it were for every language, and as it is."""

    before: Bytes
    after: Bytes


class Trim(Struct, frozen=True):
    """How the text vocabulary was cut to the bundle's languages, with the proof.

    Text is exact if its characters are in `alphabet` (ranges of code points in hexadecimal) or
    stand in one of `words`. `rows` is a file with the old id of each new one, ascending, so no
    two ids share a row. `sentences` texts, of that hash, became the same tokens as before.
    """

    tokens_before: Count
    tokens_after: Count
    rows_before: Count
    rows_after: Count
    rows: FileName
    parts: dict[Word, Saving]
    sentences: Count
    sha256: Sha256
    alphabet: Alphabet
    words: tuple[Text, ...]


class Normalizer(Struct, frozen=True):
    """How numbers, dates and units of a language are read: see `runtime.text.normalization`."""

    name: Name
    locale: Name
    files: tuple[FileName, ...]


class SolverStep(Struct, frozen=True):
    """One step of the flow decoder's ODE, from `time` in [0, 1) to that of the next step, or 1.

    The next state is `keep` x + `start` x₀ + Σ `conditional` v₀ + Σ `free` v₁: x₀ is the noise, v₀
    the latest velocities under the utterance's conditions, this step's first, v₁ the latest
    unconditional ones that were computed. A `guided` step computes one.
    """

    time: Share
    guided: bool
    conditional: Annotated[tuple[Weight, ...], Meta(min_length=1)]
    free: tuple[Weight, ...]
    keep: Weight = 1.0
    start: Weight = 0.0


class Solver(Struct, frozen=True):
    """A table of steps: see `runtime.stages.solver`."""

    steps: Annotated[tuple[SolverStep, ...], Meta(min_length=1, max_length=1000)]

    @property
    def evaluations(self) -> int:
        """Evaluations of the estimator for one row, conditional and unconditional."""
        return len(self.steps) + sum(step.guided for step in self.steps)


class Accuracy(Struct, frozen=True):
    """How far a solver is from the exact trajectory of the fp32 networks, in dB.

    Root mean square over frames and bands of the log-mel, mean over `utterances` that calibration
    never saw.
    """

    evaluations: Length
    decibel: Amount


class Calibrated(Struct, frozen=True):
    """The solver of one runtime, fitted to its estimator when the bundle was built.

    `limit` is what its error may be, `curve` that of the best table for each number of
    evaluations, `euler` that of the original's solver with the fp32 networks.
    """

    solver: Solver
    accuracy: Accuracy
    euler: Accuracy
    limit: Amount
    utterances: Length
    curve: tuple[Accuracy, ...]


class Sensor(Struct, frozen=True):
    """A hwmon sensor of a board: its chip's `name`, its `label`, and what it covers."""

    name: Line
    label: Line
    scope: Line


class Watts(Struct, frozen=True):
    """Figures for an estimate from CPU time. `provenance` is measured, vendor or assumed."""

    idle_w: Ratio
    active_w_per_core: Ratio
    provenance: Line


class Release(Struct, frozen=True):
    """A JetPack release, and the software that belongs to it; "6.1" stands for every 6.1.x.

    `onnxruntime` is the first version that works with its TensorRT.
    """

    jetpack: Line
    l4t: Line
    cuda: Line
    tensorrt: Line
    cudnn: Line
    onnxruntime: Line


class Device(Struct, frozen=True):
    """How the target's device is used, from its profile.

    `cpus` is all, performance or efficiency; `threads` None for one a core. `meters` are energy
    meters in order of preference, `scope` what their figures should cover if there is a choice,
    `sensors` what is known of the board's, `watts` for an estimate on request. `peak_bytes` is what
    speech may take of its memory, left out of bundles for any machine and of older ones. `goals`
    are what people want of it, for a benchmark; left out of older ones.
    """

    cpus: Cpus = "all"
    threads: Threads | None = None
    meters: tuple[Line, ...] = ()
    scope: Line = ""
    sensors: tuple[Sensor, ...] = ()
    watts: Watts | None = None
    goals: Goals | msgspec.UnsetType = msgspec.UNSET
    peak_bytes: Bytes | msgspec.UnsetType = msgspec.UNSET


class Origin(Struct, frozen=True):
    """The repository of a model hub that a checkpoint was downloaded from.

    `revision` is a commit where the hub tells it (Hugging Face), or the branch or tag.
    """

    hub: Name
    repository: Line
    revision: Line


class Manifest(Struct, frozen=True):
    """Everything a device needs to know about a bundle.

    `languages` are codes in order of preference, those of every language unless `trim` is there.
    `solvers` are by runtime; one without has the checkpoint's own. `default_voice` speaks where
    none is asked for, "" for the first of `voices` by name. `origin` is left out of bundles of a
    folder.
    """

    format: Some
    edgepack: Line
    name: Line
    family: Line
    target: Line
    architecture: Line
    device: Device
    languages: Annotated[tuple[Name, ...], Meta(min_length=1)]
    trim: Trim | None
    quality: Quality | None
    normalizers: dict[Name, Normalizer]
    sample_rate: Rate
    stages: Annotated[dict[Name, Stage], Meta(max_length=100)]
    enrolment: dict[Name, Carried]
    tokenizer: FileName
    host: HostLoops
    solvers: dict[Name, Calibrated]
    voices: dict[Word, FileName]
    default_voice: Line
    self_test: FileName
    documents: tuple[FileName, ...]
    source: dict[Line, Line]
    tools: dict[Line, Line]
    build: Line
    files: dict[FileName, StoredFile]
    origin: Origin | msgspec.UnsetType = msgspec.UNSET

    @property
    def language(self) -> str:
        """The languages as they are asked for: "zh", "zh,en" or "all"."""
        return ",".join(self.languages) if self.trim else "all"

    @property
    def uses(self) -> dict[str, Use]:
        """What each stage says about itself, by its name."""
        return {name: stage.use for name, stage in self.stages.items()}

    def stage_of(self, role: Role) -> str:
        """The name of the stage with a role."""
        return of_role(self.uses, role)


def encode(manifest: Manifest) -> bytes:
    """Bytes of a manifest: the hash of everything else first, then fields in order."""
    tree: dict[str, Any] = msgspec.to_builtins(manifest)
    digest = hashlib.sha256(_canonical(tree)).hexdigest()
    return _canonical({"sha256": digest, **tree})


def _canonical(tree: dict[str, Any]) -> bytes:
    text = json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()
