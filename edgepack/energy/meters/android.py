"""CPU rails of Android phones with on-device power monitors (Pixel 6 and later), read by a shell.

Apps cannot read them. Counts are µW·s since boot. Source: captured outputs of `energy_value`.
"""

import re
from dataclasses import dataclass

from edgepack.bundle.manifest import Device
from edgepack.energy.meter import CounterWindow, Instrument
from edgepack.machine.probe import Machine, UnusableError

_FILES = "/sys/bus/iio/devices/iio:device*/energy_value"
_CHANNEL = re.compile(r"^CH\d+\(T=\d+\)\[(\S+)\],\s*(\d+)\s*$", re.MULTILINE)
_CPU = re.compile(r"VDD_CPUCL\d")
_MICROJOULE = 1e-6
_UPDATE_SECONDS = 0.1


@dataclass(frozen=True)
class _Android:
    rank: int | None = 2

    def open(self, machine: Machine, device: Device, argument: str) -> Instrument:
        if not machine.paths(_FILES):
            raise UnusableError("no power monitors (iio energy_value): another phone, or no shell")
        rails = sorted(_counts(machine))
        if not rails:
            raise UnusableError("the power monitors name no CPU rail (VDD_CPUCL)")
        return Instrument(
            "cpu_rails",
            f"energy_value of {', '.join(rails)}",
            _UPDATE_SECONDS,
            lambda: CounterWindow(lambda: _counts(machine), _MICROJOULE),
        )


def _counts(machine: Machine) -> dict[str, int]:
    texts = [machine.text(path) or "" for path in machine.paths(_FILES)]
    found = {name: int(count) for text in texts for name, count in _CHANNEL.findall(text)}
    return {name: count for name, count in found.items() if _CPU.search(name)}


METER = _Android()
