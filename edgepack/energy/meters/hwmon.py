"""Energy and power sensors of boards, by the kernel's hwmon interface.

Units are µJ and µW. Folder numbers change between boots, so a sensor is found by its chip and its
label; the target's profile says which part of the board it measures. Source:
Documentation/ABI/testing/sysfs-class-hwmon and hwmon/amd_energy.rst in Linux.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edgepack.bundle.manifest import Device
from edgepack.energy.meter import CounterWindow, Instrument, MeterQuality, PowerWindow, Scope
from edgepack.machine.probe import Machine, UnusableError

_MICRO = 1e-6
_COUNTER_SECONDS, _SENSOR_SECONDS = 0.01, 0.1
_OTHERS = ("ina3221", "ina238")  # Jetson's, which has a meter of its own
_AMD, _SOCKET = "amd_energy", "Esocket"


@dataclass(frozen=True)
class _Sensor:
    chip: str
    label: str
    path: Path

    @property
    def is_counter(self) -> bool:
        return self.path.name.startswith("energy")


@dataclass(frozen=True)
class _Hwmon:
    rank: int | None = 4

    def open(self, machine: Machine, device: Device, argument: str) -> Instrument:
        found = list(_sensors(machine))
        known = {(s.name, s.label): s.scope for s in device.sensors}
        named = [s for s in found if (s.chip, s.label) in known]
        sockets = [s for s in found if s.chip == _AMD]
        used = named or sockets or found
        if not used:
            raise UnusableError("no energy or power sensor in /sys/class/hwmon")
        counters = [s for s in used if s.is_counter]
        used = counters or used
        scope: Scope = "package" if sockets and not named else "sum_of_rails"
        if named:
            scopes = {known[s.chip, s.label] for s in used}
            scope = cast(Scope, scopes.pop()) if len(scopes) == 1 else "sum_of_rails"
        best: MeterQuality = "measured" if named or sockets else "derived"
        source = ", ".join(f"{s.chip} {s.label} ({s.path.name})" for s in used)
        if counters:
            return Instrument(
                scope,
                source,
                _COUNTER_SECONDS,
                lambda: CounterWindow(
                    lambda: {str(s.path): _value(machine, s) for s in counters}, _MICRO
                ),
                best,
            )
        return Instrument(
            scope,
            source,
            _SENSOR_SECONDS,
            lambda: PowerWindow(lambda: _MICRO * sum(_value(machine, s) for s in used)),
            max(best, "measured_coarse", key=("measured", "measured_coarse", "derived").index),
        )


def _sensors(machine: Machine) -> Iterator[_Sensor]:
    """Sensors that can be read: the energy counters of a chip, or its power sensors if none."""
    for folder in machine.paths("/sys/class/hwmon/hwmon*"):
        chip = machine.text(folder / "name") or ""
        if chip in _OTHERS:
            continue
        for kind in ("energy*_input", "power*_input", "power*_average"):
            readable = [
                _Sensor(chip, _label(machine, path), path)
                for path in machine.paths(f"{folder}/{kind}")
                if machine.number(path) is not None
            ]
            if chip == _AMD:
                readable = [s for s in readable if s.label.startswith(_SOCKET)]
            if readable:
                yield from readable
                break


def _label(machine: Machine, path: Path) -> str:
    return machine.text(path.with_name(path.name.rsplit("_", 1)[0] + "_label")) or ""


def _value(machine: Machine, sensor: _Sensor) -> int:
    value = machine.number(sensor.path)
    if value is None:
        raise UnusableError(f"{sensor.path} cannot be read any more")
    return value


METER = _Hwmon()
