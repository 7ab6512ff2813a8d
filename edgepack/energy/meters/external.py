"""An external meter's log: a CSV file with `t_s,w` lines, seconds since 1970 and watts.

The log is read when a window ends, so whatever writes it has to keep up.
"""

import csv
import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from edgepack.bundle.manifest import Device
from edgepack.energy.meter import Instrument
from edgepack.errors import UsageError
from edgepack.files import charset
from edgepack.machine.probe import Machine, UnusableError

_UPDATE_SECONDS = 1.0
_EARLIEST, _LATEST = 1e9, 1e11  # years 2001 and 5138: others are not in s


@dataclass
class _LogWindow:
    """Energy between the first and the last poll, by the clock of the log."""

    path: Path
    clock: Callable[[], float]
    wraps: int = 0
    flags: list[str] = field(default_factory=list)
    _times: list[float] = field(default_factory=list)

    def poll(self, now: float) -> None:
        self._times.append(self.clock())

    @property
    def joules(self) -> float:
        return energy(read(self.path), self._times[0], self._times[-1])

    @property
    def updates(self) -> int:
        rows = read(self.path)
        return sum(self._times[0] <= t <= self._times[-1] for t, _ in rows)


@dataclass(frozen=True)
class _External:
    rank: int | None = None
    clock: Callable[[], float] = time.time

    def open(self, machine: Machine, device: Device, argument: str) -> Instrument:
        if not argument:
            raise UnusableError("external needs a log: external:FILE.csv with lines of t_s,w")
        path = Path(argument)
        rows = read(path)
        if not rows:
            raise UnusableError(f"{path}: no lines yet; the log has to begin before the work does")
        _require_clock(path, rows[-1][0])
        return Instrument(
            "external",
            str(path),
            _UPDATE_SECONDS,
            lambda: _LogWindow(path, self.clock),
            live=False,
        )


def read(path: Path) -> list[tuple[float, float]]:
    """Times and watts, ascending; raises UnusableError for another kind of file."""
    try:
        table = csv.DictReader(charset.read(path).splitlines())
        if {"t_s", "w"}.difference(table.fieldnames or ()):
            shown = ",".join(table.fieldnames or ()) or "nothing"
            raise UnusableError(f"{path}: not a CSV with columns t_s,w; its first line has {shown}")
        rows = [(_number(row["t_s"]), _number(row["w"])) for row in table]
    except OSError as error:
        raise UnusableError(f"{path}: {error.strerror}") from None
    except (UsageError, ValueError, TypeError, csv.Error) as error:
        raise UnusableError(f"{path}: not a CSV with columns t_s,w ({error})") from None
    return sorted(rows)


def _number(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise ValueError(f"{word} is no number")
    return value


def _require_clock(path: Path, last: float) -> None:
    if not _EARLIEST <= last < _LATEST:
        wrong = "since the log began" if last < _EARLIEST else "milliseconds"
        raise UnusableError(
            f"{path}: t_s ends at {last:.12g}; it has to be seconds since 1970, as 'date +%s' "
            f"gives, and not {wrong}"
        )


def energy(rows: list[tuple[float, float]], start: float, end: float) -> float:
    """Joules from `start` to `end`, with power interpolated linearly between lines.

    Raises UnusableError if the log does not reach that far.
    """
    if not rows or rows[0][0] > start or rows[-1][0] < end:
        raise UnusableError("the external log does not cover the whole window; let it run longer")

    def watts(t: float) -> float:
        (t0, w0), (t1, w1) = rows[max(bisect_right(rows, (t, 0.0)) - 1, 0)], rows[_after(rows, t)]
        return w0 if t1 == t0 else w0 + (w1 - w0) * (t - t0) / (t1 - t0)

    inside = [(t, w) for t, w in rows if start < t < end]
    points = [(start, watts(start)), *inside, (end, watts(end))]
    return sum((t1 - t0) * (w0 + w1) / 2 for (t0, w0), (t1, w1) in pairwise(points))


def _after(rows: list[tuple[float, float]], t: float) -> int:
    return min(bisect_left(rows, (t, 0.0)), len(rows) - 1)


METER = _External()
