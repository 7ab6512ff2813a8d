"""The auction: which recipe a network of a bundle is converted with.

Every recipe that the target allows is tried: converted, examined against the fp32 networks, and
timed against fp32 in the same runtime if the target runs on this machine. Of those that pass, one
that is not slower than fp32 is preferred, then the least product of time and bytes. A recipe that
is slower and not smaller is never taken.

A network is examined together with those that were chosen before it, as errors add up; few
questions are enough to lose, and the one that is chosen has passed on all of them.
"""

import shutil
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from edgepack import metrics
from edgepack.backend import Job, converted
from edgepack.calibration.samples import read_calls
from edgepack.errors import GateError, UnsupportedError
from edgepack.measurements import Offer
from edgepack.metrics import Limits
from edgepack.recipe import named
from edgepack.report import Step
from edgepack.runtime.loading import Host, Loaded, with_session
from edgepack.runtime.session import EngineError, Feeds, Session, engine
from edgepack.verification import gates, selftest
from edgepack.verification.exam import Exam
from edgepack.verification.intervals import digits, finite, rounded
from edgepack.verification.selftest import Call

SLOWER = 1.2  # times fp32's time: less is noise of the measurement
_FEWEST, _MOST, _SECONDS = 3, 15, 1.5  # rounds of one timing, and when to stop
_STEPS = 24  # tokens of one
_REFUSED, _BROKEN = "refused:", "broken:"  # begin verdicts; what is broken is never pardoned
CHOSEN, SECOND = "chosen", "second to the chosen one"
_SHORTEST = 2e-3  # seconds of calls that can be timed

Play = Sequence[Feeds]  # calls in order, starting with empty caches


@dataclass(frozen=True)
class Lot:
    """A network to convert: its job without a recipe, and recipes in order of preference.

    `limits` are what each recipe's result is held to, `calls` the network's self-test.
    """

    job: Job
    recipes: Sequence[str]
    limits: Mapping[str, Limits]
    calls: Sequence[Call]

    def beside(self, limits: Limits) -> "Lot":
        """The same for a network that is judged with one that was held to other limits.

        What such networks miss adds up, so the looser limit of both counts.
        """
        wider = {name: metrics.looser(held_to, limits) for name, held_to in self.limits.items()}
        return replace(self, limits=wider)


@dataclass(frozen=True)
class Judge:
    """What offers are judged by: the reference, the exam, and a host that times.

    The reference has networks that were chosen before in place of its own. `timed` is whether the
    target is of this machine's kind. If a `lenient` judge finds no recipe of the first one's
    precision that passes, those that failed only a gate stand again.
    """

    reference: Loaded
    exam: Exam
    host: Host
    timed: bool
    lenient: bool = False


@dataclass(frozen=True)
class Yardstick:
    """fp32 in the same runtime, and the calls that networks are timed with."""

    session: Session
    play: Play


def hold(lot: Lot, judge: Judge, scratch: Path, step: Step) -> tuple[list[Path], list[Offer]]:
    """Try every recipe of a lot; returns the files of the best, in the job's folder, and offers.

    The chosen one is the offer with the verdict "chosen". Recipes that cannot convert the network
    lose; if none is left, UnsupportedError is raised.
    """
    runtime, stage = judge.host.runtime, lot.job.stage
    made: dict[str, list[Path]] = {}
    offers: list[Offer] = []
    base: Yardstick | None = None
    # fp32 first: the others are timed against it.
    for number, name in enumerate(sorted(lot.recipes, key=lambda name: name != "fp32"), 1):
        step(f"{stage} with {name}, recipe {number} of {len(lot.recipes)}")
        folder = scratch / stage / name
        folder.mkdir(parents=True)
        try:
            made[name] = converted(replace(lot.job, folder=folder), named(runtime, name))
        except UnsupportedError as error:
            offers.append(Offer(recipe=name, bytes=0, speed=None, values={}, verdict=str(error)))
            continue
        size = sum(file.stat().st_size for file in made[name])
        offer = Offer(recipe=name, bytes=size, speed=None, values={}, verdict="")
        if name == "fp32":
            session = _opened(offer, made[name], lot, judge)
            base = _yardstick(session, lot, judge)
            speed = _speed(base, session) if base else None
            offer = msgspec.structs.replace(offer, speed=speed)
        else:
            offer = _judged(offer, made[name], lot, judge, base)
        offers.append(offer)
    ranked = _ranked([offer for offer in offers if offer.recipe in made], made, lot, judge, step)
    chosen = made[ranked[0].recipe]
    kept = [Path(shutil.move(file, lot.job.folder / file.name)) for file in chosen]
    shutil.rmtree(scratch / stage)
    failed = [offer for offer in offers if offer.recipe not in made]
    return kept, [*ranked, *failed]


def _ranked(
    offers: list[Offer], made: Mapping[str, list[Path]], lot: Lot, judge: Judge, step: Step
) -> list[Offer]:
    """Offers from best to worst. The chosen one has passed the whole exam, or it is fp32.

    One that does not pass it is refused, and the next is asked. A pardoned one has failed already.
    """
    runtime, stage = judge.host.runtime, lot.job.stage
    examined: set[str] = set()
    while True:
        ranked = ranking(_pardoned(offers, lot, runtime) if judge.lenient else offers, lot.recipes)
        if not ranked or ranked[0].verdict != CHOSEN:
            raise UnsupportedError(f"{stage} in {runtime}: none of {', '.join(lot.recipes)} works")
        best = next(offer for offer in offers if offer.recipe == ranked[0].recipe)
        if best.recipe == "fp32" or best.verdict or best.recipe in examined:
            return ranked
        step(f"the whole exam of {stage} with {best.recipe}")
        session = _opened(best, made[best.recipe], lot, judge)
        offers[offers.index(best)] = _examined(best, session, lot, judge, whole=True)
        examined.add(best.recipe)


def _opened(offer: Offer, files: Sequence[Path], lot: Lot, judge: Judge) -> Session:
    recipe = named(judge.host.runtime, offer.recipe)
    options = judge.host.options(lot.job.stage, recipe.precision)
    return engine(recipe.engine).open(files[0], lot.job.states, options)


def _judged(
    offer: Offer, files: Sequence[Path], lot: Lot, judge: Judge, base: Yardstick | None
) -> Offer:
    """The offer with what its network is worth among those of the reference, and the verdict."""
    stage, precision = lot.job.stage, named(judge.host.runtime, offer.recipe).precision
    try:
        session = _opened(offer, files, lot, judge)
        error, allowed = selftest.error(session, lot.calls), selftest.limit(stage, precision)
        if not error <= allowed:
            words = f"its self-test is off by {error:.1e}, more than {allowed:g}"
            return _with(offer, f"{_BROKEN} {words}")
        offer = _examined(offer, session, lot, judge, whole=False)
        if base and not offer.verdict.startswith(_BROKEN):
            offer = msgspec.structs.replace(offer, speed=_speed(base, session))
    except EngineError as error:
        return _with(offer, f"{_BROKEN} {error}")
    return offer


def _examined(offer: Offer, session: Session, lot: Lot, judge: Judge, *, whole: bool) -> Offer:
    """The offer with the metrics of its network and the verdict of the gates."""
    stage, held_to = lot.job.stage, lot.limits[offer.recipe]
    loaded = with_session(judge.reference, stage, session)
    try:
        values, failed = gates.judge(loaded, judge.exam, stage, held_to, whole=whole)
    except (EngineError, GateError) as problem:  # the latter for values that are not finite
        return _with(offer, f"{_BROKEN} {problem}")
    verdict = f"{_REFUSED} {failed[0]}" if failed else ""
    if not all(finite(measure) for measure in values.values()):
        verdict = f"{_BROKEN} it gives values that are not finite"
    values = {metric: rounded(measure) for metric, measure in values.items()}
    return msgspec.structs.replace(offer, values=values, verdict=verdict)


def reason(offers: Sequence[Offer]) -> str:
    """Why the chosen one of ranked offers was chosen, for the manifest: no figures."""
    chosen = offers[0]
    others = sum(o.verdict == SECOND for o in offers)
    if not others:
        return "the only one of those tried that keeps its limits and is worth it"
    if chosen.speed is None:
        return f"the first in order of preference of {others + 1} that keep their limits; not timed"
    return f"the least product of time and bytes of {others + 1} that keep their limits"


def ranking(offers: Iterable[Offer], preference: Sequence[str]) -> list[Offer]:
    """Offers from best to worst with their verdicts; the first is "chosen" if any may be.

    Offers that already have a verdict have lost. Without a timing of every one that stands, the
    order of preference decides among those that are smaller than fp32.
    """
    offers = list(offers)
    base = next((o for o in offers if o.recipe == "fp32"), None)
    standing = [o for o in offers if not o.verdict]
    timed = all(o.speed is not None for o in standing)
    beaten = [o for o in standing if base and o is not base and not _worthwhile(o, base)]
    standing = [o for o in standing if o not in beaten]

    def rank(offer: Offer) -> tuple[float, ...]:
        place = float(preference.index(offer.recipe))
        if offer.speed is None or not timed:
            return (float(offer is base), 0.0, place)
        slow = 1 / offer.speed > SLOWER
        return (float(slow), offer.bytes / offer.speed, place)

    standing.sort(key=rank)
    verdicts = [CHOSEN, *[SECOND] * (len(standing) - 1)]
    result = [_with(o, v) for o, v in zip(standing, verdicts, strict=False)]
    result += [
        _with(o, f"{_REFUSED} not smaller than fp32, nor known to be faster") for o in beaten
    ]
    return result + [o for o in offers if o.verdict]


def _pardoned(offers: Sequence[Offer], lot: Lot, runtime: str) -> list[Offer]:
    """Offers of the precision asked for without their failed gates, alone, if none passed."""
    precision = named(runtime, lot.recipes[0]).precision
    asked = [offer for offer in offers if named(runtime, offer.recipe).precision == precision]
    refused = [offer for offer in asked if offer.verdict.startswith(_REFUSED)]
    if not refused or any(not offer.verdict for offer in asked):
        return list(offers)
    base = [offer for offer in offers if offer.recipe == "fp32"]
    return [*(_with(offer, "") for offer in refused), *base]


def _worthwhile(offer: Offer, base: Offer) -> bool:
    """Whether it is smaller than fp32, or known to be faster."""
    return offer.bytes < base.bytes or (offer.speed is not None and offer.speed > 1.0)


def _with(offer: Offer, verdict: str) -> Offer:
    return msgspec.structs.replace(offer, verdict=verdict)


def _yardstick(session: Session, lot: Lot, judge: Judge) -> Yardstick | None:
    """None if the target is of another machine, there is nothing to call, or calls are too short.

    Looking up a row takes microseconds, which cannot be timed.
    """
    play = _play(lot, judge) if judge.timed else []
    if len(play) < 2:
        return None
    play = _rows(play, session.batches)
    _seconds_a_call(session, play)
    found = Yardstick(session, play)
    return found if _seconds_a_call(session, play) * (len(play) - 1) >= _SHORTEST else None


def _play(lot: Lot, judge: Judge) -> Play:
    """Calls to time a network with: decoding a sentence of the exam, or a recorded input twice."""
    if lot.job.states:
        decoder, spoken = judge.reference.decoder, judge.exam[0].spoken
        first = {"embeddings": decoder.prefix(spoken.text.tolist(), [], [])}
        tokens = spoken.tokens.tolist()[:_STEPS]
        return [first, *({"embeddings": decoder.embed_speech([token])} for token in tokens)]
    if lot.job.samples is None:
        return []
    calls = read_calls(lot.job.samples, lot.job.stage)
    longest = max(calls, key=lambda call: sum(value.size for value in call.values()))
    return [longest] * 2


def _rows(play: Play, several: bool) -> Play:
    """The calls with all their rows of a batch, or only the first."""
    if several:
        return play
    return [{name: value[:1] for name, value in feeds.items()} for feeds in play]


def _speed(base: Yardstick, other: Session) -> float:
    """Time of `base` by that of `other`: the median over rounds in which each plays once."""
    play = _rows(base.play, base.session.batches and other.batches)
    for session in (base.session, other):  # warm up
        _seconds_a_call(session, play[:3])
    rounds: list[float] = []
    start = time.perf_counter()
    while len(rounds) < _FEWEST or time.perf_counter() - start < _SECONDS:
        order = (base.session, other) if len(rounds) % 2 else (other, base.session)
        taken = {id(session): _seconds_a_call(session, play) for session in order}
        rounds.append(taken[id(base.session)] / taken[id(other)])
        if len(rounds) == _MOST:
            break
    return digits(statistics.median(rounds))


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
