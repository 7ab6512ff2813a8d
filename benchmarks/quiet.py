"""How much of the CPUs other processes use while something is timed, and rounds that they spoil."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

MOST_CORES = 0.1  # that others may use on average while a round is timed
SPARE_ROUNDS = 3  # repeated at most, before it is said that nothing can be judged
_LOOK_SECONDS = 5.0


class BusyError(Exception):
    """Other processes use the CPUs, so timings would say nothing."""


@dataclass
class Others:
    """CPUs that processes other than this one and its children use, on average since it began."""

    _own: float = field(init=False)
    _all: float = field(init=False)
    _start: float = field(init=False)

    def __post_init__(self) -> None:
        self._own, self._all, self._start = _own_seconds(), _busy_seconds(), time.perf_counter()

    @property
    def cores(self) -> float:
        """How many."""
        wall = max(time.perf_counter() - self._start, 1e-9)
        busy = _busy_seconds() - self._all - (_own_seconds() - self._own)
        return max(0.0, busy / wall)


def _busy_seconds() -> float:
    """Of all CPUs since the machine was started; what the host takes away counts, too."""
    times = psutil.cpu_times()
    return float(
        sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
    )


def _own_seconds() -> float:
    """Of this process and of all its descendants that live, and of children that ended."""
    me = psutil.Process()
    mine = me.cpu_times()
    total = mine.user + mine.system + mine.children_user + mine.children_system
    for child in me.children(recursive=True):
        with suppress(psutil.Error):
            used = child.cpu_times()
            total += used.user + used.system
    return float(total)


def require_quiet(seconds: float = _LOOK_SECONDS) -> None:
    """Raise BusyError if others use the CPUs now."""
    others = Others()
    time.sleep(seconds)
    if others.cores > MOST_CORES:
        raise BusyError(
            f"other processes use {others.cores:.2f} CPUs, at most {MOST_CORES} may be used while "
            "something is timed; end them and try again"
        )


def undisturbed(rounds: int, take: Callable[[], Callable[[], None]]) -> None:
    """Call `take` until so many rounds were not disturbed; what it returns drops a round again.

    Raises BusyError if too many had to be dropped.
    """
    good = dropped = 0
    while good < rounds:
        others = Others()
        drop = take()
        used = others.cores
        if used <= MOST_CORES:
            good += 1
            continue
        drop()
        dropped += 1
        print(f"a round is repeated: others used {used:.2f} CPUs", file=sys.stderr, flush=True)
        if dropped > SPARE_ROUNDS:
            raise BusyError(
                f"{dropped} rounds were disturbed by other processes; nothing is judged"
            )
