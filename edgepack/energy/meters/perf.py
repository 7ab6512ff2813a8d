"""Package energy from the kernel's perf events; the kernel handles counters that wrap around.

Source: arch/x86/events/rapl.c in Linux and perf_event_open(2).
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable
from dataclasses import dataclass

from edgepack.bundle.manifest import Device
from edgepack.energy.meter import CounterWindow, Instrument
from edgepack.machine.cpu import lists
from edgepack.machine.probe import Machine, UnusableError

_PMU = "/sys/bus/event_source/devices/power"
_EVENTS = {"package": ("energy-pkg",), "package+dram": ("energy-pkg", "energy-ram")}
_SYSCALLS = {"x86_64": 298, "aarch64": 241}
_ATTRIBUTE_BYTES, _CLOSE_ON_EXEC = 64, 8
_UPDATE_SECONDS = 0.001

Opened = Callable[[], int]


def open_event(kind: int, config: int, cpu: int) -> Opened:
    """A function that reads a system-wide counter of a PMU; raises OSError as the kernel does."""
    number = _SYSCALLS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, "no number of perf_event_open for this machine")
    attribute = struct.pack("IIQ", kind, _ATTRIBUTE_BYTES, config).ljust(_ATTRIBUTE_BYTES, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    everyone, alone = -1, -1
    file = libc.syscall(number, attribute, everyone, cpu, alone, _CLOSE_ON_EXEC)
    if file < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return lambda: int.from_bytes(os.read(file, 8), "little")


@dataclass(frozen=True)
class _Perf:
    rank: int | None = 0
    opened: Callable[[int, int, int], Opened] = open_event

    def open(self, machine: Machine, device: Device, argument: str) -> Instrument:
        kind = machine.number(f"{_PMU}/type")
        if kind is None:
            raise UnusableError(f"no {_PMU}: the kernel sees no RAPL, as in a virtual machine")
        if machine.text(f"{_PMU}/events/energy-pkg") is None:
            raise UnusableError(f"{_PMU}/events has no energy-pkg; a hypervisor hides it")
        scope = "package+dram" if device.scope == "package+dram" else "package"
        if machine.text(f"{_PMU}/events/energy-ram") is None:
            scope = "package"
        cpus = lists.parse(machine.text(f"{_PMU}/cpumask") or "0")
        readers: dict[str, Opened] = {}
        scales = set()
        for event in _EVENTS[scope]:
            config = _config(machine.text(f"{_PMU}/events/{event}") or "")
            scales.add(float(machine.text(f"{_PMU}/events/{event}.scale") or "nan"))
            for cpu in cpus:
                readers[f"{event}@{cpu}"] = self._open(machine, kind, config, cpu)
        if len(scales) != 1:
            raise UnusableError(f"{_PMU}/events differ in their .scale")
        (scale,) = scales
        return Instrument(
            "package+dram" if scope == "package+dram" else "package",
            f"perf power/{', power/'.join(_EVENTS[scope])} on CPU {lists.show(cpus)}",
            _UPDATE_SECONDS,
            lambda: CounterWindow(lambda: {n: read() for n, read in readers.items()}, scale),
        )

    def _open(self, machine: Machine, kind: int, config: int, cpu: int) -> Opened:
        try:
            return self.opened(kind, config, cpu)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                level = machine.text("/proc/sys/kernel/perf_event_paranoid")
                raise UnusableError(
                    f"no permission (kernel.perf_event_paranoid is {level}); set it to 0 or give "
                    "CAP_PERFMON"
                ) from None
            raise UnusableError(f"perf_event_open: {error.strerror}") from None


def _config(text: str) -> int:
    """The event number of a text such as `event=0x02`."""
    key, _, value = text.partition("=")
    if key != "event":
        raise UnusableError(f"{_PMU}/events: {text!r} is not understood")
    return int(value, 16)


METER = _Perf()
