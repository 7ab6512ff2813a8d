"""The kernel's notation for sets of CPUs, such as `0-3,8`."""

import re
from collections.abc import Iterable

_RANGE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)  # Linux has 8192 CPUs at the most

_MOST = 100_000  # numbers in a list, repetitions included


def parse(text: str) -> tuple[int, ...]:
    """The numbers of a list, sorted; raises ValueError for any other text."""
    found: set[int] = set()
    named = 0
    for part in filter(None, text.strip().split(",")):
        match = _RANGE.fullmatch(part)
        if not match:
            raise ValueError(f"{part[:20]!r} is no number or range of CPUs")
        cpus = range(int(match[1]), int(match[2] or match[1]) + 1)
        named += 1 + len(cpus)
        if named > _MOST:
            raise ValueError(f"{text[:20]!r}… names too many CPUs")
        found.update(cpus)
    return tuple(sorted(found))


def show(cpus: Iterable[int]) -> str:
    """CPU numbers in the kernel's notation, runs as ranges."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
