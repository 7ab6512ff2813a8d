"""CPUs by kind, core and cache, read from Linux's sysfs; elsewhere only their number is known.

Kinds are P (performance), E (efficiency), LPE (efficiency in a low-power island) and U where all
CPUs are alike. Sources, in this order: Intel's hybrid PMUs, `cpu_capacity` (arm64, and x86 since
Linux 6.12), `cpuinfo_max_freq`. A hypervisor may give every CPU the same capacity: all alike.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from edgepack.machine.cpu import lists

_CPUS = "sys/devices/system/cpu"
_PMUS = ("sys/bus/event_source/devices", "sys/devices")
_HYBRID = {"cpu_core": "P", "cpu_atom": "E", "cpu_lowpower": "LPE"}
_TURBO_BINS = 0.10  # cores of one kind may differ that much in their highest frequency


@dataclass(frozen=True)
class Cpu:
    """A logical processor.

    `capacity` is the kernel's, 1024 for the fastest; `max_khz` the highest frequency. `siblings`
    share its core, `neighbours` its last-level cache, itself included. None or empty if the kernel
    does not say.
    """

    number: int
    kind: str
    capacity: int | None
    max_khz: int | None
    siblings: tuple[int, ...]
    neighbours: tuple[int, ...]


@dataclass(frozen=True)
class Topology:
    """All CPUs that are online, ascending."""

    cpus: tuple[Cpu, ...]

    @property
    def kinds(self) -> dict[str, tuple[int, ...]]:
        """Numbers by kind, the fastest kind first."""
        order = ("P", "U", "E", "LPE")
        found = {k: tuple(c.number for c in self.cpus if c.kind == k) for k in order}
        return {kind: numbers for kind, numbers in found.items() if numbers}

    def prime(self) -> tuple[int, ...]:
        """The fastest CPUs: highest capacity, then highest frequency beyond turbo bins."""
        best = max((c.capacity or 0 for c in self.cpus), default=0)
        found = [c for c in self.cpus if (c.capacity or 0) == best]
        fastest = max((c.max_khz or 0 for c in found), default=0)
        near = fastest * (1 - _TURBO_BINS)
        return tuple(c.number for c in found if (c.max_khz or 0) >= near)

    def one_per_core(self, numbers: Iterable[int]) -> tuple[int, ...]:
        """The first of the CPUs that share a core."""
        kept: dict[tuple[int, ...], int] = {}
        siblings = {c.number: c.siblings for c in self.cpus}
        for number in sorted(numbers):
            kept.setdefault(siblings.get(number) or (number,), number)
        return tuple(kept.values())


def read(root: Path = Path("/")) -> Topology:
    """The CPUs of the machine whose file system begins at `root`; none if it does not say.

    Where this machine has no sysfs (Windows, macOS, some sandboxes) psutil counts them.
    """
    online = lists.parse(_text(root / _CPUS / "online") or "")
    if not online and root == Path("/"):
        return counted(psutil.cpu_count() or 1, psutil.cpu_count(logical=False))
    capacity = {n: _number(root / _CPUS / f"cpu{n}" / "cpu_capacity") for n in online}
    frequency = {n: _number(root / _CPUS / f"cpu{n}/cpufreq/cpuinfo_max_freq") for n in online}
    kinds = (
        _hybrid(root, online) or _by_capacity(capacity) or _by_frequency(frequency)
    )  # fmt: skip
    return Topology(
        tuple(
            Cpu(
                n,
                kinds.get(n, "U"),
                capacity[n],
                frequency[n],
                _list(root / _CPUS / f"cpu{n}/topology/thread_siblings_list") or (n,),
                _last_cache(root / _CPUS / f"cpu{n}/cache"),
            )
            for n in online
        )
    )


def counted(processors: int, cores: int | None) -> Topology:
    """A topology made of counts: all CPUs alike, two threads a core as far as the counts say so.

    Windows numbers threads of a core in a row, and cores that have two before those with one.
    """
    pairs = max(0, processors - cores) if cores and cores < processors <= 2 * cores else 0
    found = []
    for n in range(processors):
        first = n - n % 2
        siblings = (first, first + 1) if n < 2 * pairs else (n,)
        found.append(Cpu(n, "U", None, None, siblings, ()))
    return Topology(tuple(found))


def _hybrid(root: Path, online: Iterable[int]) -> dict[int, str]:
    for place in _PMUS:
        found = {
            number: kind
            for pmu, kind in _HYBRID.items()
            for number in _list(root / place / pmu / "cpus")
            if number in online
        }
        if len(set(found.values())) > 1:
            return found
    return {}


def _by_capacity(capacity: Mapping[int, int | None]) -> dict[int, str]:
    known = {n: c for n, c in capacity.items() if c}
    if not known or len(known) < len(capacity) or len(set(known.values())) == 1:
        return {}
    lowest = min(known.values())
    return {n: "E" if c == lowest else "P" for n, c in known.items()}


def _by_frequency(frequency: Mapping[int, int | None]) -> dict[int, str]:
    known = {n: f for n, f in frequency.items() if f}
    if not known or len(known) < len(frequency):
        return {}
    lowest, highest = min(known.values()), max(known.values())
    if lowest >= highest * (1 - _TURBO_BINS):
        return {}
    return {n: "E" if f <= lowest * (1 + _TURBO_BINS) else "P" for n, f in known.items()}


def _last_cache(folder: Path) -> tuple[int, ...]:
    levels = [
        (_number(index / "level") or 0, _list(index / "shared_cpu_list"))
        for index in sorted(folder.glob("index*"))
        if _text(index / "type") != "Instruction"
    ]
    return max(levels, default=(0, ()))[1]


def _text(path: Path) -> str | None:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeError):
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text and text.isdigit() else None


def _list(path: Path) -> tuple[int, ...]:
    try:
        return lists.parse(_text(path) or "")
    except ValueError:
        return ()
