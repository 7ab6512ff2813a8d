"""What recipes are tried with: the fp32 networks as a bundle, recorded inputs, an evaluation."""

import hashlib
import platform
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from edgepack.builder.assembly import Contents, Enrolment, Networks, all_voices, describe
from edgepack.builder.backend import Job, backend
from edgepack.builder.calibration.corpus import Corpus, of_folder, of_languages
from edgepack.builder.calibration.exact import record
from edgepack.builder.calibration.observe import observe
from edgepack.builder.calibration.sentences import record_sentences
from edgepack.builder.hub import REFEREE
from edgepack.builder.planning import BuildRequest, Plan, Source, VoiceRequest
from edgepack.bundle import bundle
from edgepack.bundle.manifest import Variant, encode
from edgepack.errors import GateError, UsageError
from edgepack.process.isolation import isolated
from edgepack.profiles.recipe import named
from edgepack.profiles.target import RuntimeOptions, TargetProfile
from edgepack.report import Step
from edgepack.runtime.load_options import LoadOptions
from edgepack.runtime.loading import load, session_of
from edgepack.verification import evaluation, selftest
from edgepack.verification.selftest import Calls, answered
from edgepack.verification.speaking import calls_of

_CALLS = 5  # of the language model in a self-test
_SPOKEN_LANGUAGES = 2  # of a bundle for every language, those that it prefers


@dataclass(frozen=True)
class Trial:
    """A bundle of the fp32 hub, a folder of recorded inputs by stage, and the evaluation's file.

    `calls` are a self-test of the language model with what it is given when it speaks, which says
    more about integer weights than inputs that never occur. `solving` is a folder of exact
    trajectories, if a solver is to be fitted, `sentences` one of what the language model is given
    for whole sentences, if a recipe asks for them.
    """

    reference: Path
    samples: Path
    evaluation: Path
    calls: Calls
    solving: Path | None = None
    sentences: Path | None = None


@dataclass(frozen=True)
class Further:
    """What else is recorded: trajectories to fit a solver to, whole sentences for a recipe."""

    solving: bool = False
    sentences: bool = False

    @staticmethod
    def of(plans: Iterable[Plan]) -> "Further":
        """What these plans ask for."""
        plans = list(plans)
        return Further(
            any(p.solves(runtime) for p in plans for runtime in p.profile.runtimes),
            any(p.reads_sentences for p in plans),
        )


def prepare(
    request: BuildRequest,
    source: Source,
    contents: Contents,
    key: str,
    step: Step,
    further: Further,
) -> Trial:
    """Speak with the hub: record inputs of its networks (or find them), then the evaluation.

    What is asked for `further` is recorded too.
    """
    corpus = _corpus(request, contents)
    prompts = [VoiceRequest(f"prompt {name}", wav, text) for name, wav, text in corpus.prompts]
    speakers = dict(contents.voices)
    if prompts:
        wanted = replace(request, voices=prompts)
        enrolment = Enrolment(contents.enrolment, contents.folder)
        made = all_voices(wanted, source, contents.text, enrolment, step)
        speakers = {name: voice for name, voice in made.items() if name not in contents.voices}
    reference = contents.folder / "reference"
    _bundle(request, source, replace(contents, voices=speakers, enrolment={}), reference)
    key = _recording_key(key, corpus, contents)
    samples = isolated(observe, reference, corpus.calibration, key, step=step)
    path = contents.folder / evaluation.FILE
    calls = isolated(write_evaluation, reference, corpus.evaluation, path, step=step)
    trial = Trial(reference, samples, path, calls)
    if further.sentences:
        decoded = isolated(record_sentences, reference, corpus.calibration, key, step=step)
        trial = replace(trial, sentences=decoded)
    if further.solving:
        texts = corpus.calibration, corpus.evaluation
        followed = isolated(record, reference, *texts, key, step=step)
        trial = replace(trial, solving=followed)
    return trial


def require_speaker(request: BuildRequest, source: Source) -> None:
    """Raise UsageError if there is no voice to speak with, before anything is made."""
    prompts = of_folder(request.calibration).prompts if request.calibration else ()
    if not (request.voices or prompts or source.family.voices(source.checkpoint)):
        raise UsageError(
            f"{source.checkpoint.folder}: has no voices, and calibration has to speak with one; "
            "give --voice NAME=WAV:TEXT, or --calibration DIR with NAME.wav and NAME.txt"
        )


def _recording_key(key: str, corpus: Corpus, contents: Contents) -> str:
    """Stands for the checkpoint, what is spoken, and what networks are given."""
    taken = [(s.name, s.inputs, s.outputs, s.use.samples) for s in contents.stages]
    return hashlib.sha256(f"{key}{corpus.sha256}{taken}".encode()).hexdigest()


def _corpus(request: BuildRequest, contents: Contents) -> Corpus:
    if request.calibration:
        return of_folder(request.calibration)
    codes = contents.text.languages
    return of_languages(codes if request.languages else codes[:_SPOKEN_LANGUAGES])


def _bundle(request: BuildRequest, source: Source, contents: Contents, folder: Path) -> None:
    """The hub as a bundle; its network files are the hub's own."""
    runtime = {REFEREE: RuntimeOptions(container="onnx", fuse=False, batched=True)}
    profile = TargetProfile(
        summary="the fp32 networks",
        architecture=platform.machine(),
        runtimes=runtime,
        precision={"default": "fp32"},
    )
    networks = folder / REFEREE
    networks.mkdir(parents=True)
    variants = {}
    for stage in contents.stages:
        recipe = named(REFEREE, "fp32")
        job = Job(stage.name, stage.model, networks, stage.states, recipe, runtime[REFEREE])
        files = tuple(str(file.relative_to(folder)) for file in backend(REFEREE).convert(job))
        limit = selftest.limit(stage.use, "fp32")
        variant = Variant(files=files, precision="fp32", limit=limit, recipe="fp32")
        variants[stage.name] = {REFEREE: variant}
    plan = Plan("reference", profile, folder, "", contents.uses)
    manifest = describe(request, source, contents, plan, Networks(folder, variants, {}))
    (folder / bundle.MANIFEST).write_bytes(encode(manifest))


def write_evaluation(reference: Path, sentences: list[str], path: Path, step: Step) -> Calls:
    """Record the evaluation with the reference; runs in its own process.

    Returns the first calls of the language model in it, as a self-test.
    """
    step("speaking the evaluation")
    loaded = load(reference, options=LoadOptions(repacked=True))
    questions = evaluation.record(loaded, sentences)
    found = evaluation.positions(questions)
    if found < evaluation.POSITIONS:
        raise GateError(
            f"the fp32 networks spoke only {found} of {evaluation.POSITIONS} tokens that "
            "are judged: most sentences have no speech; is this checkpoint trained?"
        )
    path.write_bytes(evaluation.to_bytes(questions))
    decoder = loaded.bundle.manifest.stage_of("language_model")
    feeds = list(islice(calls_of(loaded, questions[0].spoken), _CALLS))
    return {decoder: answered(session_of(loaded, decoder), feeds)}
