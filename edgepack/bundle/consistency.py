"""What the parts of a manifest have to do with each other, beyond the types of its fields."""

from collections.abc import Iterable, Iterator
from math import prod

from edgepack.manifest import Manifest, Solver, Stage

# Networks that the host loops call: what each is given, and what has to come of it.
STAGES: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    stage: (frozenset(inputs.split()), frozenset(outputs.split()))
    for stage, inputs, outputs in (
        ("text_embedding", "ids", "embeddings"),
        ("speech_embedding", "ids", "embeddings"),
        ("speech_lm", "embeddings", "logits"),
        ("flow_encoder", "tokens look_ahead chunk speaker", "mu spk"),
        ("flow_time", "t", "shift"),
        ("flow_estimator", "x mu cond spk step shift chunk", "velocity next"),
        ("hift_source", "mel noise", "f0 source"),
        ("hift", "mel source", "audio"),
    )
}
_ENROLMENT = {"speech_tokenizer": 2, "speaker_encoder": 1}  # inputs of each network
_LARGEST = 1 << 27  # values of an array that a host allocates by the manifest's numbers
_LANE = 16  # the noise table is filled by so many values at once


def check(manifest: Manifest) -> None:
    """Raise ValueError with the first thing that does not fit together."""
    for problem in _problems(manifest):
        raise ValueError(problem)


def _problems(manifest: Manifest) -> Iterator[str]:
    for name in _used(manifest):
        if name not in manifest.files:
            yield f"{name} is used but not listed"
    if missing := sorted(STAGES.keys() - manifest.stages.keys()):
        yield f"stages: {', '.join(missing)} missing"
    for name, stage in manifest.stages.items():
        yield from (f"stages.{name}: {problem}" for problem in _stage(name, stage))
    runtimes = [set(stage.variants) for stage in manifest.stages.values()]
    if not set.intersection(*runtimes):
        yield "stages: no runtime has all of them"
    if manifest.enrolment:
        found = {role: len(model.inputs) for role, model in manifest.enrolment.items()}
        if found != _ENROLMENT:
            yield f"enrolment: not {' and '.join(_ENROLMENT)} with their inputs"
    if quality := manifest.quality:
        parts = (quality.limits, quality.values, quality.not_measured)
        if any(part.keys() != quality.values.keys() for part in parts):
            yield "quality: its parts are of different runtimes"
    if manifest.default_voice and manifest.default_voice not in manifest.voices:
        yield "default_voice: not one of the voices"
    yield from _host(manifest)
    for runtime, calibrated in manifest.solvers.items():
        yield from (f"solvers.{runtime}: {p}" for p in solver_problems(calibrated.solver))


def _used(manifest: Manifest) -> Iterable[str]:
    """Every file that a field names."""
    yield from (manifest.tokenizer, manifest.self_test, *manifest.documents)
    yield from manifest.voices.values()
    yield from (model.file for model in manifest.enrolment.values())
    yield from (file for reader in manifest.normalizers.values() for file in reader.files)
    for stage in manifest.stages.values():
        yield from (file for variant in stage.variants.values() for file in variant.files)
    if manifest.trim:
        yield manifest.trim.rows
    if manifest.quality:
        yield manifest.quality.exam


def _stage(name: str, stage: Stage) -> Iterator[str]:
    if name in STAGES:
        inputs, outputs = STAGES[name]
        if set(stage.inputs) != inputs or not outputs <= set(stage.outputs):
            yield f"not from {', '.join(sorted(inputs))} to {', '.join(sorted(outputs))}"
    names = [*stage.inputs, *(s.input for s in stage.states)]
    results = [*stage.outputs, *(s.output for s in stage.states)]
    if len({*names}) < len(names) or len({*results}) < len(results):
        yield "an input or output is there twice"
    for state in stage.states:
        if state.shape.count(0) != 1 or prod(n or 1 for n in state.shape) > _LARGEST:
            yield f"{state.input} is no cache that grows from nothing along one axis"


def _host(manifest: Manifest) -> Iterator[str]:
    """Numbers of the host loops."""
    lm, flow, vocoder, stream = (
        manifest.language_model, manifest.flow, manifest.vocoder, manifest.stream,
    )  # fmt: skip
    mel = manifest.prompt_mel
    values = flow.mels * flow.noise_frames
    yield from (
        problem
        for wrong, problem in (
            (lm.min_ratio > lm.max_ratio, "language_model: min_ratio is above max_ratio"),
            (
                min(lm.end, lm.fill, lm.start, lm.task) < lm.speech_tokens,
                "language_model: a speech token is also one that stops or steers",
            ),
            (values > _LARGEST, "flow: its noise does not fit into memory"),
            (values % _LANE, f"flow: its noise is not a multiple of {_LANE} values"),
            (
                vocoder.frame * vocoder.partials > _LARGEST >> 10,
                "vocoder: the noise of a frame does not fit into memory",
            ),
            (stream.first_hop > stream.max_hop, "stream: first_hop is above max_hop"),
            (
                stream.mel_overlap > stream.first_hop * flow.ratio,
                "stream: mel_overlap is longer than the first chunk",
            ),
            (mel.low >= mel.high, "prompt_mel: low is not below high"),
            (mel.window > mel.fft, "prompt_mel: the window is longer than the transform"),
            (mel.mels != flow.mels, "prompt_mel: not as many mels as the flow decoder's"),
        )
        if wrong
    )


def solver_problems(solver: Solver) -> Iterator[str]:
    """What a table of steps cannot be: back in time, or about velocities that there are not."""
    times = [step.time for step in solver.steps]
    if times[0] != 0.0 or times != sorted(set(times)) or times[-1] >= 1.0:
        yield "times have to rise from 0 and stay below 1"
    guided = 0
    for number, step in enumerate(solver.steps, 1):
        guided += step.guided
        if len(step.conditional) > number or len(step.free) > guided:
            yield "a step has weights for more velocities than were computed"
        if step.guided and not step.free:
            yield "a guided step lacks the weight of the unconditional velocity"
