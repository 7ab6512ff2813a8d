"""From the hub's networks to those of one runtime; runs in a process of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from edgepack.builder.backend import backend, continuing, converted
from edgepack.builder.recipe_search import Judge, Searched, reason, search
from edgepack.builder.trial import Trial
from edgepack.bundle.bundle import open_bundle
from edgepack.bundle.manifest import Variant
from edgepack.bundle.measurements import Candidate
from edgepack.bundle.metrics import Limits, Values
from edgepack.bundle.stages import Called
from edgepack.errors import GateError
from edgepack.profiles.recipe import named
from edgepack.report import Step, within
from edgepack.runtime.engines.session import engine
from edgepack.runtime.gpu.placement import ON_CPU
from edgepack.runtime.load_options import LoadOptions
from edgepack.runtime.loading import Host, load, with_session
from edgepack.verification import evaluation, gates, selftest

_OFTEN = get_args(Called)[::-1]  # from most calls to fewest


@dataclass(frozen=True)
class Converted:
    """A network of one runtime: its self-test error, and the recipes it was chosen from if any."""

    variant: Variant
    error: float
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Conversion:
    """What one runtime of a bundle is made of.

    `root` is the bundle's folder, `scratch` a folder for recipes that are tried. `timed` is whether
    this machine can measure the target's speed, `lenient` whether gates may fail.
    """

    runtime: str
    candidates: Sequence[Searched]
    root: Path
    scratch: Path
    threads: int
    trial: Trial | None
    timed: bool
    lenient: bool


def convert(work: Conversion, step: Step) -> dict[str, Converted]:
    """Convert networks for one runtime and compare each with the hub.

    For a network with several recipes the best is searched, with the networks before it in place;
    those that take most of the time are first, and in their faster form when others are judged.
    Raises GateError if the self-test of one differs by more than it may.
    """
    judge = _judge(work) if any(len(network.recipes) > 1 for network in work.candidates) else None
    made = {}
    held_to: dict[gates.JudgedPart, Limits] = {}  # of what is in place
    for number, network in enumerate(sorted(work.candidates, key=_rank), 1):
        at = within(step, f"{work.runtime}, network {number} of {len(work.candidates)}")
        part = gates.part_of(network.use)
        network = network.beside(held_to.get(part, {}))
        candidates: Sequence[Candidate] = ()
        if judge is None or len(network.recipes) == 1:
            recipe = named(work.runtime, network.recipes[0])
            at(f"converting {network.job.stage}")
            files = converted(network.job, recipe)
        else:
            files, candidates = search(network, judge, work.scratch, at)
            recipe = named(work.runtime, candidates[0].recipe)
        at(f"checking {network.job.stage}")
        stage, precision = network.job.stage, recipe.precision
        options = Host(work.runtime, work.threads).options(stage, network.use, precision)
        session = engine(recipe.engine).open(files[0], network.job.states, options)
        error = selftest.error(session, network.calls)
        allowed = selftest.limit(network.use, precision)
        if further := continuing(network.job, recipe, files[0]):
            form = engine(recipe.engine).open(further[0], (), options)
            error = max(error, selftest.continued_error(form, network.calls))
        if not error <= allowed:
            raise GateError(
                f"{stage} in {work.runtime} at {precision} differs from the fp32 hub by "
                f"{error:.1e}, more than {allowed:.1e}; no bundle was written"
            )
        variant = Variant(
            files=tuple(str(file.relative_to(work.root)) for file in (*files, *further)),
            precision=precision,
            limit=allowed,
            recipe=candidates[0].recipe if candidates else network.recipes[0],
            reason=reason(candidates) if candidates else "",
            engine="" if recipe.engine == work.runtime else recipe.engine,
        )
        made[stage] = Converted(variant, error, tuple(candidates))
        if judge and variant.recipe != "fp32":
            held_to[part] = network.limits[variant.recipe]
            judge = replace(judge, reference=with_session(judge.reference, stage, session))
    backend(work.runtime).complete(work.root / work.runtime)
    return made


def _rank(network: Searched) -> int:
    """Place in the order of conversion: networks that are called often come first."""
    return _OFTEN.index(network.use.called)


def _judge(work: Conversion) -> Judge:
    if work.trial is None:
        raise RuntimeError("a recipe search without a trial")  # the pipeline makes one for each
    return Judge(
        load(work.trial.reference),
        evaluation.read(work.trial.evaluation),
        Host(work.runtime, work.threads),
        work.timed,
        work.lenient,
    )


def examine(folder: Path, name: str, runtime: str, threads: int, step: Step) -> Values:
    """Every metric of a finished bundle in one runtime."""
    step(f"{runtime}: evaluation")
    questions = evaluation.read(open_bundle(folder).path(name))
    return gates.examine(
        load(folder, runtime, threads, options=LoadOptions(wanted=ON_CPU)), questions
    )
