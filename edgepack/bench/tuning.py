"""Which CPUs and how many threads speak with the least energy and are fast enough."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from edgepack.bench.measure import percentiles, sentences
from edgepack.bench.remote import Remote
from edgepack.bench.result import Percentiles
from edgepack.bench.worker import Spec
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.energy import measurement
from edgepack.errors import GateError
from edgepack.machine.cpu import plan, quota, topology
from edgepack.machine.cpu.plan import CpuPlan, Wish
from edgepack.machine.cpu.topology import Topology
from edgepack.machine.probe import Machine
from edgepack.report import Parts, Step

_OVERLAPPING = 8  # sentences of a text that is long enough for several utterances


@dataclass(frozen=True)
class TriedPlan:
    """What a plan of CPUs gave: real-time factors, CPU seconds and joules for a second of audio."""

    wish: Wish
    threads: int
    rtf: Percentiles
    cpu_seconds: float
    joules: float | None


def wishes(machine: Topology, runtime: str) -> list[Wish]:
    """Plans to try: 1, 2 and all threads on each class of cores; with spinning for ort."""
    kinds = machine.kinds
    sets = ["all"]
    if len(kinds) > 1:
        sets += ["performance", "efficiency", "prime"]
    found = []
    for cpus in sets:
        most = plan.make(machine, plan.allowed(), quota.cpus(), Wish(cpus)).threads
        for threads in sorted({1, 2, most} & set(range(1, most + 1))):
            found.append(Wish(cpus, threads))
            if runtime == "ort" and threads > 1:
                found.append(Wish(cpus, threads, spin=True))
    return found


@dataclass(frozen=True)
class TuningResult:
    """All plans that were tried and the best of them.

    `in_turn` and `ahead` are median seconds that the best plan took for a text of several
    utterances: each decoded after the sound of the one before, or while that is made.
    """

    trials: Sequence[TriedPlan]
    best: TriedPlan
    in_turn: float
    ahead: float


@dataclass(frozen=True)
class TuningRequest:
    """What plans are tried with: a bundle in a runtime, and `sentences` spoken `rounds` times each.

    `meter` is as for `edgepack run --energy`. The 95th percentile of the real-time factor has to
    stay below `most_rtf`.
    """

    bundle: Path
    runtime: str
    meter: str
    sentences: int
    rounds: int
    most_rtf: float


@dataclass(frozen=True)
class _Session:
    """A request with all that measuring needs: the bundle, the CPUs, and energy meters."""

    request: TuningRequest
    bundle: Bundle
    topology: Topology
    meters: measurement.Meters
    machine: Machine

    def plan(self, wish: Wish) -> CpuPlan:
        """The plan for a wish on this machine."""
        return plan.make(self.topology, plan.allowed(), quota.cpus(), wish)

    def remote(self, made: CpuPlan) -> Remote:
        """A process that has loaded the bundle and runs by a plan."""
        runtime = self.request.runtime
        return Remote(Spec(self.bundle.folder, runtime, None, made, 0, strict=False))


def run(request: TuningRequest, machine: Machine, step: Step) -> TuningResult:
    """Try every plan in a process of its own, one after the other.

    Then, with the best plan, whether to decode ahead. Raises GateError if a sentence fails.
    """
    opened, found = open_bundle(request.bundle), topology.read()
    meters = measurement.select(request.meter, machine, opened.manifest.device)
    session = _Session(request, opened, found, meters, machine)
    texts, wanted = sentences(opened, request.sentences), wishes(found, request.runtime)
    # In sentences that are spoken.
    sizes: dict[Any, float] = dict.fromkeys(wanted, 1.0 + request.rounds * request.sentences)
    sizes["ahead"] = (1.0 + 2 * request.rounds) * max(request.sentences, _OVERLAPPING)
    at = Parts(step, sizes)
    trials = []
    for wish in wanted:
        at.begin(wish)
        trials.append(_tried(session, wish, texts, at))
    chosen = best(trials, request.most_rtf)
    at.begin("ahead")
    in_turn, ahead = _overlapping(session, chosen.wish, at)
    return TuningResult(trials, chosen, in_turn, ahead)


def _tried(session: _Session, wish: Wish, texts: Sequence[str], step: Step) -> TriedPlan:
    """What a plan costs for a second of audio."""
    made = session.plan(wish)
    step(f"{wish.cpus}, {made.threads} threads{', spinning' if wish.spin else ''}")
    remote = session.remote(made)
    try:
        remote.ask("speak", texts[0])
        before = remote.ask("cpu_seconds")
        with measurement.measuring(session.meters, session.machine) as readings:
            spoken = [
                remote.ask("speak", text) for _ in range(session.request.rounds) for text in texts
            ]
        cpu = remote.ask("cpu_seconds") - before
    finally:
        remote.close()
    audio = sum(s["audio_seconds"] for s in spoken)
    joules = readings[0].joules if readings else None
    return TriedPlan(
        wish,
        made.threads,
        percentiles([s["seconds"] / s["audio_seconds"] for s in spoken]),
        cpu / audio,
        None if joules is None else joules / audio,
    )


def _overlapping(session: _Session, wish: Wish, step: Step) -> tuple[float, float]:
    """Median seconds of a text of several utterances, decoded in turn with their sound, and ahead.

    Raises GateError if a sentence fails.
    """
    step("sentences decoded in turn, and ahead")
    request = session.request
    text = "".join(sentences(session.bundle, max(request.sentences, _OVERLAPPING)))
    remote = session.remote(session.plan(wish))
    try:
        remote.ask("whole", text, True)
        turns = [
            [remote.ask("whole", text, how) for how in (False, True)] for _ in range(request.rounds)
        ]
    finally:
        remote.close()
    one, other = (median(seconds) for seconds in zip(*turns, strict=True))
    return one, other


def best(trials: Sequence[TriedPlan], most_rtf: float) -> TriedPlan:
    """The plan of least energy (or CPU time, if not measured) among those fast enough.

    If none is fast enough, the fastest. Raises GateError if there are none.
    """
    if not trials:
        raise GateError("nothing was tried")
    enough = [trial for trial in trials if trial.rtf.p95 <= most_rtf]
    if not enough:
        return min(trials, key=lambda trial: trial.rtf.p95)
    measured = all(trial.joules is not None for trial in enough)
    return min(enough, key=lambda t: (t.joules or 0.0) if measured else t.cpu_seconds)


def record(trial: TriedPlan) -> dict[str, Any]:
    """A trial for the JSON document."""
    return {
        "cpus": trial.wish.cpus,
        "threads": trial.threads,
        "spin": trial.wish.spin,
        "rtf_p50": trial.rtf.p50,
        "rtf_p95": trial.rtf.p95,
        "cpu_s_per_audio_s": trial.cpu_seconds,
        "j_per_audio_s": trial.joules,
    }
