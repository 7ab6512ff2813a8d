"""The recipe search: which recipe a network of a bundle is converted with.

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

from edgepack.builder.backend import Job, converted
from edgepack.builder.calibration.samples import read_calls
from edgepack.bundle import metrics
from edgepack.bundle.measurements import Candidate
from edgepack.bundle.metrics import Limits
from edgepack.bundle.stages import Use
from edgepack.errors import GateError, UnsupportedError
from edgepack.profiles.recipe import named
from edgepack.report import Step
from edgepack.runtime.engines.session import EngineError, Feeds, Session, engine
from edgepack.runtime.loading import Host, Loaded, with_session
from edgepack.verification import gates, selftest
from edgepack.verification.evaluation import Evaluation
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
class Searched:
    """A network to convert: its job without a recipe, its use, recipes in order of preference.

    `limits` are what each recipe's result is held to, `calls` the network's self-test.
    """

    job: Job
    use: Use
    recipes: Sequence[str]
    limits: Mapping[str, Limits]
    calls: Sequence[Call]

    def beside(self, limits: Limits) -> "Searched":
        """The same for a network that is judged with one that was held to other limits.

        What such networks miss adds up, so the looser limit of both counts.
        """
        wider = {name: metrics.looser(held_to, limits) for name, held_to in self.limits.items()}
        return replace(self, limits=wider)


@dataclass(frozen=True)
class Judge:
    """What candidates are judged by: the reference, the evaluation, and a host that times.

    The reference has networks that were chosen before in place of its own. `timed` is whether the
    target is of this machine's kind. If a `lenient` judge finds no recipe of the first one's
    precision that passes, those that failed only a gate stand again.
    """

    reference: Loaded
    evaluation: Evaluation
    host: Host
    timed: bool
    lenient: bool = False


@dataclass(frozen=True)
class Yardstick:
    """fp32 in the same runtime, and the calls that networks are timed with."""

    session: Session
    play: Play


def search(
    network: Searched, judge: Judge, scratch: Path, step: Step
) -> tuple[list[Path], list[Candidate]]:
    """Try every recipe of a network; returns the files of the best, in its folder, and candidates.

    The chosen one is the candidate with the verdict "chosen". Recipes that cannot convert the
    network lose; if none is left, UnsupportedError is raised.
    """
    runtime, stage = judge.host.runtime, network.job.stage
    made: dict[str, list[Path]] = {}
    candidates: list[Candidate] = []
    base: Yardstick | None = None
    # fp32 first: the others are timed against it.
    for number, name in enumerate(sorted(network.recipes, key=lambda name: name != "fp32"), 1):
        step(f"{stage} with {name}, recipe {number} of {len(network.recipes)}")
        folder = scratch / stage / name
        folder.mkdir(parents=True)
        try:
            made[name] = converted(replace(network.job, folder=folder), named(runtime, name))
        except UnsupportedError as error:
            candidates.append(
                Candidate(recipe=name, bytes=0, speed=None, values={}, verdict=str(error))
            )
            continue
        size = sum(file.stat().st_size for file in made[name])
        candidate = Candidate(recipe=name, bytes=size, speed=None, values={}, verdict="")
        if name == "fp32":
            session = _opened(candidate, made[name], network, judge)
            base = _yardstick(session, network, judge)
            speed = _speed(base, session) if base else None
            candidate = msgspec.structs.replace(candidate, speed=speed)
        else:
            candidate = _judged(candidate, made[name], network, judge, base)
        candidates.append(candidate)
    ranked = _ranked(
        [one for one in candidates if one.recipe in made],
        made,
        network,
        judge,
        step,
    )
    chosen = made[ranked[0].recipe]
    kept = [Path(shutil.move(file, network.job.folder / file.name)) for file in chosen]
    shutil.rmtree(scratch / stage)
    failed = [one for one in candidates if one.recipe not in made]
    return kept, [*ranked, *failed]


def _ranked(
    candidates: list[Candidate],
    made: Mapping[str, list[Path]],
    network: Searched,
    judge: Judge,
    step: Step,
) -> list[Candidate]:
    """Candidates from best to worst. The chosen one has passed the whole evaluation, or it is fp32.

    One that does not pass it is refused, and the next is asked. A pardoned one has failed already.
    """
    runtime, stage = judge.host.runtime, network.job.stage
    examined: set[str] = set()
    while True:
        ranked = ranking(
            _pardoned(candidates, network, runtime) if judge.lenient else candidates,
            network.recipes,
        )
        if not ranked or ranked[0].verdict != CHOSEN:
            raise UnsupportedError(
                f"{stage} in {runtime}: none of {', '.join(network.recipes)} works"
            )
        best = next(candidate for candidate in candidates if candidate.recipe == ranked[0].recipe)
        if best.recipe == "fp32" or best.verdict or best.recipe in examined:
            return ranked
        step(f"the whole evaluation of {stage} with {best.recipe}")
        session = _opened(best, made[best.recipe], network, judge)
        candidates[candidates.index(best)] = _examined(best, session, network, judge, whole=True)
        examined.add(best.recipe)


def _opened(
    candidate: Candidate, files: Sequence[Path], network: Searched, judge: Judge
) -> Session:
    recipe = named(judge.host.runtime, candidate.recipe)
    options = judge.host.options(network.job.stage, network.use, recipe.precision)
    return engine(recipe.engine).open(files[0], network.job.states, options)


def _judged(
    candidate: Candidate,
    files: Sequence[Path],
    network: Searched,
    judge: Judge,
    base: Yardstick | None,
) -> Candidate:
    """The candidate with what its network is worth beside the reference's, and the verdict."""
    precision = named(judge.host.runtime, candidate.recipe).precision
    try:
        session = _opened(candidate, files, network, judge)
        error, allowed = (
            selftest.error(session, network.calls),
            selftest.limit(network.use, precision),
        )
        if not error <= allowed:
            words = f"its self-test is off by {error:.1e}, more than {allowed:g}"
            return _with(candidate, f"{_BROKEN} {words}")
        candidate = _examined(candidate, session, network, judge, whole=False)
        if base and not candidate.verdict.startswith(_BROKEN):
            candidate = msgspec.structs.replace(candidate, speed=_speed(base, session))
    except EngineError as error:
        return _with(candidate, f"{_BROKEN} {error}")
    return candidate


def _examined(
    candidate: Candidate,
    session: Session,
    network: Searched,
    judge: Judge,
    *,
    whole: bool,
) -> Candidate:
    """The candidate with the metrics of its network and the verdict of the gates."""
    stage, held_to = network.job.stage, network.limits[candidate.recipe]
    loaded = with_session(judge.reference, stage, session)
    try:
        values, failed = gates.judge(loaded, judge.evaluation, stage, held_to, whole=whole)
    except (EngineError, GateError) as problem:  # the latter for values that are not finite
        return _with(candidate, f"{_BROKEN} {problem}")
    verdict = f"{_REFUSED} {failed[0]}" if failed else ""
    if not all(finite(measure) for measure in values.values()):
        verdict = f"{_BROKEN} it gives values that are not finite"
    values = {metric: rounded(measure) for metric, measure in values.items()}
    return msgspec.structs.replace(candidate, values=values, verdict=verdict)


def reason(candidates: Sequence[Candidate]) -> str:
    """Why the chosen one of ranked candidates was chosen, for the manifest: no figures."""
    chosen = candidates[0]
    others = sum(o.verdict == SECOND for o in candidates)
    if not others:
        return "the only one of those tried that keeps its limits and is worth it"
    if chosen.speed is None:
        return f"the first in order of preference of {others + 1} that keep their limits; not timed"
    return f"the least product of time and bytes of {others + 1} that keep their limits"


def ranking(candidates: Iterable[Candidate], preference: Sequence[str]) -> list[Candidate]:
    """Candidates from best to worst with their verdicts; the first is "chosen" if any may be.

    Offers that already have a verdict have lost. Without a timing of every one that stands, the
    order of preference decides among those that are smaller than fp32.
    """
    candidates = list(candidates)
    base = next((o for o in candidates if o.recipe == "fp32"), None)
    standing = [o for o in candidates if not o.verdict]
    timed = all(o.speed is not None for o in standing)
    beaten = [o for o in standing if base and o is not base and not _worthwhile(o, base)]
    standing = [o for o in standing if o not in beaten]

    def rank(candidate: Candidate) -> tuple[float, ...]:
        place = float(preference.index(candidate.recipe))
        if candidate.speed is None or not timed:
            return (float(candidate is base), 0.0, place)
        slow = 1 / candidate.speed > SLOWER
        return (float(slow), candidate.bytes / candidate.speed, place)

    standing.sort(key=rank)
    verdicts = [CHOSEN, *[SECOND] * (len(standing) - 1)]
    result = [_with(o, v) for o, v in zip(standing, verdicts, strict=False)]
    result += [
        _with(o, f"{_REFUSED} not smaller than fp32, nor known to be faster") for o in beaten
    ]
    return result + [o for o in candidates if o.verdict]


def _pardoned(candidates: Sequence[Candidate], network: Searched, runtime: str) -> list[Candidate]:
    """Candidates of the precision asked for without their failed gates, alone, if none passed."""
    precision = named(runtime, network.recipes[0]).precision
    asked = [
        candidate
        for candidate in candidates
        if named(runtime, candidate.recipe).precision == precision
    ]
    refused = [one for one in asked if one.verdict.startswith(_REFUSED)]
    if not refused or any(not candidate.verdict for candidate in asked):
        return list(candidates)
    base = [one for one in candidates if one.recipe == "fp32"]
    return [*(_with(candidate, "") for candidate in refused), *base]


def _worthwhile(candidate: Candidate, base: Candidate) -> bool:
    """Whether it is smaller than fp32, or known to be faster."""
    return candidate.bytes < base.bytes or (candidate.speed is not None and candidate.speed > 1.0)


def _with(candidate: Candidate, verdict: str) -> Candidate:
    return msgspec.structs.replace(candidate, verdict=verdict)


def _yardstick(session: Session, network: Searched, judge: Judge) -> Yardstick | None:
    """None if the target is of another machine, there is nothing to call, or calls are too short.

    Looking up a row takes microseconds, which cannot be timed.
    """
    play = _play(network, judge) if judge.timed else []
    if len(play) < 2:
        return None
    play = _rows(play, session.batches)
    _seconds_a_call(session, play)
    found = Yardstick(session, play)
    return found if _seconds_a_call(session, play) * (len(play) - 1) >= _SHORTEST else None


def _play(network: Searched, judge: Judge) -> Play:
    """Calls to time a network with: decoding a judged sentence, or a recorded input twice."""
    if network.job.states:
        decoder, spoken = judge.reference.decoder, judge.evaluation[0].spoken
        first = {"embeddings": decoder.prefix(spoken.text.tolist())}
        tokens = spoken.tokens.tolist()[:_STEPS]
        return [first, *({"embeddings": decoder.embed_speech([token])} for token in tokens)]
    if network.job.samples is None:
        return []
    calls = read_calls(network.job.samples, network.job.stage)
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
