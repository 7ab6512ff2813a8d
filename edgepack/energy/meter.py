"""What an energy meter offers, and how its readings become joules; meters are in `meters`.

`Meter.open` gives an instrument, or says why the meter cannot be used. An instrument makes windows.
A window is polled while work is done, and sums up energy. Sources of the rules: the kernel's
powercap, hwmon and power_supply ABIs, and MLPerf Tiny for how long a window has to be.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, cast

from edgepack import discovery
from edgepack.bundle.manifest import Device
from edgepack.errors import UsageError
from edgepack.machine.probe import Machine

PACKAGE = "edgepack.energy.meters"

Scope = Literal[
    "package", "package+dram", "psys", "gpu_board", "board_input", "sum_of_rails", "cpu_rails",
    "battery_whole_device", "process_share", "external",
]  # fmt: skip
MeterQuality = Literal["measured", "measured_coarse", "derived", "modelled", "unavailable"]
_LADDER: tuple[MeterQuality, ...] = (
    "measured",
    "measured_coarse",
    "derived",
    "modelled",
    "unavailable",
)
MANY, FEW = 20, 3  # updates in a window that make it measured, and the least there may be
_COARSE_SECONDS = 0.2  # values that come more slowly than this are coarse


class Window(Protocol):
    """Energy from the first poll to the last."""

    @property
    def joules(self) -> float:
        """Energy so far."""
        ...

    @property
    def updates(self) -> int:
        """How often the value had changed when it was read."""
        ...

    @property
    def wraps(self) -> int:
        """How often a counter wrapped around."""
        ...

    @property
    def flags(self) -> list[str]:
        """Words for what was unusual about the window, for the record."""
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
    best: MeterQuality = "measured"
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
        """The instrument; raises UnusableError with the reason if the meter cannot be used here.

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
    """Energy of a power sensor, integrated by the trapezoidal rule over its readings."""

    watts: Callable[[], float]
    joules: float = 0.0
    updates: int = 0
    wraps: int = 0
    flags: list[str] = field(default_factory=list)
    _last: tuple[float, float] | None = None

    def poll(self, now: float) -> None:
        """Read the power in watts, and add the trapezoid since the last reading."""
        watts = self.watts()
        if self._last is not None:
            then, before = self._last
            self.joules += (now - then) * (watts + before) / 2
            self.updates += watts != before
        self._last = now, watts


def quality(instrument: Instrument, window: Window) -> MeterQuality:
    """How good a window's figure is: by how often its value changed, the instrument's at best."""
    if window.updates < FEW and instrument.best != "modelled":
        return "unavailable"
    coarse = window.updates < MANY or instrument.update_s > _COARSE_SECONDS
    found: MeterQuality = "measured_coarse" if coarse else "measured"
    return max(found, instrument.best, key=_LADDER.index)
