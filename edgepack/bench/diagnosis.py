"""What this machine has that matters for speech, and advice about what is missing."""

from dataclasses import asdict
from typing import Any

from edgepack.bench import environment
from edgepack.bundle.manifest import Device
from edgepack.energy import measurement
from edgepack.energy.meter import names
from edgepack.errors import ResourceError, UnsupportedError
from edgepack.machine import gpu_stack
from edgepack.machine.cpu import lists, plan, quota, topology
from edgepack.machine.probe import Machine, UnusableError
from edgepack.runtime.engines.installed import engines
from edgepack.runtime.engines.session import engine
from edgepack.runtime.gpu import placement


def examine() -> dict[str, Any]:
    """The whole diagnosis, as `edgepack doctor --json` prints it."""
    machine = environment.read()
    found = topology.read()
    cores = found.one_per_core(c.number for c in found.cpus)
    made = plan.current()
    advice = list(made.notes)
    if machine.governor and machine.governor != "performance":
        advice.append(
            f"the frequency governor is {machine.governor}: figures vary; for steady ones use "
            "'cpupower frequency-set -g performance'"
        )
    runtimes = _runtimes()
    if not any(of["version"] for of in runtimes.values()):
        advice.append("no runtime is installed: pip install 'edgepack[ort]'")
    meters = _meters()
    if not any(of["usable"] for of in meters.values()):
        advice.append(
            "no energy meter on this machine; a wall meter's log works (--energy "
            "external:LOG.csv), and with a bundle whose target has figures for it, --energy model "
            "gives an estimate that is called one"
        )
    group = quota.cpuset()
    return {
        "cpu": machine.cpu,
        "architecture": machine.machine,
        "isa": list(machine.isa),
        "int8": _int8(machine.isa),
        "cpus": lists.show(c.number for c in found.cpus),
        "cores": len(cores),
        "kinds": machine.kinds,
        "caches": sorted({lists.show(c.neighbours) for c in found.cpus if c.neighbours}),
        "allowed": machine.allowed,
        "cpuset": lists.show(group) if group else None,
        "quota_cpus": machine.quota_cpus,
        "governor": machine.governor,
        "memory_bytes": machine.memory_bytes,
        "system": machine.system,
        "python": machine.python,
        "threads": made.threads,
        "gpu": _gpu(),
        "runtimes": runtimes,
        "meters": meters,
        "advice": advice,
    }


def _gpu() -> dict[str, Any]:
    """ONNX Runtime's providers, and the software they need; "" for what is not there."""
    try:
        engine(placement.RUNTIME)
    except (UnsupportedError, ResourceError):
        return {"providers": [], **asdict(gpu_stack.Stack())}
    import onnxruntime

    here = gpu_stack.read(Machine(), str(onnxruntime.__version__))
    return {"providers": placement.available(), **asdict(here)}


def _int8(isa: tuple[str, ...]) -> str:
    """What the instruction sets mean for INT8 networks, in words."""
    if {"avx_vnni", "avx512_vnni", "amx_int8"} & set(isa):
        return "8-bit products in 32-bit sums: the fastest, without saturation"
    if "avx2" in isa:
        return "pairs of 8-bit products saturate: static recipes use 7-bit weights here"
    if {"i8mm", "dotprod"} & set(isa):
        return "8-bit dot products: fast"
    if "neon" in isa:
        return "no 8-bit dot product: INT8 saves space, little time"
    return "no instructions that are known to help"


def _runtimes() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in engines():
        try:
            found[name] = {"version": engine(name).version(), "advice": ""}
        except (UnsupportedError, ResourceError) as error:
            found[name] = {"version": None, "advice": str(error)}
    return found


def _meters() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name in names():
        try:
            used = measurement.usable(name, Machine(), Device())
            found[name] = {
                "usable": True, "source": used.source, "scope": used.scope, "reason": None,
            }  # fmt: skip
        except UnusableError as error:
            found[name] = {"usable": False, "source": None, "scope": None, "reason": str(error)}
    return found
