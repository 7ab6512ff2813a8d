"""Memory: what this process uses, what is left, and how engines are kept from using more."""

import os
from pathlib import Path

import psutil

from edgepack.errors import ResourceError
from edgepack.process.system import address_space, peak_rss_bytes, restart_peak, return_large_blocks

__all__ = [
    "START_ROOM", "available_bytes", "keep_few_kernels", "peak_rss_bytes", "require",
    "require_room", "restart_peak", "return_large_blocks", "rss_bytes",
]  # fmt: skip

_LEAST_ROOM = 256 << 20  # for stacks and heaps of an engine's threads, and its work buffers
START_ROOM = 160 << 20  # for numpy and libsndfile: OpenBLAS ends a process where it gets no memory
_GROUP = Path("/sys/fs/cgroup")


def rss_bytes() -> int:
    """Resident set of this program now."""
    return int(psutil.Process().memory_info().rss)


def available_bytes() -> int | None:
    """Memory that this machine can still give, within its control group; None if it does not say.

    The group is that of cgroup v2: `memory.max` and `memory.current`. A limit of address space is
    one of memory too.
    """
    try:
        left = int(psutil.virtual_memory().available)
    except OSError:
        return None
    try:
        most = (_GROUP / "memory.max").read_text("ascii").strip()
        if most.isdecimal():
            used = int((_GROUP / "memory.current").read_text("ascii"))
            left = min(left, max(0, int(most) - used))
    except (OSError, ValueError):
        pass
    room = _room()
    return left if room is None else min(left, room)


def _room() -> int | None:
    """Address space that this process may still take; None without a limit."""
    most = address_space()
    return None if most is None else max(0, most - int(psutil.Process().memory_info().vms))


def require_room(what: str, least: int = _LEAST_ROOM) -> None:
    """Raise ResourceError if less than `least` bytes are left of a limit of address space.

    Engines start threads when they load or first run a network. Without memory for a thread's stack
    some of them wait forever, or crash.
    """
    room = _room()
    if room is not None and room < least:
        raise ResourceError(
            f"{what}: {room / 1e6:.0f} MB are left of the limit of address space, which is too "
            "little; raise it (ulimit -v)"
        )


def require(needed: int, most: int | None, what: str) -> None:
    """Raise ResourceError if an array would take more than `most` bytes, or more than is free."""
    left = available_bytes()
    limits = [limit for limit in (most, left) if limit is not None]
    if limits and needed > min(limits):
        raise ResourceError(
            f"{what} needs about {needed / 1e6:.0f} MB of memory, and there are "
            f"{min(limits) / 1e6:.0f} MB for it; use a shorter text or prompt"
        )


def keep_few_kernels() -> None:
    """Have oneDNN, which OpenVINO computes with, cache kernels of 64 shapes in place of 1024.

    Each step of a decoder has another shape, so the cache would only grow. It is a variable of the
    environment, which programs set at their start and child processes inherit; a value that is
    already set stays.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
