"""Putting a bundle together: everything that is not a network, and the manifest over it all."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import save

import edgepack
from edgepack.builder import gpu_plan, host_contract
from edgepack.builder.carried import carry
from edgepack.builder.grammars import grammars
from edgepack.builder.hub import REFEREE, HubStage
from edgepack.builder.planning import DOCUMENTS, BuildRequest, Plan, Source, VoiceRequest, tools
from edgepack.builder.text_assets import TextAssets
from edgepack.bundle import bundle, voices
from edgepack.bundle.host import HostLoops
from edgepack.bundle.manifest import (
    FORMAT,
    Calibrated,
    Carried,
    Manifest,
    Normalizer,
    Saving,
    Stage,
    Trim,
    Variant,
)
from edgepack.bundle.stages import Use, of_role
from edgepack.bundle.voices import Prompt, Voice
from edgepack.errors import UsageError
from edgepack.process.isolation import isolated
from edgepack.profiles import language
from edgepack.report import Step, silent
from edgepack.runtime.audio import waveform
from edgepack.runtime.audio.enrol import Enroller, EnrolmentModel
from edgepack.runtime.engines.session import Options, engine
from edgepack.runtime.text import coverage
from edgepack.verification import selftest
from edgepack.verification.selftest import Calls

_TOKENIZER, _ROWS = "tokenizer.json", "vocabulary.safetensors"

Variants = Mapping[str, dict[str, Variant]]  # by stage, by runtime


@dataclass(frozen=True)
class Contents:
    """What all bundles of one request share: networks, self-test, text, voices, enrolment.

    `enrolment` files are in `folder`, by role. `warnings` are for whoever asked for the build.
    """

    stages: Sequence[HubStage]
    calls: Calls
    text: TextAssets
    voices: Mapping[str, Voice]
    folder: Path
    enrolment: Mapping[str, Carried]
    warnings: Sequence[str] = ()

    @property
    def uses(self) -> dict[str, Use]:
        """How each network is used, by the name of its stage."""
        return {stage.name: stage.use for stage in self.stages}


@dataclass(frozen=True)
class Enrolment:
    """The networks that make voices of recordings, by role, and the folder of their files."""

    networks: Mapping[str, Carried]
    folder: Path


@dataclass(frozen=True)
class Networks:
    """The converted networks of one bundle, in its folder, and the solvers by runtime."""

    folder: Path
    variants: Variants
    solvers: Mapping[str, Calibrated]


def enrolment_networks(source: Source, folder: Path, warn: Step) -> dict[str, Carried]:
    """Check and copy the networks that make voices of recordings."""
    files = source.family.enrolment(source.checkpoint)
    return {
        role: carry(source.checkpoint.file(file), folder, f"enrolment/{role}.onnx", warn)
        for role, file in sorted(files.items())
    }


def all_voices(
    request: BuildRequest,
    source: Source,
    text: TextAssets,
    enrolment: Enrolment,
    step: Step,
    warn: Step = silent,
) -> dict[str, Voice]:
    """Voices of the checkpoint and those of the request, with ids of the bundle's tokenizer.

    `warn` is told which of the checkpoint's voices are left out or get another name.
    """
    found = {}
    for name, voice in source.family.voices(source.checkpoint, warn).items():
        try:
            found[name] = _renumbered(voice, text)
        except UsageError as error:
            warn(f"voice {name!r} is left out: {error}")
    if not request.voices:
        return found
    if not enrolment.networks:
        raise UsageError(
            f"{source.checkpoint.folder}: has no enrolment networks, which --voice needs"
        )
    frontend = text.frontend
    wanted = [(v, frontend.ids(frontend.clean(v.text))) for v in request.voices]
    family, checkpoint = source.family, source.checkpoint
    settings = family.sample_rate(checkpoint), family.host(checkpoint)
    return found | isolated(enrol, settings, enrolment, wanted, step=step)


def enrol(
    settings: tuple[int, HostLoops],
    enrolment: Enrolment,
    wanted: Sequence[tuple[VoiceRequest, list[int]]],
    step: Step,
) -> dict[str, Voice]:
    """Make voices of recordings; runs in its own process."""

    def model(role: str) -> EnrolmentModel:
        carried = enrolment.networks[role]
        session = engine(REFEREE).open(enrolment.folder / carried.file, (), Options(1))
        return EnrolmentModel(carried, session)

    enroller = Enroller(*settings, model("speech_tokenizer"), model("speaker_encoder"))
    made = {}
    for voice, ids in wanted:
        step(f"listening to {voice.recording.name}")
        made[voice.name] = enroller.voice(waveform.read(voice.recording), ids)
    return made


def _renumbered(voice: Voice, text: TextAssets) -> Voice:
    if voice.prompt is None:
        return voice
    prompt = voice.prompt
    return Voice(voice.speaker, Prompt(text.renumbered(prompt.text), prompt.tokens, prompt.mel))


def describe(
    request: BuildRequest,
    source: Source,
    contents: Contents,
    wanted: Plan,
    networks: Networks,
) -> Manifest:
    """Write what is not a network beside the networks, and return the manifest of it all."""
    folder, variants, solvers = networks.folder, networks.variants, networks.solvers
    (folder / _TOKENIZER).write_text(contents.text.tokenizer, "utf-8")
    (folder / selftest.FILE).write_bytes(selftest.to_bytes(contents.calls))
    kept = wanted.profile.enrolment or request.keep_enrolment or not contents.voices
    enrolment = contents.enrolment if kept else {}
    for carried in enrolment.values():
        _copy(contents.folder / carried.file, folder / carried.file)
    checkpoint, host = source.checkpoint, source.family.host(source.checkpoint)
    schedule = host.schedule.ending(continued=wanted.profile.stream.continued)
    host = msgspec.structs.replace(host, schedule=schedule)
    documents = tuple(name for name in DOCUMENTS if checkpoint.has(name))
    for name in documents:
        _copy(checkpoint.file(name), folder / name)
    normalizers = {code: _normalizer(code, folder) for code in contents.text.languages}
    speakers = {name: _voice(name, voice, folder) for name, voice in contents.voices.items()}
    trim = _trim(contents, variants, folder)
    if wanted.profile.packaging and wanted.profile.packaging.contract:
        told = host_contract.ContractContents(
            source.family.sample_rate(checkpoint), host, _TOKENIZER, speakers, solvers
        )
        host_contract.write(folder, contents.stages, variants, told)
    if wanted.profile.gpu:
        gpu_plan.write(folder, contents.stages, variants, host, wanted.profile.gpu)
    return Manifest(
        format=FORMAT,
        edgepack=edgepack.__version__,
        name=source.name,
        family=source.family_name,
        target=wanted.target,
        architecture=wanted.profile.architecture,
        device=wanted.profile.device,
        languages=contents.text.languages,
        trim=trim,
        quality=None,
        normalizers=normalizers,
        stages={stage.name: _stage(stage, variants[stage.name]) for stage in contents.stages},
        enrolment=dict(enrolment),
        sample_rate=source.family.sample_rate(checkpoint),
        host=host,
        solvers=dict(solvers),
        tokenizer=_TOKENIZER,
        voices=speakers,
        default_voice=_default(speakers, source.family.voices(checkpoint)),
        self_test=selftest.FILE,
        documents=documents,
        source=dict(source.hashes),
        origin=source.origin or msgspec.UNSET,
        tools=tools(),
        build=wanted.key,
        files={
            str(path.relative_to(folder)): bundle.stored(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    )


def _stage(stage: HubStage, variants: dict[str, Variant]) -> Stage:
    return Stage(
        use=stage.use,
        variants=variants,
        inputs=stage.inputs,
        outputs=stage.outputs,
        states=stage.states,
        parameters=stage.parameters,
        operators=stage.operators,
    )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _default(speakers: Iterable[str], own: Iterable[str]) -> str:
    """Who speaks if none is asked for: the checkpoint's first by name, or the request's first."""
    known = list(speakers)
    return min(set(own) & set(known), default=known[0] if known else "")


def _voice(name: str, voice: Voice, folder: Path) -> str:
    data = voice.to_bytes()
    relative = voices.file_name(name, data)
    (folder / "voices").mkdir(exist_ok=True)
    (folder / relative).write_bytes(data)
    return relative


def _normalizer(code: str, folder: Path) -> Normalizer:
    """A language's normaliser, its grammars copied; languages of one locale share them."""
    spoken = language.load(code)
    files = []
    for file in _grammars(code):
        relative = f"normalizers/{spoken.locale}/{file.name}"
        _copy(file, folder / relative)
        files.append(relative)
    return Normalizer(name=spoken.normalizer, locale=spoken.locale, files=tuple(files))


def _trim(contents: Contents, variants: Variants, folder: Path) -> Trim | None:
    """What was trimmed, its proof, and the bytes of each part before and after.

    Every row of the text table costs the same, so its size before follows from its rows.
    """
    text = contents.text
    if text.cut is None:
        return None
    kept = len(text.cut.trimmed.rows)
    rows = text.cut.trimmed.rows.astype(np.int32)
    (folder / _ROWS).write_bytes(save({"rows": rows}))
    parts = {}
    table = of_role(contents.uses, "text_table")
    for runtime, variant in variants[table].items():
        size = _bytes(folder / file for file in variant.files)
        parts[f"{table} in {runtime}"] = Saving(
            before=round(size * text.rows_before / kept), after=size
        )
    every = {file for code in language.codes() for file in _grammars(code)}
    for part, before in (
        (_TOKENIZER, len(text.original.encode())),
        ("normalizers", _bytes(every)),
        ("enrolment", _bytes(contents.folder / c.file for c in contents.enrolment.values())),
    ):
        path = folder / part
        after = _bytes([path] if path.is_file() else path.rglob("*.*"))
        parts[part] = Saving(before=before, after=after)
    alphabet = coverage.ranges(text.cut.characters)
    return Trim(
        tokens_before=text.cut.proof.tokens_before,
        tokens_after=text.cut.proof.tokens_after,
        rows_before=text.rows_before,
        rows_after=kept,
        rows=_ROWS,
        parts=parts,
        sentences=text.cut.proof.sentences,
        sha256=text.cut.proof.sha256,
        alphabet=coverage.to_text(alphabet),
        words=text.cut.words,
    )


def _grammars(code: str) -> list[Path]:
    spoken = language.load(code)
    return grammars(spoken.normalizer, spoken.locale)


def _bytes(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)
