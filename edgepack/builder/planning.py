"""What is to be built: the request, the checkpoint it is about, and a plan for each target."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from importlib import metadata, resources
from pathlib import Path
from typing import cast

import msgspec

import edgepack
from edgepack.builder.calibration.corpus import of_folder
from edgepack.builder.choices import Choices, read_choices, read_solvers
from edgepack.bundle import voices
from edgepack.bundle.bundle import stored
from edgepack.bundle.manifest import Origin, Solver
from edgepack.bundle.ranges import Precision
from edgepack.bundle.stages import Use
from edgepack.discovery import unknown
from edgepack.errors import UsageError
from edgepack.files import atomic, charset
from edgepack.model.checkpoint.folder import Checkpoint, open_checkpoint
from edgepack.model.family import Family, recognise
from edgepack.profiles import language, recipe, target
from edgepack.profiles.recipe import PRECISIONS
from edgepack.profiles.target import TargetProfile
from edgepack.runtime.audio import prompting, waveform
from edgepack.runtime.stages.solver import AUTO, CALIBRATED, REFERENCE

DEMO = "demo"
DOCUMENTS = ("MODEL_CARD.md", "README.md", "LICENSE")  # of a checkpoint, copied into its bundles
_TOOLS = (
    "ai-edge-litert",
    "ai-edge-quantizer",
    "nncf",
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "tokenizers",
    "wetext",
)
_OPTIONAL = ("pesq",)  # what is measured depends on it
_REPLACED_BY = {"onnxruntime": "onnxruntime-gpu"}


@dataclass(frozen=True)
class VoiceRequest:
    """A voice to make of a recording, and what is said in it."""

    name: str
    recording: Path
    text: str

    @staticmethod
    def parse(value: str) -> "VoiceRequest":
        """A request from "NAME=WAV:TEXT"; the path may have colons if the file exists."""
        name, separator, rest = value.partition("=")
        ends = [match.start() for match in re.finditer(":", rest)]
        if not separator or not ends:
            raise UsageError(f"voice {value!r}: give NAME=WAV:TEXT, TEXT being what is said")
        name = charset.argument(name, "--voice")
        voices.file_name(name, b"")  # refuses a name that cannot be
        end = next((end for end in ends if Path(rest[:end]).is_file()), ends[0])
        if not rest[end + 1 :].strip():
            raise UsageError(f"voice {name!r}: has no text; give NAME=WAV:TEXT")
        text = charset.argument(rest[end + 1 :], "--voice")
        return VoiceRequest(name, Path(rest[:end]), text)


@dataclass(frozen=True)
class BuildRequest:
    """What to build: `model` is a checkpoint folder, "demo", or a repository (`model_hub.parse`).

    `formats` limits the target's runtimes; `precision` replaces the profile's unless "auto".
    `languages` are codes, none for all of them; the words of the text file `keep_text` stay too.
    `voices` are added to those of the checkpoint. `keep_enrolment` overrules a target that leaves
    the enrolment networks out. `calibration` is a folder of the user's own sentences. `recipe`
    is a bundle or a YAML file that fixes how networks are converted. `llm` is the file in the
    checkpoint with the language model's weights, if not the usual one. `solver` is auto (the
    target's choice), reference, calibrated, or the path of tables. `allow_failed_gate` writes a
    bundle that failed its evaluation.
    """

    model: str
    targets: Sequence[str]
    output: Path
    formats: Sequence[str] = ()
    precision: str = "auto"
    languages: Sequence[str] = ()
    keep_text: Path | None = None
    voices: Sequence[VoiceRequest] = ()
    keep_enrolment: bool = False
    calibration: Path | None = None
    recipe: Path | None = None
    solver: str = AUTO
    allow_failed_gate: bool = False
    force: bool = False
    llm: str | None = None


@dataclass(frozen=True)
class Source:
    """A recognised checkpoint: name, family, and the hashes of the files it is read from.

    `origin` is where it was downloaded from, None for a folder of the user's; `notes` are lines to
    show about that.
    """

    name: str
    checkpoint: Checkpoint
    family_name: str
    family: Family
    hashes: Mapping[str, str]
    origin: Origin | None = None
    notes: Sequence[str] = ()

    @property
    def bytes(self) -> int:
        """Bytes of the files that it is read from."""
        return sum(self.checkpoint.file(name).stat().st_size for name in self.hashes)


@dataclass(frozen=True)
class Plan:
    """A planned bundle. `profile` has only the requested runtimes; `key` is a hash of all inputs.

    `stages` are the networks of its family by name, `choices` fixed recipes.
    """

    target: str
    profile: TargetProfile
    folder: Path
    key: str
    stages: Mapping[str, Use]
    choices: Choices = field(default_factory=Choices)

    def recipes(self, runtime: str, stage: str) -> list[str]:
        """Recipes to convert a stage with: the fixed one, or those to choose from."""
        fixed = self.choices.name(runtime, stage)
        if fixed:
            recipe.named(runtime, fixed)
            return [fixed]
        role = self.stages[stage].role
        precision = self.profile.precision_of(role)
        others = self.profile.runtimes[runtime].delegates_of(role)
        return recipe.candidates(runtime, role, precision, self.profile.features, others)

    def approximates(self, runtime: str) -> bool:
        """Whether any network may compute with less than fp32 in a runtime."""
        return any(r.quantized or r.calibrated for r in self._recipes(runtime))

    @property
    def reads_sentences(self) -> bool:
        """Whether any recipe asks for whole sentences of the language model."""
        return any(r.sentences for runtime in self.profile.runtimes for r in self._recipes(runtime))

    def _recipes(self, runtime: str) -> Iterator[recipe.Recipe]:
        for stage in self.stages:
            yield from (recipe.named(runtime, name) for name in self.recipes(runtime, stage))

    def solver(self, runtime: str) -> Solver | str:
        """The solver a runtime is to have: REFERENCE, CALIBRATED, or a fixed table."""
        if runtime in self.choices.solvers:
            return self.choices.solvers[runtime] or REFERENCE
        use = self.profile.solver.use
        if use != AUTO:
            return use
        return CALIBRATED if self.approximates(runtime) else REFERENCE

    def solves(self, runtime: str) -> bool:
        """Whether a runtime is to have another solver than the checkpoint's own."""
        return self.solver(runtime) != REFERENCE

    @property
    def needs_speech(self) -> bool:
        """Whether speech is needed: for networks that approximate, a solver, or ends of streams."""
        return self.profile.stream.continued or any(
            self.approximates(runtime) or self.solves(runtime) for runtime in self.profile.runtimes
        )


def checkpoint_folder(model: str) -> Path:
    """The folder of a checkpoint, or of the embedded one for "demo"."""
    return Path(str(resources.files("edgepack") / "demo_voice")) if model == DEMO else Path(model)


def open_source(model: str, llm: str | None = None) -> Source:
    """The checkpoint to build, recognised and hashed; `llm` is a file of it to take as that part.

    Only files that a bundle is made of are read.
    """
    folder = checkpoint_folder(model)
    checkpoint = open_checkpoint(folder)
    if llm is not None:
        checkpoint = checkpoint.with_part("llm", llm)
    family_name, family = recognise(checkpoint)
    # Of a link, its own name: in a cache it leads to a folder called after a revision.
    named = folder.name if folder.name not in ("", "..") else folder.resolve().name
    name = model if model == DEMO else bundle_name(named)
    documents = [name for name in DOCUMENTS if checkpoint.has(name)]
    files = [*family.sources(checkpoint), *documents]
    hashes = {file: checkpoint.sha256(file) for file in files}
    return Source(name, checkpoint, family_name, family, hashes)


def bundle_name(named: str) -> str:
    """The name of a bundle for a checkpoint of this name."""
    return re.sub(r"[^\w.-]+", "_", named)


def tools() -> dict[str, str]:
    """Versions of the packages on which the bytes of a bundle depend."""
    found = {name: _version(name) for name in _TOOLS}
    for name in _OPTIONAL:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _version(name: str) -> str:
    """The version of a package, or of one that installs the same module in its place."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        if name not in _REPLACED_BY:
            raise
        return metadata.version(_REPLACED_BY[name])


def require_possible(request: BuildRequest) -> None:
    """Raise UsageError for an error in a request that does not depend on the checkpoint.

    It checks names, files, recordings and whether the output can be written. This is quick, so it
    is done before the checkpoint is hashed.
    """
    if request.precision not in ("auto", *PRECISIONS):
        raise UsageError(unknown("precision", request.precision, ["auto", *PRECISIONS]))
    for code in request.languages:
        language.load(code)
    if request.keep_text and not request.languages:
        raise UsageError("--keep-text adds to languages; give --language, or leave it out")
    names = [wanted.name for wanted in request.voices]
    for wanted in request.voices:
        voices.file_name(wanted.name, b"")  # refuses a name that cannot be
        if names.count(wanted.name) > 1:
            raise UsageError(f"voice {wanted.name!r} is given twice; give each its own name")
        if not wanted.recording.is_file():
            raise UsageError(f"voice {wanted.name!r}: {wanted.recording} is not a file")
        prompting.problems(waveform.read(wanted.recording), wanted.text)
    for name in request.targets:
        profile = target.load(name)
        for form in request.formats:
            if form not in profile.runtimes:
                raise UsageError(f"target {name}: {unknown('format', form, profile.runtimes)}")
        if request.solver not in (AUTO, REFERENCE, CALIBRATED):
            read_solvers(Path(request.solver), profile.runtimes)
    if request.recipe:
        read_choices(request.recipe)
    if request.keep_text and not request.keep_text.is_file():
        raise UsageError(f"--keep-text {request.keep_text}: not a file")
    if request.calibration:
        for _, recording, text in of_folder(request.calibration).prompts:
            prompting.problems(waveform.read(recording), text)
    atomic.require_writable_folder(request.output)


def plan(request: BuildRequest, source: Source) -> list[Plan]:
    """What would be built, without building; raises UsageError for an impossible request."""
    require_possible(request)
    _require_a_voice(request, source)
    inputs = _inputs(request, source)
    return [_plan(request, source, name, inputs) for name in dict.fromkeys(request.targets)]


def _require_a_voice(request: BuildRequest, source: Source) -> None:
    """Refuse a bundle without voices and without enrolment networks, which could never speak."""
    checkpoint, family = source.checkpoint, source.family
    if family.enrolment(checkpoint):
        return
    if request.voices:
        raise UsageError(f"{checkpoint.folder}: has no enrolment networks, which --voice needs")
    if not family.voices(checkpoint):
        raise UsageError(
            f"{checkpoint.folder}: has no voices and no networks that could make one of a "
            "recording (speech tokenizer, speaker encoder); is the download complete?"
        )


def source_key(request: BuildRequest, source: Source) -> str:
    """A hash of all inputs except the target and its formats."""
    return _key(_inputs(request, source))


def _inputs(request: BuildRequest, source: Source) -> dict[str, object]:
    """All inputs of a bundle except the target."""
    origin = {"origin": msgspec.to_builtins(source.origin)} if source.origin else {}
    return {
        **origin,
        "edgepack": edgepack.__version__,
        "name": source.name,
        "source": dict(source.hashes),
        "tools": tools(),
        "languages": {
            code: _text_hash("\n".join(language.sentences(code))) for code in request.languages
        },
        "keep_text": _text_hash(charset.read(request.keep_text)) if request.keep_text else None,
        "voices": [[v.name, stored(v.recording).sha256, v.text] for v in request.voices],
        "keep_enrolment": request.keep_enrolment,
        "calibration": of_folder(request.calibration).sha256 if request.calibration else None,
    }


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _plan(request: BuildRequest, source: Source, name: str, inputs: Mapping[str, object]) -> Plan:
    profile = target.load(name)
    formats = request.formats or [r for r, o in profile.runtimes.items() if not o.on_request]
    chosen = {r: o for r, o in profile.runtimes.items() if r in formats}
    precision = profile.precision
    if request.precision != "auto":
        precision = {"default": cast(Precision, request.precision)}
    solver = profile.solver
    if request.solver in (REFERENCE, CALIBRATED):
        solver = msgspec.structs.replace(solver, use=request.solver)
    profile = msgspec.structs.replace(profile, runtimes=chosen, precision=precision, solver=solver)
    identity = {
        **inputs,
        "target": name,
        "profile": msgspec.to_builtins(profile),
        "allow_failed_gate": request.allow_failed_gate,
    }
    folder = "-".join([source.name, name, *request.languages])
    choices = read_choices(request.recipe) if request.recipe else Choices()
    if request.solver in (REFERENCE, CALIBRATED):
        choices = replace(choices, solvers={}, build="")
    elif request.solver != AUTO:
        solvers = read_solvers(Path(request.solver), chosen)
        choices = replace(choices, solvers=solvers, build="")
    key = _key(identity)
    # The recipes of a bundle of this very request say only which of its outcomes is wanted.
    if choices.build != key and (fixed := choices.identity()):
        key = _key({**identity, "choices": fixed})
    return Plan(name, profile, request.output / folder, key, source.family.stages, choices)


def _key(identity: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
