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
from edgepack.bundle import Bundle, open_bundle
from edgepack.errors import GateError
from edgepack.report import Parts, Step
from edgepack.runtime import energy
from edgepack.runtime.cpu import plan, quota, topology
from edgepack.runtime.cpu.plan import Wish
from edgepack.runtime.cpu.topology import Topology
from edgepack.runtime.meter import Machine

_OVERLAPPING = 8  # sentences of a text that is long enough for several utterances


@dataclass(frozen=True)
class Trial:
    """What a plan gave: real-time factors, CPU seconds and joules for a second of audio."""

    wish: Wish
    threads: int
    rtf: Percentiles
    cpu_seconds: float
    joules: float | None


def wishes(machine: Topology, runtime: str) -> list[Wish]:
    """What to try: one and two threads, each class of cores, all of them; spinning if it can."""
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
class Tuned:
    """All trials, the best of them, and median seconds of a text of several utterances with it.

    The text was decoded `in_turn` with its sound, and `ahead` of it.
    """

    trials: Sequence[Trial]
    best: Trial
    in_turn: float
    ahead: float


def run(
    bundle: Path,
    runtime: str,
    *,
    meter: str,
    count: int,
    rounds: int,
    most_rtf: float,
    step: Step,
    machine: Machine,
) -> Tuned:
    """Every wish in a process of its own, one after the other; `count` sentences, `rounds` times.

    Then, with the best plan, whether to decode ahead. Raises GateError if a sentence fails.
    """
    opened, found = open_bundle(bundle), topology.read()
    meters = energy.select(meter, machine, opened.manifest.device)
    texts, wanted = sentences(opened, count), wishes(found, runtime)
    # In sentences that are spoken.
    sizes: dict[Any, float] = dict.fromkeys(wanted, 1.0 + rounds * count)
    sizes["ahead"] = (1.0 + 2 * rounds) * max(count, _OVERLAPPING)
    at = Parts(step, sizes)
    trials = []
    for wish in wanted:
        at.begin(wish)
        trials.append(_tried(opened, runtime, wish, found, meters, texts, rounds, at, machine))
    chosen = best(trials, most_rtf)
    at.begin("ahead")
    in_turn, ahead = _overlapping(opened, runtime, chosen, found, count, rounds, at)
    return Tuned(trials, chosen, in_turn, ahead)


def _tried(
    bundle: Bundle,
    runtime: str,
    wish: Wish,
    found: Topology,
    meters: energy.Meters,
    texts: Sequence[str],
    rounds: int,
    step: Step,
    machine: Machine,
) -> Trial:
    made = plan.make(found, plan.allowed(), quota.cpus(), wish)
    step(f"{wish.cpus}, {made.threads} threads{', spinning' if wish.spin else ''}")
    remote = Remote(Spec(bundle.folder, runtime, None, made, 0, strict=False))
    try:
        remote.ask("speak", texts[0])
        before = remote.ask("cpu_seconds")
        with energy.measuring(meters, machine) as readings:
            spoken = [remote.ask("speak", text) for _ in range(rounds) for text in texts]
        cpu = remote.ask("cpu_seconds") - before
    finally:
        remote.close()
    audio = sum(s["audio_seconds"] for s in spoken)
    joules = readings[0].joules if readings else None
    return Trial(
        wish,
        made.threads,
        percentiles([s["seconds"] / s["audio_seconds"] for s in spoken]),
        cpu / audio,
        None if joules is None else joules / audio,
    )


def _overlapping(
    opened: Bundle,
    runtime: str,
    trial: Trial,
    found: Topology,
    count: int,
    rounds: int,
    step: Step,
) -> tuple[float, float]:
    """Median seconds of a text of several utterances, decoded in turn with their sound, and ahead.

    Raises GateError if a sentence fails.
    """
    made = plan.make(found, plan.allowed(), quota.cpus(), trial.wish)
    step("sentences decoded in turn, and ahead")
    text = "".join(sentences(opened, max(count, _OVERLAPPING)))
    remote = Remote(Spec(opened.folder, runtime, None, made, 0, strict=False))
    try:
        remote.ask("whole", text, True)
        turns = [[remote.ask("whole", text, how) for how in (False, True)] for _ in range(rounds)]
    finally:
        remote.close()
    one, other = (median(seconds) for seconds in zip(*turns, strict=True))
    return one, other


def best(trials: Sequence[Trial], most_rtf: float) -> Trial:
    """Of those fast enough the one of least energy, or of least CPU time if it was not measured.

    If none is fast enough, the fastest. Raises GateError if there are none.
    """
    if not trials:
        raise GateError("nothing was tried")
    enough = [trial for trial in trials if trial.rtf.p95 <= most_rtf]
    if not enough:
        return min(trials, key=lambda trial: trial.rtf.p95)
    measured = all(trial.joules is not None for trial in enough)
    return min(enough, key=lambda t: (t.joules or 0.0) if measured else t.cpu_seconds)


def record(trial: Trial) -> dict[str, Any]:
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
