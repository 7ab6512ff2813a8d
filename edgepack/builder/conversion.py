"""From the hub's networks to those of one runtime; runs in a process of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgepack.auction import Judge, Lot, hold, reason
from edgepack.backend import backend, converted
from edgepack.bundle import open_bundle
from edgepack.errors import GateError
from edgepack.manifest import Variant
from edgepack.measurements import Offer
from edgepack.metrics import Limits, Values
from edgepack.recipe import named
from edgepack.report import Step, within
from edgepack.runtime.gpu.placement import ON_CPU
from edgepack.runtime.loading import Host, load, with_session
from edgepack.runtime.session import engine
from edgepack.trial import Trial
from edgepack.verification import exam, gates, selftest


@dataclass(frozen=True)
class Converted:
    """A network of one runtime: its self-test error, and offers if it was chosen from several."""

    variant: Variant
    error: float
    offers: tuple[Offer, ...]


@dataclass(frozen=True)
class Conversion:
    """What one runtime of a bundle is made of.

    `root` is the bundle's folder, `scratch` one for what is tried. `timed` is whether the target
    runs on this machine, `lenient` whether gates may fail.
    """

    runtime: str
    lots: Sequence[Lot]
    root: Path
    scratch: Path
    threads: int
    trial: Trial | None
    timed: bool
    lenient: bool


def convert(work: Conversion, step: Step) -> dict[str, Converted]:
    """Convert networks for one runtime and compare each with the hub.

    A network with several recipes is put up for auction, with those before it in their places.
    Raises GateError if the self-test of one differs by more than it may.
    """
    judge = _judge(work) if any(len(lot.recipes) > 1 for lot in work.lots) else None
    made = {}
    held_to: dict[gates.Part, Limits] = {}  # of what is in place
    for number, lot in enumerate(work.lots, 1):
        at = within(step, f"{work.runtime}, network {number} of {len(work.lots)}")
        part = gates.part_of(lot.job.stage)
        lot = lot.beside(held_to.get(part, {}))
        offers: Sequence[Offer] = ()
        if judge is None or len(lot.recipes) == 1:
            recipe = named(work.runtime, lot.recipes[0])
            at(f"converting {lot.job.stage}")
            files = converted(lot.job, recipe)
        else:
            files, offers = hold(lot, judge, work.scratch, at)
            recipe = named(work.runtime, offers[0].recipe)
        at(f"checking {lot.job.stage}")
        stage, precision = lot.job.stage, recipe.precision
        options = Host(work.runtime, work.threads).options(stage, precision)
        session = engine(recipe.engine).open(files[0], lot.job.states, options)
        error = selftest.error(session, lot.calls)
        allowed = selftest.limit(stage, precision)
        if not error <= allowed:
            raise GateError(
                f"{stage} in {work.runtime} at {precision} differs from the fp32 hub by "
                f"{error:.1e}, more than {allowed:.1e}; no bundle was written"
            )
        variant = Variant(
            files=tuple(str(file.relative_to(work.root)) for file in files),
            precision=precision,
            limit=allowed,
            recipe=offers[0].recipe if offers else lot.recipes[0],
            reason=reason(offers) if offers else "",
            engine="" if recipe.engine == work.runtime else recipe.engine,
        )
        made[stage] = Converted(variant, error, tuple(offers))
        if judge and variant.recipe != "fp32":
            held_to[part] = lot.limits[variant.recipe]
            judge = replace(judge, reference=with_session(judge.reference, stage, session))
    backend(work.runtime).complete(work.root / work.runtime)
    return made


def _judge(work: Conversion) -> Judge:
    if work.trial is None:
        raise RuntimeError("an auction without a trial")  # the pipeline makes one for each
    return Judge(
        load(work.trial.reference),
        exam.read(work.trial.exam),
        Host(work.runtime, work.threads),
        work.timed,
        work.lenient,
    )


def examine(folder: Path, name: str, runtime: str, threads: int, step: Step) -> Values:
    """Every metric of a finished bundle in one runtime."""
    step(f"{runtime}: exam")
    questions = exam.read(open_bundle(folder).path(name))
    return gates.examine(load(folder, runtime, threads, wanted=ON_CPU), questions)
