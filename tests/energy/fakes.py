"""A machine whose clock moves when somebody sleeps, and whose files change with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgepack.energy.meter import Instrument, Window
from edgepack.machine.probe import Machine, UnusableError


@dataclass
class Time:
    """A clock; `ticks` are called after every step with the time."""

    now: float = 0.0
    ticks: list[Callable[[float], None]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for tick in self.ticks:
            tick(self.now)


def no_programs(command: Sequence[str]) -> str:
    raise UnusableError("there are no programs here")


def machine(
    root: Path, time: Time | None = None, program: Callable[[Sequence[str]], str] = no_programs
) -> Machine:
    """A machine with that root, its time standing still unless somebody sleeps."""
    time = time or Time()
    return Machine(root, time.clock, time.sleep, program)


def rising(path: Path, step: int, time: Time, start: int = 1000) -> None:
    """A counter's file that goes up by `step` with every sleep."""
    path.write_text(str(start))

    def rise(now: float) -> None:
        path.write_text(str(int(path.read_text()) + step))

    time.ticks.append(rise)


def polled(instrument: Instrument, time: Time, seconds: float, count: int) -> Window:
    """A window that was polled at its start and then `count` times, `seconds` apart."""
    window = instrument.window()
    window.poll(time.now)
    for _ in range(count):
        time.sleep(seconds)
        window.poll(time.now)
    return window
