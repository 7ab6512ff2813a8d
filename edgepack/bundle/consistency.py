"""Checks of a manifest across fields, beyond the types of the fields."""

from collections.abc import Iterable, Iterator
from math import prod

from edgepack.bundle.host import LARGEST, Signature
from edgepack.bundle.manifest import Manifest, Solver, Stage

_ENROLMENT = {"speech_tokenizer": 2, "speaker_encoder": 1}  # inputs of each network


def check(manifest: Manifest) -> None:
    """Raise ValueError with the first inconsistency."""
    for problem in _problems(manifest):
        raise ValueError(problem)


def _problems(manifest: Manifest) -> Iterator[str]:
    for name in _used(manifest):
        if name not in manifest.files:
            yield f"{name} is used but not listed"
    called = manifest.host.networks()
    roles = [stage.use.role for stage in manifest.stages.values()]
    if missing := [role for role in called if role not in roles]:
        yield f"stages: {', '.join(missing)} missing"
    if len({*roles}) < len(roles):
        yield "stages: two have one role"
    for name, stage in manifest.stages.items():
        if stage.use.role not in called:
            yield f"stages.{name}: nothing calls a {stage.use.role}"
            continue
        _, signature = called[stage.use.role]
        yield from (f"stages.{name}: {problem}" for problem in _stage(stage, signature))
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
    yield from (f"host.{problem}" for problem in manifest.host.problems())
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


def _stage(stage: Stage, signature: Signature) -> Iterator[str]:
    inputs, outputs = signature.inputs.keys(), signature.outputs.keys()
    if set(stage.inputs) != inputs or not outputs <= set(stage.outputs):
        yield f"not from {', '.join(sorted(inputs))} to {', '.join(sorted(outputs))}"
    names = [*stage.inputs, *(s.input for s in stage.states)]
    results = [*stage.outputs, *(s.output for s in stage.states)]
    if len({*names}) < len(names) or len({*results}) < len(results):
        yield "an input or output is there twice"
    for state in stage.states:
        if state.shape.count(0) != 1 or prod(n or 1 for n in state.shape) > LARGEST:
            yield f"{state.input} is no cache that grows from nothing along one axis"


def solver_problems(solver: Solver) -> Iterator[str]:
    """Problems of a table of steps: times that do not grow, weights of missing velocities."""
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
