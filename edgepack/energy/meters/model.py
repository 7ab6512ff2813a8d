"""An estimate from CPU time and the target's watts; used only when it is asked for by name."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from edgepack.bundle.manifest import Device, Watts
from edgepack.energy.meter import Instrument
from edgepack.machine.cpu.plan import allowed
from edgepack.machine.probe import Machine, UnusableError

_UPDATE_SECONDS = 0.1


def cpu_seconds() -> float:
    """User and system time of this process and of children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass
class _ModelWindow:
    """Idle watts times the window's seconds, plus the watts of a core times its CPU seconds."""

    watts: Watts
    share: float
    cpu: Callable[[], float]
    updates: int = 0
    wraps: int = 0
    flags: list[str] = field(default_factory=list)
    _first: tuple[float, float] | None = None
    _last: tuple[float, float] = (0.0, 0.0)

    def poll(self, now: float) -> None:
        self._last = now, self.cpu()
        self._first = self._first or self._last
        self.updates += 1

    @property
    def joules(self) -> float:
        then, before = self._first or self._last
        now, after = self._last
        idle = self.watts.idle_w * self.share * (now - then)
        return idle + self.watts.active_w_per_core * (after - before)


@dataclass(frozen=True)
class _Model:
    rank: int | None = None
    cpu: Callable[[], float] = cpu_seconds

    def open(self, machine: Machine, device: Device, argument: str) -> Instrument:
        watts = device.watts
        if watts is None:
            raise UnusableError("needs a bundle whose target has watts (energy.watts)")
        share = len(allowed()) / (os.cpu_count() or 1)
        return Instrument(
            "process_share",
            f"CPU time x {watts.active_w_per_core:g} W a core + {watts.idle_w:g} W idle, "
            f"{watts.provenance}",
            _UPDATE_SECONDS,
            lambda: _ModelWindow(watts, share, self.cpu),
            "modelled",
            live=False,
        )


METER = _Model()
