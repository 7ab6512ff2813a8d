"""Functions that only some operating systems have; each says what the others do instead.

edgepack is made and measured on Linux. Whatever is not in this module, in `machine.cpu`, in
`machine.memory` or in a meter runs wherever Python and psutil do; `mypy --platform` and
`tests/test_architecture.py` hold it to that.
"""

import contextlib
import ctypes
import errno
import os
import signal
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgepack.errors import UnsupportedError

if TYPE_CHECKING:
    import psutil

_PR_SET_PDEATHSIG = 1
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_M_MMAP_THRESHOLD, _THRESHOLD_BYTES = -3, 128 << 10


def die_with_parent() -> bool:
    """Have the kernel kill this process when the thread that started it ends; only Linux can."""
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) == 0


def killed(code: int | None) -> bool:
    """Whether an exit code is that of a process which was killed, as happens without memory.

    Windows has no such code.
    """
    return sys.platform != "win32" and code == -signal.SIGKILL


def out_of_time(code: int | None) -> bool:
    """Whether an exit code is that of a process which used up its processor time (`limit`)."""
    return sys.platform != "win32" and code == -signal.SIGXCPU


@contextlib.contextmanager
def deaf(signals: Collection[signal.Signals]) -> Iterator[None]:
    """Block these signals for processes that are started in the block.

    Does nothing on Windows, where Ctrl-C goes to every process of a console.
    """
    if sys.platform == "win32":
        yield
        return
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # starting it would undo the mask
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # a child inherits it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def hearing(signals: Collection[signal.Signals]) -> None:
    """Unblock signals that the parent process has blocked; does nothing on Windows."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def require_limits(what: object) -> None:
    """Raise UnsupportedError on systems where `limit` does not work; `what` is not read there.

    macOS has such calls, but does not enforce those for memory.
    """
    if sys.platform != "linux":
        raise UnsupportedError(
            f"{what}: takes processes with limits of memory and time, which only Linux enforces; "
            "do it on Linux and copy the bundle here, where it speaks"
        )


def limit(*, memory: int, seconds: int, written: int | None = None) -> None:
    """Hold this process to bytes of address space, seconds of processor time and bytes a file.

    Limits cannot be raised again, and those that are already lower stay. The process writes no core
    file. Raises UnsupportedError where `require_limits` does.
    """
    require_limits("it")
    if sys.platform == "linux":
        import resource

        _lower(resource.RLIMIT_AS, memory)
        _lower(resource.RLIMIT_CPU, seconds)
        if written is not None:
            _lower(resource.RLIMIT_FSIZE, written)
        _lower(resource.RLIMIT_CORE, 0)


def _lower(kind: int, most: int) -> None:
    """Lower a limit of this process; it is never raised."""
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(kind)
        endless = hard == resource.RLIM_INFINITY
        most = most if endless else min(most, hard)
        # A process that is over its hard limit of time is killed, over the soft one it is told so.
        beyond = most + 1 if kind == resource.RLIMIT_CPU and endless else most
        resource.setrlimit(kind, (most, beyond))


def user() -> int | None:
    """Number of the user this process works for; None on Windows, which has none."""
    if sys.platform == "win32":
        return None
    return os.getuid()


def largest_file() -> int | None:
    """Bytes that a file of this process may have; None where there is no such limit."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if soft == resource.RLIM_INFINITY else soft


def address_space() -> int | None:
    """Bytes of address space that this process may have; None where there is no such limit."""
    if sys.platform == "win32":
        return None
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def affinity() -> set[int] | None:
    """CPUs this process may run on; None on macOS, which has no masks."""
    if sys.platform == "darwin":
        return None
    return set(_this_process().cpu_affinity() or ())


def set_affinity(cpus: Iterable[int]) -> None:
    """Keep this process on these CPUs; on Linux only the calling thread and later ones.

    Raises UnsupportedError where there are no masks, OSError or ValueError if they are refused.
    """
    if sys.platform == "darwin":
        raise UnsupportedError("--cpus: macOS cannot pin processes to CPUs; leave it out")
    if sys.platform == "linux":
        os.sched_setaffinity(0, cpus)
    else:
        _this_process().cpu_affinity(list(cpus))


def set_affinity_of_threads(cpus: Iterable[int]) -> None:
    """Keep all threads that exist already on these CPUs."""
    if sys.platform != "linux":
        return set_affinity(cpus)
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # a thread that has just ended
            os.sched_setaffinity(int(task.name), cpus)
    return None


def _this_process() -> "psutil.Process":
    import psutil

    return psutil.Process()


# Whether `lock` can work.
LOCKS = sys.platform != "win32"


def lock(file: IO[bytes], *, wait: bool) -> bool:
    """Take the lock of an open file; False if another process has it and we do not wait.

    Raises OSError on Windows, whose locks would also keep out readers of the file.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOTSUP, "no locks")
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def peak_rss_bytes() -> int:
    """Largest resident set of this process so far.

    Of Linux's two figures `ru_maxrss` also counts the process that started this one, so it is the
    fallback. It is in kilobytes there and in bytes on macOS; Windows counts its own.
    """
    if sys.platform == "win32":
        return int(_this_process().memory_info().peak_wset)
    import resource

    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def restart_peak() -> bool:
    """Reset the peak to what is resident now; False where that cannot be done (all but Linux)."""
    if sys.platform != "linux":
        return False
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        return False
    return True


def return_large_blocks() -> None:
    """Have glibc give freed blocks of 128 kB and more back to the system at once.

    Does nothing with another C library. By default its threshold grows to 32 MB, and the
    activations of one network stay resident while the next one runs. It changes the whole process,
    so programs call it and the library does not.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)


def return_freed() -> None:
    """Have glibc give the free memory of its heaps back to the system, once.

    A heap keeps what was freed below a block that is in use, and threads have heaps of their own.
    Does nothing with another C library.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)


def exchange(one: Path, other: Path) -> bool:
    """Swap two paths in one step (`renameat2`); False where that cannot be done."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    paths = (_AT_FDCWD, bytes(one), _AT_FDCWD, bytes(other))
    return rename is not None and rename(*paths, _RENAME_EXCHANGE) == 0


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Windows syncs what may be written to, and no folders: there names are on the disk with the file.
    """
    if sys.platform == "win32":
        if path.is_dir():
            return
        descriptor = os.open(path, os.O_RDWR)
    else:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except PermissionError:  # a folder that may be written to but not listed
            return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system without such a thing for folders
            raise
    finally:
        os.close(descriptor)
