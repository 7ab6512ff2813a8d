"""Options that say where a command computes, and getting there before an engine is imported."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgepack.bundle import Bundle
    from edgepack.runtime.cpu.plan import CpuPlan

Decorated = Callable[..., Any]


def cpu_options(command: Decorated) -> Decorated:
    """`--cpus` and `--overlap`."""
    command = click.option(
        "--overlap/--no-overlap",
        default=None,
        help="Decode the next sentence while one is made to sound.  "
        "[default: what 'edgepack tune' found, else with two threads or more]",
    )(command)
    return click.option(
        "--cpus",
        metavar="LIST",
        help="all, performance, efficiency, prime or a list such as 0,2-3.  "
        "[default: what 'edgepack tune' found, else the target's]",
    )(command)


def placed(bundle: "Bundle", options: dict[str, Any]) -> "CpuPlan":
    """The plan for a command's options, with the process already in its mask.

    Has to be called before numpy or an engine is imported.
    """
    from dataclasses import replace

    from edgepack.runtime import installed
    from edgepack.runtime.cpu import affinity, plan, quota, topology, tuned

    machine = topology.read()
    runtime = options["runtime"] or installed.usable(bundle)[0]
    found = tuned.read(bundle.folder, machine, runtime)
    wish = found or plan.for_device(bundle.manifest.device, machine)
    if options["cpus"]:
        wish = plan.Wish(options["cpus"])
    if options["threads"]:
        wish = replace(wish, threads=options["threads"])
    if options["overlap"] is not None:
        wish = replace(wish, overlap=options["overlap"])
    made = plan.make(machine, plan.allowed(), quota.cpus(), wish)
    affinity.enter(made, program=bool(click.get_current_context().obj))
    return made
