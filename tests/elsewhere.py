"""Makes a Linux process look like one of another system to edgepack: `hide("win32")`, "darwin".

What Python has on Linux alone is taken away, and what Windows refuses is refused. Packages that
have files of their own for each system (psutil, click, engines) are imported before that. This is
no Windows and no macOS: it shows that nothing is called which they lack.
"""

import builtins
import contextlib
import ctypes
import errno
import fcntl
import importlib
import io
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import psutil

# What other systems have beside these is of no use to a program that also runs on Windows.
_LINUX_CALLS = ("sched_", "memfd", "eventfd", "pidfd", "splice", "copy_file_range", "getxattr")
_POSIX_CALLS = (
    "fork", "getuid", "geteuid", "getgid", "setsid", "setpgid", "getpgid", "killpg", "uname",
    "statvfs", "getloadavg", "mkfifo", "nice", "chown", "waitid", "wait3", "posix_fadvise",
    "posix_fallocate", "pread", "pwrite", "confstr", "getpriority", "environb",
)  # fmt: skip
_POSIX_SIGNALS = ("SIGKILL", "SIGALRM", "SIGHUP", "SIGUSR", "SIGXCPU", "SIGCHLD", "setitimer",
                  "pthread_", "sigwait", "ITIMER", "alarm")  # fmt: skip
_POSIX_MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog")
_THEIRS = ("numpy", "click", "filelock", "rich.progress", "soundfile", "tokenizers",
           "multiprocessing.popen_spawn_posix", "multiprocessing.connection")  # fmt: skip
_TREES = ("/proc", "/sys")


def hide(platform: str, *packages: str) -> None:
    """From now on edgepack is on that system; `packages` are imported before."""
    for name in (*_THEIRS, *packages):
        importlib.import_module(name)
    for name in [n for n in sys.modules if n.split(".")[0] == "edgepack"]:
        raise AssertionError(f"{name} was imported before")
    _hide_trees()
    _remove(os, *_LINUX_CALLS)
    ctypes.CDLL = _no_symbols  # type: ignore[misc,assignment]
    if platform == "win32":
        _remove(os, *_POSIX_CALLS)
        _remove(signal, *_POSIX_SIGNALS)
        for name in _POSIX_MODULES:
            sys.modules[name] = None  # type: ignore[assignment]
        _lock_open_files()
        psutil.Process.memory_info = _memory  # type: ignore[assignment]
        ctypes.CDLL = _no_program  # type: ignore[misc,assignment]
    else:
        del psutil.Process.cpu_affinity
    _remove(importlib.import_module("mmap"), *["MADV"] * (platform == "win32"))
    sys.platform = platform


class _Windows(NamedTuple):
    rss: int
    vms: int
    peak_wset: int


def _memory(process: psutil.Process, looked: Any = psutil.Process.memory_info) -> _Windows:
    found = looked(process)
    return _Windows(found.rss, found.vms, found.rss)


def _remove(module: Any, *beginnings: str) -> None:
    for name in [n for n in dir(module) if n.startswith(beginnings)]:
        delattr(module, name)


def _no_symbols(name: str | None, **options: object) -> object:
    """The C library of another system: it has none of Linux's functions."""
    return object()


def _no_program(name: str | None, **options: object) -> object:
    raise TypeError("Windows has no library of that name")


def _hide_trees() -> None:
    """`/proc` and `/sys` are there for psutil alone, which stands for the system's own calls."""
    opened = io.open

    def opens(file: Any, *arguments: Any, **options: Any) -> Any:
        frame, ours = sys._getframe(1), True
        while frame.f_back:
            ours &= not str(frame.f_globals.get("__name__")).startswith("psutil")
            frame = frame.f_back
        if ours and isinstance(file, str | Path) and str(file).startswith(_TREES):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(file))
        return opened(file, *arguments, **options)

    builtins.open = io.open = opens
    scan, stat = os.scandir, os.stat

    def scans(path: Any = ".") -> Any:
        if str(path).startswith(_TREES):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return scan(path)

    def stats(path: Any, *arguments: Any, **options: Any) -> Any:
        if str(path).startswith(_TREES):
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return stat(path, *arguments, **options)

    os.scandir, os.stat = scans, stats


def _lock_open_files() -> None:
    """As Windows does: no open file is renamed or removed, no folder opened, no reader synced."""
    links, real_open, sync = os.readlink, os.open, os.fsync
    listed = os.listdir
    flags = fcntl.fcntl

    def is_open(path: Any) -> bool:
        place = os.path.realpath(path)
        found = set()
        for number in listed("/proc/self/fd"):
            with contextlib.suppress(OSError):
                found.add(links(f"/proc/self/fd/{number}"))
        return place in found

    def refusing(call: Any) -> Any:
        def refuses(path: Any, *arguments: Any, **options: Any) -> Any:
            for one in (path, *arguments):
                if isinstance(one, str | Path) and is_open(one):
                    raise PermissionError(errno.EACCES, "used by another process", str(one))
            return call(path, *arguments, **options)

        return refuses

    def opens(path: Any, *arguments: Any, **options: Any) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real_open(path, *arguments, **options)

    def syncs(number: int) -> None:
        if flags(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        sync(number)

    for name in ("replace", "rename", "unlink", "remove"):
        setattr(os, name, refusing(getattr(os, name)))
    os.open, os.fsync = opens, syncs  # type: ignore[assignment]
    shutil._use_fd_functions = False  # type: ignore[attr-defined]
