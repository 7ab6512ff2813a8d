"""The plan that `edgepack tune` found best for a bundle on this machine, in a file beside it."""

import hashlib
import json
from pathlib import Path

import msgspec

from edgepack.bundle import beside
from edgepack.bundle.ranges import Line, Threads
from edgepack.errors import IntegrityError, UsageError
from edgepack.files import atomic
from edgepack.machine.cpu import isa, quota
from edgepack.machine.cpu.plan import Wish, allowed, make
from edgepack.machine.cpu.topology import Topology

_ENDING = "tuned.json"
_MAX_BYTES = 1 << 20


class TunedPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of the file: the machine and runtime it was measured on, and the best plan."""

    machine: Line
    runtime: Line
    cpus: Line
    threads: Threads
    spin: bool
    overlap: bool | None = None


def place(bundle: Path) -> Path:
    """Where the file of a bundle is written."""
    return beside.place(bundle, _ENDING)


def require_writable(bundle: Path) -> None:
    """Raise UsageError or OSError if no plan could be kept for a bundle."""
    path = place(bundle)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.require_writable(path)


def fingerprint(machine: Topology) -> str:
    """A hash of all that a plan depends on: CPUs, the allowed ones, instruction sets, quota."""
    parts = [
        isa.model(),
        isa.read(),
        [(c.number, c.kind, c.siblings) for c in machine.cpus],
        sorted(allowed()),
        quota.cpus(),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def read(bundle: Path, machine: Topology, runtime: str) -> Wish | None:
    """What was measured to be best on this machine for a runtime; None if it was not measured.

    Raises IntegrityError if the file is invalid, or its plan impossible on this machine.
    """
    path = beside.found(bundle, _ENDING)
    if not path.is_file():
        return None
    here = fingerprint(machine)
    try:
        for one in _plans(path):
            if one.machine == here and one.runtime == runtime:
                wish = Wish(one.cpus, one.threads, one.spin, overlap=one.overlap)
                make(machine, allowed(), None, wish)
                return wish
    except (ValueError, RecursionError, UsageError) as error:
        raise IntegrityError(
            f"{path}: not a plan of 'edgepack tune' ({error}); delete it"
        ) from None
    return None


def _plans(path: Path) -> list[TunedPlan]:
    """What is in a file; raises ValueError (which msgspec's errors are) or RecursionError."""
    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"larger than {_MAX_BYTES >> 20} MiB")
    return msgspec.json.decode(path.read_bytes(), type=list[TunedPlan])


def write(bundle: Path, machine: Topology, runtime: str, best: Wish, threads: int) -> Path:
    """Write the best plan, replacing an older one for this machine and runtime."""
    path, before = place(bundle), beside.found(bundle, _ENDING)
    here = fingerprint(machine)
    kept = []
    if before.is_file():
        try:
            kept = _plans(before)
        except (ValueError, RecursionError):
            kept = []  # what cannot be read is replaced
    kept = [t for t in kept if (t.machine, t.runtime) != (here, runtime)]
    kept.append(TunedPlan(here, runtime, best.cpus, threads, best.spin, best.overlap))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_atomically(path, msgspec.json.format(msgspec.json.encode(kept), indent=2))
    return path
