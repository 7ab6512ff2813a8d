"""The battery of a laptop or phone that runs on it: the whole device, display included.

Source: Documentation/power/power_supply_class.rst in Linux.
"""

from dataclasses import dataclass
from pathlib import Path

from edgepack.bundle.manifest import Device
from edgepack.energy.meter import Instrument, PowerWindow
from edgepack.machine.probe import Machine, UnusableError

_TREE = "/sys/class/power_supply"
_UPDATE_SECONDS = 1.0
_MICRO, _MILLI = 1e-6, 1e-3
_MOST_MILLIAMPERE = 20_000  # a smaller number than this, in µA, would be under 20 mA: it is mA


@dataclass(frozen=True)
class _Battery:
    rank: int | None = 5

    def open(self, machine: Machine, device: Device, argument: str) -> Instrument:
        found = [
            path
            for path in machine.paths(f"{_TREE}/*")
            if machine.text(path / "type") == "Battery"
            and machine.text(path / "scope") != "Device"  # that of a mouse
        ]
        if not found:
            raise UnusableError(f"no battery in {_TREE}")
        (battery, *more) = found
        if more:
            raise UnusableError(f"{len(found)} batteries; which of them is drained is not known")
        _watts(machine, battery)
        return Instrument(
            "battery_whole_device",
            str(battery),
            _UPDATE_SECONDS,
            lambda: PowerWindow(lambda: _watts(machine, battery)),
            "measured_coarse",
        )


def _watts(machine: Machine, battery: Path) -> float:
    status = machine.text(battery / "status")
    if status != "Discharging":
        raise UnusableError(f"{battery} is {status or 'unknown'}; unplug the charger")
    power = machine.number(battery / "power_now")
    if power is not None:
        return abs(power) * _MICRO
    current, voltage = (machine.number(battery / f"{x}_now") for x in ("current", "voltage"))
    if current is None or voltage is None:
        raise UnusableError(f"{battery} tells neither power_now nor current_now and voltage_now")
    # Vendors differ in the sign, and some give mA where the kernel says µA.
    scale = _MILLI if abs(current) < _MOST_MILLIAMPERE else _MICRO
    return abs(current) * scale * voltage * _MICRO


METER = _Battery()
