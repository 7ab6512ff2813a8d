"""The machine a benchmark ran on."""

import platform
from pathlib import Path

import psutil

from edgepack.bench.result import Environment
from edgepack.machine.cpu import isa, lists, plan, quota, topology


def read(root: Path = Path("/")) -> Environment:
    """The properties of this machine that determine speed; None or empty where not known."""
    found = topology.read(root)
    return Environment(
        machine=platform.machine(),
        cpu=isa.model(root),
        isa=isa.read(root),
        kinds={kind: lists.show(cpus) for kind, cpus in found.kinds.items()},
        allowed=lists.show(plan.allowed()),
        quota_cpus=quota.cpus(root),
        governor=_governor(root),
        memory_bytes=int(psutil.virtual_memory().total),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def _governor(root: Path) -> str | None:
    files = root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    found = {file.read_text("ascii").strip() for file in files}
    return ", ".join(sorted(found)) or None
