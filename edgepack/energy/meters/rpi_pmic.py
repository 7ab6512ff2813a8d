"""Rails of the Raspberry Pi 5's power management chip, as `vcgencmd pmic_read_adc` prints them.

The sum of these rails is less than the board's input, as losses of the chip, USB and the fan are
not measured. The argument `fit` estimates the input by a published linear fit (pi-top
documentation). Source: captured outputs.
"""

import re
import shutil
from dataclasses import dataclass

from edgepack.bundle.manifest import Device
from edgepack.energy.meter import Instrument, PowerWindow
from edgepack.machine.probe import Machine, UnusableError

_LINE = re.compile(r"^\s*(\S+)_([AV])\s+(?:current|volt)\(\d+\)=([0-9.]+)[AV]\s*$", re.MULTILINE)
_SLOPE, _OFFSET = 1.1451, 0.5879
_UPDATE_SECONDS = 0.1  # each reading starts a program


@dataclass(frozen=True)
class _RpiPmic:
    rank: int | None = 3

    def open(self, machine: Machine, device: Device, argument: str) -> Instrument:
        if argument not in ("", "fit"):
            raise UnusableError(f"rpi_pmic:{argument} is not known; rpi_pmic:fit is")
        program = shutil.which("vcgencmd")
        if program is None:
            raise UnusableError("vcgencmd is not there; not a Raspberry Pi, or no raspi-utils")

        def watts() -> float:
            total = rails_watts(machine.program([program, "pmic_read_adc"]))
            return _SLOPE * total + _OFFSET if argument else total

        watts()
        return Instrument(
            "board_input" if argument else "sum_of_rails",
            f"{program} pmic_read_adc" + (", linear fit to board input" if argument else ""),
            _UPDATE_SECONDS,
            lambda: PowerWindow(watts),
            "derived" if argument else "measured",
        )


def rails_watts(text: str) -> float:
    """Watts of all rails that have both a current and a voltage, which are paired by name."""
    values: dict[str, dict[str, float]] = {"A": {}, "V": {}}
    for rail, kind, value in _LINE.findall(text):
        values[kind][rail] = float(value)
    pairs = values["A"].keys() & values["V"].keys()
    if not pairs:
        raise UnusableError("pmic_read_adc gives no rails; only the Raspberry Pi 5 has them")
    return sum(values["A"][rail] * values["V"][rail] for rail in pairs)


METER = _RpiPmic()
