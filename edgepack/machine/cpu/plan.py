"""Which CPUs to compute on, with how many threads: one plan, which every engine is set up by."""

from collections.abc import Collection
from dataclasses import dataclass
from math import floor

import psutil

from edgepack.bundle.manifest import Device
from edgepack.errors import UsageError
from edgepack.machine.cpu import lists, quota, topology
from edgepack.machine.cpu.topology import Topology
from edgepack.process import system

CLASSES = {"performance": ("P",), "efficiency": ("E", "LPE")}
WORDS = ("all", *CLASSES, "prime")
MOST_THREADS = 1024


@dataclass(frozen=True)
class Wish:
    """What was asked for, from which a plan is made.

    `cpus` is all, performance, efficiency, prime or a list such as 0,2-3. `threads` is a number, or
    None for one a core but at most `most`. `spin` is whether idle threads wait busily, which costs
    energy. `overlap` is whether the language model decodes the next sentence while one is made to
    sound; None means yes if there are several threads and they do not spin.
    """

    cpus: str = "all"
    threads: int | None = None
    spin: bool = False
    most: int | None = None
    overlap: bool | None = None


@dataclass(frozen=True)
class CpuPlan:
    """CPUs to run on, ascending, and compute threads.

    `kind` is P, E or LPE if all of them are of that kind on a machine with several, else empty.
    `pinned` is whether they are fewer than the process may use, so that a mask has to be set.
    `overlap` is whether the language model goes on while sound is made. `notes` are lines for
    people about what was decided.
    """

    cpus: tuple[int, ...]
    threads: int
    kind: str = ""
    pinned: bool = False
    spin: bool = False
    notes: tuple[str, ...] = ()
    overlap: bool = True


def make(
    machine: Topology, mask: Collection[int], share: float | None, wish: Wish = Wish()
) -> CpuPlan:
    """The plan for a wish. `mask` are the CPUs that the process may use, `share` its quota in CPUs.

    Raises UsageError if the machine has no such CPUs, the process may not use them, or no engine
    could have so many threads.
    """
    notes: list[str] = []
    if wish.threads is not None and not 1 <= wish.threads <= MOST_THREADS:
        raise UsageError(f"{wish.threads} threads: give a number from 1 to {MOST_THREADS}")
    cpus = _chosen(machine, mask, wish.cpus)
    cores = machine.one_per_core(cpus)
    most = max(1, floor(share)) if share is not None else len(cores)
    threads = wish.threads or min(len(cores), most, wish.most or len(cores))
    if threads > len(cpus):
        notes.append(f"{threads} threads on {len(cpus)} CPUs: they will wait for each other")
    elif share is not None and threads > share:
        notes.append(f"{threads} threads, but the control group allows {share:g} CPUs: throttled")
    elif not wish.threads and most < len(cores):
        notes.append(f"the control group allows {share:g} CPUs, so {threads} threads")
    kinds = machine.kinds
    of_kind = [k for k, numbers in kinds.items() if set(cpus) <= set(numbers)]
    kind = of_kind[0] if len(kinds) > 1 and of_kind else ""
    pinned = set(cpus) != set(mask)
    # Threads that wait busily take the CPU from the other network; `edgepack tune` measures it.
    overlap = threads > 1 and not wish.spin if wish.overlap is None else wish.overlap
    return CpuPlan(cpus, threads, kind, pinned, wish.spin, tuple(notes), overlap)


def _chosen(machine: Topology, mask: Collection[int], word: str) -> tuple[int, ...]:
    usable = tuple(sorted(mask))
    if word == "all":
        return usable
    if word in CLASSES:
        kinds = machine.kinds
        found = {n for kind in CLASSES[word] for n in kinds.get(kind, ())}
        if len(kinds) < 2:
            raise UsageError(
                f"--cpus {word}: this machine's CPUs are all alike; use all, or numbers such as "
                f"{usable[0]}"
            )
    elif word == "prime":
        found = set(machine.prime())
    else:
        try:
            found = set(lists.parse(word))
        except ValueError:
            found = set()
        if not found:
            raise UsageError(
                f"--cpus {word}: not one of {', '.join(WORDS)}, nor a list such as 0,2-3"
            )
        if missing := found - set(usable):
            raise UsageError(
                f"--cpus {word}: CPU {lists.show(missing)} is not there or not allowed for this "
                f"process, which may use {lists.show(usable)}"
            )
        return tuple(sorted(found))
    ours = found & set(usable)
    if not ours:
        raise UsageError(
            f"--cpus {word}: this process may only use CPU {lists.show(usable)}, "
            f"and {lists.show(found)} would be needed"
        )
    return machine.one_per_core(ours)


def allowed() -> set[int]:
    """CPUs this process may use now; all there are where the system has no masks."""
    return system.affinity() or set(range(psutil.cpu_count() or 1))


def current(wish: Wish = Wish()) -> CpuPlan:
    """The plan for a wish on this machine, for this process as it is."""
    return make(topology.read(), allowed(), quota.cpus(), wish)


def for_device(device: Device, machine: Topology | None = None) -> Wish:
    """What a target's profile asks for; its class of cores only if this machine has several."""
    kinds = (machine or topology.read()).kinds
    cpus = device.cpus if len(kinds) > 1 and device.cpus in CLASSES else "all"
    return Wish(cpus, most=device.threads)
