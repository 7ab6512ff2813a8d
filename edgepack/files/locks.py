"""One process at a time for a bundle, also across containers that share a volume.

A lock is the operating system's lock of a hidden file `.NAME.lock` beside the path. It ends with
the process that holds it, which also removes the file. On network file systems it depends on their
locks: NFS has them between machines if its lock service runs, others may have them on one machine
only. On a file system without locks a warning is shown, and no process is kept out.
"""

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from edgepack.files.atomic import naming
from edgepack.report import note, warn

_POLL_SECONDS = 0.1
_NONE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)  # of a file system without locks
_HOLDER = re.compile(r"([\w.-]{1,255}) (\d{1,10})\n", re.ASCII)


def file_of(place: Path) -> Path:
    """The lock file of a path."""
    return place.with_name(f".{place.name}.lock")


@contextmanager
def alone(*places: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for any of these paths; tell who it is.

    The paths need not exist. Folders above them are made, and removed again if they stay empty.
    """
    with ExitStack() as held:
        for place in sorted(set(places)):  # one order for all processes: no deadlock
            held.enter_context(_alone(place))
        yield


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    place = Path(os.path.realpath(place))
    above = [folder for folder in place.parents if not folder.exists()]
    with naming(place):
        path = file_of(place)
        lock = FileLock(path, poll_interval=_POLL_SECONDS, fallback_to_soft=False)
        while True:
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                ours = _acquired(lock, place)
                break
            except (FileNotFoundError, FileExistsError):
                if place.parent.exists() and not place.parent.is_dir():
                    raise
                # Otherwise the process that made the folder has just removed it: try again.
    try:
        yield
    finally:
        if ours:
            with suppress(OSError):  # gone with a replaced folder, or open on Windows
                if os.path.samestat(path.stat(), ours):
                    path.unlink()  # whoever has it open sees that and begins again
            lock.release()
        with suppress(OSError):  # something is in them
            for folder in above:
                folder.rmdir()


def _acquired(lock: FileLock, place: Path) -> os.stat_result | None:
    """Take a lock. Returns the state of its file, or None if the file system has no locks."""
    path = Path(lock.lock_file)
    try:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            note(f"{place}: {_holder(path)} is at work on it; waiting")
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NONE:
            raise
        warn(f"{place}: no locks on its file system; let one process at a time work on it")
        return None
    with suppress(OSError):  # Windows lets nobody write to what is locked
        path.write_text(f"{socket.gethostname()} {os.getpid()}\n", "ascii", "replace")
    return path.stat()


def _holder(path: Path) -> str:
    """The process that holds a lock, in words, as far as it is known."""
    with suppress(OSError, ValueError), path.open(encoding="ascii") as file:
        if found := _HOLDER.fullmatch(file.read(300)):
            return f"process {found[2]} on {found[1]}"
    return "another process"
