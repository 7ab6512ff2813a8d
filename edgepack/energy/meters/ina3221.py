"""Power rails of NVIDIA Jetson modules: INA3221 chips, and the INA238 of Thor's carrier board.

Up to JetPack 4 an IIO driver gives mW; since then hwmon gives mV and mA. A rail that is the
module's input includes the others and is used alone. Source: Documentation/hwmon/ina3221.rst.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod

from edgepack.bundle.manifest import Device
from edgepack.energy.meter import Instrument, PowerWindow
from edgepack.machine.probe import Machine, UnusableError

_IIO = "/sys/bus/i2c/drivers/ina3221x/*/iio:device*"
_HWMON = ("/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*", "/sys/bus/i2c/devices/*/hwmon/hwmon*")
_TOTALS = ("VIN", "POM_5V_IN", "VDD_IN")
_NOT_CONNECTED = "NC"
_CHANNELS = (1, 2, 3)  # a seventh is the sum of shunt voltages, no rail
_UPDATE_SECONDS = 0.04


@dataclass(frozen=True)
class _Rail:
    name: str
    source: str
    watts: Callable[[], float]


@dataclass(frozen=True)
class _Ina3221:
    rank: int | None = 2

    def open(self, machine: Machine, device: Device, argument: str) -> Instrument:
        rails = {rail.name: rail for rail in [*_iio(machine), *_hwmon(machine)]}
        if not rails:
            raise UnusableError("no INA3221 or INA238 chip with power rails; not a Jetson")
        total = next((rails[name] for name in _TOTALS if name in rails), None)
        used = [total] if total else list(rails.values())
        for rail in used:
            rail.watts()
        return Instrument(
            "board_input" if total else "sum_of_rails",
            ", ".join(f"{rail.name} ({rail.source})" for rail in used),
            _UPDATE_SECONDS,
            lambda: PowerWindow(lambda: sum(rail.watts() for rail in used)),
        )


def _iio(machine: Machine) -> Iterator[_Rail]:
    for chip in machine.paths(_IIO):
        for channel in (0, 1, 2):
            name = machine.text(chip / f"rail_name_{channel}")
            if name and name != _NOT_CONNECTED:
                file = f"{chip}/in_power{channel}_input"
                yield _Rail(name, file, partial(_scaled, machine, 1e-3, file))


def _hwmon(machine: Machine) -> Iterator[_Rail]:
    folders = dict.fromkeys(p for pattern in _HWMON for p in machine.paths(pattern))
    for chip in folders:
        kind = machine.text(chip / "name")
        if kind == "ina238":
            file = f"{chip}/power1_input"
            yield _Rail("VIN", file, partial(_scaled, machine, 1e-6, file))
        if kind != "ina3221":
            continue
        for channel in _CHANNELS:
            name = machine.text(chip / f"in{channel}_label")
            if name and name != _NOT_CONNECTED:
                volts, amperes = f"{chip}/in{channel}_input", f"{chip}/curr{channel}_input"
                yield _Rail(
                    name,
                    f"{volts} x {amperes}",
                    partial(_scaled, machine, 1e-6, volts, amperes),
                )


def _scaled(machine: Machine, unit: float, *files: str) -> float:
    """Power in watts: the product of the numbers in some files, scaled to their units."""
    return unit * prod(_read(machine, file) for file in files)


def _read(machine: Machine, path: str) -> int:
    value = machine.number(path)
    if value is None:
        raise UnusableError(f"{path} is missing or cannot be read")
    return value


METER = _Ina3221()
