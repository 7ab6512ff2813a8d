"""Intel and AMD package energy from the kernel's powercap tree (RAPL).

Source: Documentation/power/powercap/powercap.rst and drivers/powercap in Linux.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from edgepack.bundle.manifest import Device
from edgepack.energy.meter import CounterWindow, Instrument, Scope
from edgepack.machine.probe import Machine, UnusableError

_TREE = "/sys/class/powercap"
_ZONE = re.compile(r"intel-rapl(-mmio)?:[0-9a-f]+(:[0-9a-f]+)?")  # numbers are hexadecimal
_MICROJOULE = 1e-6
_UPDATE_SECONDS = 0.001
_MIRROR_COUNTS, _MIRROR_SHARE, _MIRROR_SECONDS = 1_000_000, 1e-6, 0.05


class _Zone(NamedTuple):
    path: Path
    name: str
    mmio: bool


@dataclass(frozen=True)
class _Rapl:
    rank: int | None = 1

    def open(self, machine: Machine, device: Device, argument: str) -> Instrument:
        zones, scope = _wanted(_zones(machine), device.scope)
        for zone in zones:
            _count(machine, zone)
        zones = _without_mirrors(machine, zones)
        ranges = {z.path.name: machine.number(z.path / "max_energy_range_uj") or 0 for z in zones}
        return Instrument(
            scope,
            ", ".join(f"{zone.path}/energy_uj ({zone.name})" for zone in zones),
            _UPDATE_SECONDS,
            lambda: CounterWindow(
                lambda: {z.path.name: _count(machine, z) for z in zones}, _MICROJOULE, ranges
            ),
        )


def _zones(machine: Machine) -> list[_Zone]:
    paths = [p for p in machine.paths(f"{_TREE}/intel-rapl*") if _ZONE.fullmatch(p.name)]
    if not paths:
        raise UnusableError(f"no RAPL zones in {_TREE}; a virtual machine or another kind of CPU")
    named = [(path, machine.text(path / "name")) for path in paths]
    found = [_Zone(p, name, p.name.startswith("intel-rapl-mmio")) for p, name in named if name]
    if not found:
        raise UnusableError(
            f"zones in {_TREE} lead nowhere: masked by the container; mount "
            "/sys/devices/virtual/powercap into it"
        )
    return found


def _wanted(zones: Sequence[_Zone], wish: str) -> tuple[list[_Zone], Scope]:
    """The zones to add up: none that is part of another, and none that is shown twice."""
    zones = [z for z in zones if not z.mmio] or list(zones)
    if wish == "psys" and (found := [z for z in zones if z.name == "psys"]):
        return found, "psys"
    packages = [z for z in zones if z.name.startswith("package")]
    if not packages:
        raise UnusableError(f"no package zone in {_TREE}, only {', '.join(z.name for z in zones)}")
    memory = [z for z in zones if z.name == "dram"] if wish == "package+dram" else []
    return packages + memory, "package+dram" if memory else "package"


def _count(machine: Machine, zone: _Zone) -> int:
    try:
        count = machine.number(zone.path / "energy_uj")
    except UnusableError:
        raise UnusableError(
            f"{zone.path}/energy_uj can be read by root only (CVE-2020-8694); allow it with "
            "'sudo chmod a+r', which opens a side channel, or run as root"
        ) from None
    if count is None:
        raise UnusableError(f"{zone.path}/energy_uj cannot be read")
    return count


def _without_mirrors(machine: Machine, zones: Sequence[_Zone]) -> list[_Zone]:
    """Some AMD kernels show one socket's counter in several package zones: keep the first."""
    packages = [z for z in zones if z.name.startswith("package")]
    if len(packages) < 2:
        return list(zones)
    before = {z: _count(machine, z) for z in packages}
    machine.sleep(_MIRROR_SECONDS)
    after = {z: _count(machine, z) for z in packages}
    kept: list[_Zone] = []
    for zone in packages:
        if not any(
            _alike(before[zone], before[k])
            and _alike(after[zone] - before[zone], after[k] - before[k])
            for k in kept
        ):
            kept.append(zone)
    return [z for z in zones if z in kept or z not in packages]


def _alike(one: int, other: int) -> bool:
    return abs(one - other) <= max(_MIRROR_COUNTS, _MIRROR_SHARE * max(one, other))


METER = _Rapl()
