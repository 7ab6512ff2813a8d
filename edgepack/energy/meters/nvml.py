"""Energy of NVIDIA boards by the driver's counter, in mJ since it was loaded.

The energy counter is read and not the power, which is a mean over a second of which only parts are
sampled. On a Jetson the library exists but has no energy. Source: the NVML API of nvidia-ml-py.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from edgepack.bundle.manifest import Device
from edgepack.energy.meter import CounterWindow, Instrument
from edgepack.machine.probe import Machine, UnusableError

_MILLIJOULE = 1e-3
_UPDATE_SECONDS = 0.1


@dataclass(frozen=True)
class _Nvml:
    rank: int | None = None

    def open(self, machine: Machine, device: Device, argument: str) -> Instrument:
        if argument and not argument.isdigit():
            raise UnusableError(f"nvml:{argument}: write the number of a GPU, such as nvml:0")
        try:
            library: Any = importlib.import_module("pynvml")
        except ImportError:
            raise UnusableError("nvidia-ml-py is missing; pip install 'edgepack[nvml]'") from None
        try:
            library.nvmlInit()
            board = library.nvmlDeviceGetHandleByIndex(int(argument or 0))
            library.nvmlDeviceGetTotalEnergyConsumption(board)
        except library.NVMLError as error:
            raise UnusableError(f"NVML: {error}") from None
        return Instrument(
            "gpu_board",
            f"NVML total energy consumption of GPU {argument or 0}",
            _UPDATE_SECONDS,
            lambda: CounterWindow(
                lambda: {"board": int(library.nvmlDeviceGetTotalEnergyConsumption(board))},
                _MILLIJOULE,
            ),
        )


METER = _Nvml()
