"""The auction: which recipe a network of a bundle is converted with.

Every recipe that the target allows is tried: converted, examined against the fp32 networks, and
timed against fp32 in the same runtime if the target runs on this machine. Of those that pass, one
that is not slower than fp32 is preferred, then the least product of time and bytes. A recipe that
is slower and not smaller is never taken.
"""

import shutil
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgepack.backend import Job, converted
from edgepack.calibration.samples import read_calls
from edgepack.errors import UnsupportedError
from edgepack.manifest import Limit, Offer
from edgepack.recipe import named
from edgepack.report import Step
from edgepack.runtime.loading import Host, Loaded, with_session
from edgepack.runtime.session import Feeds, Session, engine
from edgepack.verification import gates
from edgepack.verification.exam import Exam

SLOWER = 1.2  # times fp32's time: less is noise of the measurement
_FEWEST, _MOST, _SECONDS = 3, 15, 4.0  # rounds of one timing, and when to stop
_STEPS = 24  # tokens of one
_QUESTIONS = 2  # of the exam that a network is asked by itself
_SHORTEST = 0.5e-3  # seconds of a call that can be timed

Play = Sequence[Feeds]  # calls in order, starting with empty caches


@dataclass(frozen=True)
class Lot:
    """A network to convert: its job without a recipe, and recipes in order of preference."""

    job: Job
    recipes: Sequence[str]


@dataclass(frozen=True)
class Judge:
    """What offers are judged by: the reference, the exam, its limits, and a host that times.

    `timed` is whether the target is of this machine's kind. If a `lenient` judge finds no recipe
    of the first one's precision that passes, those that failed only a gate stand again.
    """

    reference: Loaded
    exam: Exam
    limits: Mapping[str, Limit]
    host: Host
    timed: bool
    lenient: bool = False


def hold(lot: Lot, judge: Judge, scratch: Path, step: Step) -> tuple[list[Path], list[Offer]]:
    """Try every recipe of a lot; returns the files of the best, in the job's folder, and offers.

    The chosen one is the offer with the verdict "chosen". Recipes that cannot convert the network
    lose; if none is left, UnsupportedError is raised.
    """
    runtime, stage = judge.host.runtime, lot.job.stage
    made: dict[str, list[Path]] = {}
    offers: list[Offer] = []
    base: Session | None = None
    # fp32 first: the others are timed against it.
    for name in sorted(lot.recipes, key=lambda name: name != "fp32"):
        step(f"{runtime}: {stage} with {name}")
        recipe = named(runtime, name)
        folder = scratch / stage / name
        folder.mkdir(parents=True)
        try:
            files = converted(replace(lot.job, folder=folder), recipe)
        except UnsupportedError as error:
            offers.append(Offer(recipe=name, bytes=0, speed=None, values={}, verdict=str(error)))
            continue
        options = judge.host.options(stage, recipe.precision)
        session = engine(recipe.engine).open(files[0], lot.job.states, options)
        base = session if name == "fp32" else base
        offers.append(_offer(name, files, session, base, lot, judge))
        made[name] = files
    standing = [offer for offer in offers if offer.recipe in made]
    if judge.lenient:
        standing = _pardoned(standing, runtime, named(runtime, lot.recipes[0]).precision)
    ranked = ranking(standing, lot.recipes)
    if not ranked or not _valid(ranked[0]):
        raise UnsupportedError(f"{stage} in {runtime}: none of {', '.join(lot.recipes)} works")
    chosen = made[ranked[0].recipe]
    kept = [Path(shutil.move(file, lot.job.folder / file.name)) for file in chosen]
    shutil.rmtree(scratch / stage)
    failed = [offer for offer in offers if offer.recipe not in made]
    return kept, [*ranked, *failed]


def _valid(offer: Offer) -> bool:
    return offer.verdict == "chosen"


def _offer(
    name: str, files: Sequence[Path], session: Session, base: Session | None, lot: Lot, judge: Judge
) -> Offer:
    """Examine and time a converted network; looking up a row is too short to be timed."""
    stage = lot.job.stage
    values: Mapping[str, float] = {}
    failed: list[str] = []
    if session is not base:
        examined = with_session(judge.reference, stage, session)
        values = gates.OF_STAGE[stage](examined, judge.exam[:_QUESTIONS])
        failed = gates.failures(values, judge.limits)
    speed = None
    if judge.timed and base is not None:
        rows = None if base.batches and session.batches else 1
        speed = _speed(base, session, _play(lot, judge, rows))
    return Offer(
        recipe=name,
        bytes=sum(file.stat().st_size for file in files),
        speed=speed,
        values={metric: gates.rounded(value) for metric, value in values.items()},
        verdict=f"refused: {failed[0]}" if failed else "",
    )


def ranking(offers: Iterable[Offer], preference: Sequence[str]) -> list[Offer]:
    """Offers from best to worst with their verdicts; the first is "chosen" if any may be.

    Offers that already have a verdict have lost. Without timings the order of preference decides
    among those that are smaller than fp32.
    """
    offers = list(offers)
    base = next((o for o in offers if o.recipe == "fp32"), None)
    standing = [o for o in offers if not o.verdict]
    beaten = [o for o in standing if base and o is not base and not _worthwhile(o, base)]
    standing = [o for o in standing if o not in beaten]

    def rank(offer: Offer) -> tuple[float, ...]:
        place = float(preference.index(offer.recipe))
        if offer.speed is None:
            return (float(offer is base), 0.0, place)
        slow = 1 / offer.speed > SLOWER
        return (float(slow), offer.bytes / offer.speed, place)

    standing.sort(key=rank)
    verdicts = ["chosen", *["second to the chosen one"] * (len(standing) - 1)]
    result = [_with(o, v) for o, v in zip(standing, verdicts, strict=False)]
    result += [_with(o, "refused: slower than fp32 and not smaller") for o in beaten]
    return result + [o for o in offers if o.verdict]


def _pardoned(offers: Sequence[Offer], runtime: str, precision: str) -> list[Offer]:
    """Offers of a precision without their failed gates, alone, if none of them passed."""
    asked = [offer for offer in offers if named(runtime, offer.recipe).precision == precision]
    if not asked or any(not offer.verdict for offer in asked):
        return list(offers)
    base = [offer for offer in offers if offer.recipe == "fp32"]
    return [*(_with(offer, "") for offer in asked), *base]


def _worthwhile(offer: Offer, base: Offer) -> bool:
    """Whether it is smaller than fp32, or known to be faster."""
    return offer.bytes < base.bytes or (offer.speed is not None and offer.speed > 1.0)


def _with(offer: Offer, verdict: str) -> Offer:
    return Offer(
        recipe=offer.recipe,
        bytes=offer.bytes,
        speed=offer.speed,
        values=offer.values,
        verdict=verdict,
    )


def _play(lot: Lot, judge: Judge, rows: int | None) -> Play:
    """Calls to time a network with: decoding a sentence of the exam, or a recorded input.

    That has as many rows of a batch as were recorded, or `rows` of them.
    """
    if lot.job.states:
        decoder, spoken = judge.reference.decoder, judge.exam[0].spoken
        first = {"embeddings": decoder.prefix(spoken.text.tolist(), [], [])}
        tokens = spoken.tokens.tolist()[:_STEPS]
        return [first, *({"embeddings": decoder.embed_speech([token])} for token in tokens)]
    if lot.job.samples is None:
        return []
    calls = read_calls(lot.job.samples, lot.job.stage)
    longest = max(calls, key=lambda call: sum(value.size for value in call.values()))
    return [{name: value[:rows] for name, value in longest.items()}] * 4


def _speed(base: Session, other: Session, play: Play) -> float | None:
    """Time of `base` by that of `other`: the median over rounds in which each plays once.

    None if there is nothing to play, or a call of `base` takes less than half a millisecond.
    """
    if len(play) < 2:
        return None
    for session in (base, other):  # warm up
        _seconds_a_call(session, play[:3])
    rounds: list[tuple[float, float]] = []
    start = time.perf_counter()
    while len(rounds) < _FEWEST or time.perf_counter() - start < _SECONDS:
        order = (base, other) if len(rounds) % 2 else (other, base)
        taken = {id(session): _seconds_a_call(session, play) for session in order}
        rounds.append((taken[id(base)], taken[id(other)]))
        if len(rounds) == _MOST:
            break
    if statistics.median(one for one, _ in rounds) < _SHORTEST:
        return None
    return gates.rounded(statistics.median(one / two for one, two in rounds))


def _seconds_a_call(session: Session, play: Play) -> float:
    """Median seconds of the calls after the first."""
    session.reset()
    session.run(play[0])
    taken = []
    for feeds in play[1:]:
        start = time.perf_counter()
        session.run(feeds)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)
