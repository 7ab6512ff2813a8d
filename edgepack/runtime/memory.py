"""Memory of this process."""

import ctypes
import os
import re
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_M_MMAP_THRESHOLD, _THRESHOLD_BYTES = -3, 128 << 10


def peak_rss_bytes() -> int:
    """Largest resident set of this program so far.

    Linux's `ru_maxrss` also counts the process that started this one, so it is the fallback. It
    is in kilobytes there and in bytes on macOS.
    """
    if _STATUS.exists():
        found = re.search(r"^VmHWM:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    import resource  # which not every system has

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rss_bytes() -> int:
    """Resident set of this program now; its peak where the system does not say."""
    if _STATUS.exists():
        found = re.search(r"^VmRSS:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    return peak_rss_bytes()


def restart_peak() -> bool:
    """Have the peak begin again at what is resident now; whether the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def return_large_blocks() -> None:
    """Have glibc give freed blocks of 128 kB and more back to the system at once.

    By default its threshold grows to 32 MB, and the activations of one network stay resident
    while the next one runs. For a process of its own, not for a library to call. Does nothing
    with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)


def keep_few_kernels() -> None:
    """Have oneDNN, which OpenVINO computes with, keep 64 kernels and not those of 1024 shapes.

    Each step of a decoder has a shape of its own. For programs, at their start: what they start
    has it too. What is set already stays.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
