"""What an energy meter offers, and how its readings become joules; meters are in `meters`.

A meter opens to an instrument, or says why it cannot be used. An instrument makes windows; a
window is polled and sums up. Source of the rules: the kernel's powercap, hwmon and power_supply
ABIs, and the protocol of MLPerf Tiny for what a window has to hold.
"""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, cast

from edgepack import discovery
from edgepack.errors import UnsupportedError, UsageError
from edgepack.manifest import Device

PACKAGE = "edgepack.runtime.meters"

Scope = Literal[
    "package", "package+dram", "psys", "gpu_board", "board_input", "sum_of_rails", "cpu_rails",
    "battery_whole_device", "process_share", "external",
]  # fmt: skip
Quality = Literal["measured", "measured_coarse", "derived", "modelled", "unavailable"]
_LADDER: tuple[Quality, ...] = ("measured", "measured_coarse", "derived", "modelled", "unavailable")
MANY, FEW = 20, 3  # updates in a window that make it measured, and the least there may be
_COARSE_SECONDS = 0.2  # values that come more slowly than this are coarse


class UnusableError(UnsupportedError):
    """Why a meter cannot be used on this machine, and what to do if there is anything."""


def run_program(command: Sequence[str]) -> str:
    """The standard output of a program; raises UnusableError if it fails or takes two seconds."""
    try:
        done = subprocess.run(  # noqa: S603 (absolute path, fixed arguments)
            command, check=True, capture_output=True, text=True, timeout=2
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UnusableError(f"{Path(command[0]).name}: {error}") from None
    return done.stdout


@dataclass(frozen=True)
class Machine:
    """The machine to be measured; tests give another root, clock and programs."""

    root: Path = Path("/")
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    program: Callable[[Sequence[str]], str] = run_program

    def text(self, path: str | Path) -> str | None:
        """A file's text, stripped; None if it is not there. UnusableError if it may not be read."""
        full = self.root / str(path).lstrip("/")
        try:
            return full.read_text("utf-8").strip()
        except PermissionError:
            raise UnusableError(f"{path}: no permission to read it") from None
        except (OSError, UnicodeError):
            return None

    def number(self, path: str | Path) -> int | None:
        """A file that holds one whole number; None if it is not there or holds something else."""
        text = self.text(path)
        try:
            return int(text) if text else None
        except ValueError:
            return None

    def paths(self, pattern: str) -> list[Path]:
        """Absolute paths that match below the root, as seen from there, sorted."""
        found = sorted(self.root.glob(pattern.lstrip("/")))
        return [Path("/") / path.relative_to(self.root) for path in found]


class Window(Protocol):
    """Energy from the first poll to the last."""

    @property
    def joules(self) -> float:
        """Energy so far."""
        ...

    @property
    def updates(self) -> int:
        """How often the value was a new one."""
        ...

    @property
    def wraps(self) -> int:
        """How often a counter began again."""
        ...

    @property
    def flags(self) -> list[str]:
        """What was odd."""
        ...

    def poll(self, now: float) -> None:
        """Read the instrument at `now`, in seconds of the machine's clock."""
        ...


@dataclass(frozen=True)
class Instrument:
    """A meter that can be used.

    `source` is what it reads, `update_s` how often there is a new value. `best` is the quality its
    figures can have; `flags` are put into every record. `live` is whether its value advances by
    itself, so that this can be seen before it is used; that of a log or an estimate does not.
    """

    scope: Scope
    source: str
    update_s: float
    window: Callable[[], Window]
    best: Quality = "measured"
    flags: tuple[str, ...] = ()
    live: bool = True


class Meter(Protocol):
    """A module of `meters`: `METER = Meter(...)`.

    `rank` is the order in which meters are tried, None for those that have to be asked for.
    """

    @property
    def rank(self) -> int | None:
        """Lower is tried earlier."""
        ...

    def open(self, machine: Machine, device: Device, argument: str) -> Instrument:
        """The instrument; raises UnusableError with the reason if there is none to be had.

        `argument` is what the user wrote after the meter's name and a colon.
        """
        ...


def names() -> list[str]:
    """All meters of this version."""
    return discovery.names(PACKAGE)


def meter(name: str) -> Meter:
    """The meter called `name`; raises UsageError with a suggestion if there is none."""
    if name not in names():
        raise UsageError(discovery.unknown("energy meter", name, ["auto", "none", *names()]))
    return cast(Meter, discovery.load(PACKAGE, name, "METER"))


@dataclass
class CounterWindow:
    """Energy of counters that run upwards and may wrap around at a range of their own.

    `read` gives counts by domain, each worth `unit` joules; `ranges` the count at which a domain
    wraps. A step back without a known range cannot be corrected: it is left out and flagged.
    """

    read: Callable[[], Mapping[str, int]]
    unit: float
    ranges: Mapping[str, int] = field(default_factory=dict)
    counts: int = 0
    updates: int = 0
    wraps: int = 0
    flags: list[str] = field(default_factory=list)
    _last: Mapping[str, int] | None = None

    @property
    def joules(self) -> float:
        """Energy so far."""
        return self.counts * self.unit

    def poll(self, now: float) -> None:
        """Add what the counters have advanced by."""
        new = self.read()
        if self._last is not None:
            steps = [self._step(name, self._last[name], new[name]) for name in self._last]
            self.counts += sum(steps)
            self.updates += any(steps)
        self._last = new

    def _step(self, name: str, old: int, new: int) -> int:
        step = new - old
        if step >= 0:
            return step
        step += self.ranges.get(name, 0)
        if step < 0 or not self.ranges.get(name):
            self._flag("counter_reset")
            return 0
        self.wraps += 1
        return step

    def _flag(self, flag: str) -> None:
        if flag not in self.flags:
            self.flags.append(flag)


@dataclass
class PowerWindow:
    """Energy of a power sensor: trapezoids between the times it was read."""

    watts: Callable[[], float]
    joules: float = 0.0
    updates: int = 0
    wraps: int = 0
    flags: list[str] = field(default_factory=list)
    _last: tuple[float, float] | None = None

    def poll(self, now: float) -> None:
        """Read the power, and add the trapezoid since the time before."""
        watts = self.watts()
        if self._last is not None:
            then, before = self._last
            self.joules += (now - then) * (watts + before) / 2
            self.updates += watts != before
        self._last = now, watts


def quality(instrument: Instrument, window: Window) -> Quality:
    """What a window's figure is worth: by how often the value changed in it, and at best."""
    if window.updates < FEW and instrument.best != "modelled":
        return "unavailable"
    coarse = window.updates < MANY or instrument.update_s > _COARSE_SECONDS
    found: Quality = "measured_coarse" if coarse else "measured"
    return max(found, instrument.best, key=_LADDER.index)
