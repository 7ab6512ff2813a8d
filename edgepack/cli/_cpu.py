"""Options for the CPUs of a command, and pinning it to them before an engine is imported."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from edgepack.cli._options import Decorated

if TYPE_CHECKING:
    from edgepack.bundle.bundle import Bundle
    from edgepack.machine.cpu.plan import CpuPlan


@dataclass(frozen=True, kw_only=True)
class CpuOptions:
    """Values of `cpu_options`; None where the tuned plan or the target decides."""

    cpus: str | None
    overlap: bool | None


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


def placed(
    bundle: "Bundle", options: CpuOptions, runtime: str | None, threads: int | None
) -> "CpuPlan":
    """Make the plan for a command's options and pin the process to its CPUs.

    `runtime` None means the bundle's first that is installed. This has to be called before numpy or
    an engine is imported.
    """
    from edgepack.machine.cpu import affinity

    made = planned(bundle, runtime, options, threads)
    affinity.enter(made, program=bool(click.get_current_context().obj))
    return made


def planned(
    bundle: "Bundle", runtime: str | None, options: CpuOptions, threads: int | None
) -> "CpuPlan":
    """The plan for a bundle and a command's options, without pinning the process to it."""
    from dataclasses import replace

    from edgepack.machine.cpu import plan, quota, topology, tuned
    from edgepack.runtime.engines import installed

    machine = topology.read()
    found = tuned.read(bundle.folder, machine, installed.chosen(bundle, runtime))
    wish = found or plan.for_device(bundle.manifest.device, machine)
    if options.cpus:
        wish = plan.Wish(options.cpus)
    if threads:
        wish = replace(wish, threads=threads)
    if options.overlap is not None:
        wish = replace(wish, overlap=options.overlap)
    return plan.make(machine, plan.allowed(), quota.cpus(), wish)
