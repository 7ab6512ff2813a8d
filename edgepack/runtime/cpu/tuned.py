"""The best plan that was measured for a bundle on a machine, in a file beside the bundle."""

import hashlib
import json
from pathlib import Path

import msgspec

from edgepack.bundle import write_atomically
from edgepack.errors import IntegrityError
from edgepack.runtime.cpu import isa, quota
from edgepack.runtime.cpu.plan import Wish, allowed
from edgepack.runtime.cpu.topology import Topology


class Tuned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file: which machine and runtime it was measured on, and what was best."""

    machine: str
    runtime: str
    cpus: str
    threads: int
    spin: bool
    overlap: bool | None = None


def place(bundle: Path) -> Path:
    """Where the file of a bundle is: beside it, since bundles are not changed."""
    folder = bundle.resolve()
    return folder.with_name(f"{folder.name}.tuned.json")


def fingerprint(machine: Topology) -> str:
    """What a plan depends on: CPUs, what of them we may use, instruction sets, quota."""
    parts = [
        isa.model(),
        isa.read(),
        [(c.number, c.kind, c.siblings) for c in machine.cpus],
        sorted(allowed()),
        quota.cpus(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def read(bundle: Path, machine: Topology, runtime: str) -> Wish | None:
    """What was measured to be best on this machine for a runtime; None if it was not measured."""
    path = place(bundle)
    if not path.is_file():
        return None
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[Tuned])
    except msgspec.DecodeError as error:
        raise IntegrityError(
            f"{path}: not a plan of 'edgepack tune' ({error}); delete it"
        ) from None
    here = fingerprint(machine)
    for one in found:
        if one.machine == here and one.runtime == runtime:
            return Wish(one.cpus, one.threads, one.spin, overlap=one.overlap)
    return None


def write(bundle: Path, machine: Topology, runtime: str, best: Wish, threads: int) -> Path:
    """Keep a plan, in place of an older one for this machine and runtime."""
    path = place(bundle)
    here = fingerprint(machine)
    kept = []
    if path.is_file():
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=list[Tuned])
        except msgspec.DecodeError:
            kept = []  # what cannot be read is replaced
    kept = [t for t in kept if (t.machine, t.runtime) != (here, runtime)]
    kept.append(Tuned(here, runtime, best.cpus, threads, best.spin, best.overlap))
    write_atomically(path, msgspec.json.format(msgspec.json.encode(kept), indent=2))
    return path
