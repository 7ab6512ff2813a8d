"""Memory of this process."""

import ctypes
import resource
import sys

_M_MMAP_THRESHOLD, _THRESHOLD_BYTES = -3, 128 << 10


def peak_rss_bytes() -> int:
    """Largest resident set so far; `ru_maxrss` is in kilobytes on Linux, bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def return_large_blocks() -> None:
    """Have glibc give freed blocks of 128 kB and more back to the system at once.

    By default its threshold grows to 32 MB, and the activations of one network stay resident
    while the next one runs. For a process of its own, not for a library to call. Does nothing
    with another C library.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
