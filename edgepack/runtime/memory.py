"""Memory of this process."""

import os
from pathlib import Path

import psutil

from edgepack.errors import ResourceError
from edgepack.system import peak_rss_bytes, restart_peak, return_large_blocks

__all__ = [
    "available_bytes", "keep_few_kernels", "peak_rss_bytes", "require", "restart_peak",
    "return_large_blocks", "rss_bytes",
]  # fmt: skip

_GROUP = Path("/sys/fs/cgroup")


def rss_bytes() -> int:
    """Resident set of this program now."""
    return int(psutil.Process().memory_info().rss)


def available_bytes() -> int | None:
    """Memory that this machine can still give, within its control group; None if it does not say.

    The group is that of cgroup v2: `memory.max` and `memory.current`.
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
    return left


def require(needed: int, most: int | None, what: str) -> None:
    """Raise ResourceError if an array would take more than `most` bytes or than there are."""
    left = available_bytes()
    limits = [limit for limit in (most, left) if limit is not None]
    if limits and needed > min(limits):
        raise ResourceError(
            f"{what} needs about {needed / 1e6:.0f} MB of memory, and there are "
            f"{min(limits) / 1e6:.0f} MB for it; use a shorter text or prompt"
        )


def keep_few_kernels() -> None:
    """Have oneDNN, which OpenVINO computes with, keep 64 kernels and not those of 1024 shapes.

    Each step of a decoder has a shape of its own. For programs, at their start: what they start
    has it too. What is set already stays.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
