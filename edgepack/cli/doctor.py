"""`edgepack doctor`."""

from typing import Any

import click

from edgepack.cli._options import output_options


@click.command(short_help="Tell what this machine has and can do.")
@output_options
def command(*, as_json: bool, quiet: bool) -> None:
    """CPUs, limits, runtimes and energy meters of this machine, and what to do about them."""
    from edgepack import report

    with report.progress("doctor", shown=not (quiet or as_json)) as step:
        step("meters have to be seen to advance")
        found = _examined()
    if as_json:
        report.document(found)
        return
    if quiet:
        return
    for row in _lines(found):
        report.line(row)
    rows = [[name, of["version"] or "", of["advice"]] for name, of in found["runtimes"].items()]
    report.table("runtimes", ["runtime", "version", ""], rows)
    rows = [
        [name, "usable" if of["usable"] else "no", of["source"] or of["reason"]]
        for name, of in found["meters"].items()
    ]
    report.table("energy meters", ["meter", "", "reads, or why not"], rows)
    for advice in found["advice"]:
        report.line(f"- {advice}")


def _examined() -> dict[str, Any]:
    from edgepack.bench import environment
    from edgepack.runtime.cpu import lists, plan, quota, topology

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
            "external:LOG.csv), and --energy model gives an estimate that is called one"
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
        "runtimes": runtimes,
        "meters": meters,
        "advice": advice,
    }


def _int8(isa: tuple[str, ...]) -> str:
    """What the instruction sets mean for INT8."""
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
    from edgepack.errors import UnsupportedError
    from edgepack.runtime.session import engine, engines

    found: dict[str, dict[str, Any]] = {}
    for name in engines():
        try:
            found[name] = {"version": engine(name).version(), "advice": ""}
        except UnsupportedError as error:
            found[name] = {"version": None, "advice": str(error)}
    return found


def _meters() -> dict[str, dict[str, Any]]:
    from edgepack.manifest import Device
    from edgepack.runtime import energy
    from edgepack.runtime.meter import Machine, UnusableError, names

    found: dict[str, dict[str, Any]] = {}
    for name in names():
        try:
            used = energy.usable(name, Machine(), Device())
            found[name] = {
                "usable": True, "source": used.source, "scope": used.scope, "reason": None,
            }  # fmt: skip
        except UnusableError as error:
            found[name] = {"usable": False, "source": None, "scope": None, "reason": str(error)}
    return found


def _lines(found: dict[str, Any]) -> list[str]:
    from edgepack import report

    kinds = {k: cpus for k, cpus in found["kinds"].items() if k != "U"}
    classes = ", ".join(f"{k}: {cpus}" for k, cpus in kinds.items()) or "all alike"
    quota = found["quota_cpus"]
    memory = found["memory_bytes"]
    return [
        f"{found['cpu'] or found['architecture']}: CPU {found['cpus']} on {found['cores']} cores, "
        f"{classes}; this process may use {found['allowed']}",
        f"limit of the control group: {'none' if quota is None else f'{quota:g} CPUs'}; "
        f"so {found['threads']} compute threads",
        f"instruction sets: {', '.join(found['isa']) or 'none that matter'}; {found['int8']}",
        f"memory: {report.size(memory) if memory else 'not known'}; "
        f"frequency governor: {found['governor'] or 'not known'}; {found['system']}, "
        f"Python {found['python']}",
    ]
