"""One process at a time for a bundle, in whichever container of a shared volume it is.

A lock is the system's, on a hidden file `.NAME.lock` beside the place: it ends with the process
that holds it, and the file goes with it. On network file systems it is worth what they make of
locks: NFS keeps them between machines if its lock service runs, others may keep them on one
machine only. Where a file system has none, that is said, and nobody is kept out.
"""

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from edgepack.atomic import naming
from edgepack.report import note, warn

_POLL_SECONDS = 0.1
_NONE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)  # the system's words for no locks
_HOLDER = re.compile(r"([\w.-]{1,255}) (\d{1,10})\n", re.ASCII)


def file_of(place: Path) -> Path:
    """The file whose lock stands for a place."""
    return place.with_name(f".{place.name}.lock")


@contextmanager
def alone(*places: Path) -> Iterator[None]:
    """Wait until no other process is in such a block for any of these paths; say for whom.

    They need not exist; folders above them are made, and removed again if nothing is in them.
    """
    with ExitStack() as held:
        for place in sorted(set(places)):  # in one order, or two could wait for each other
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
                # Else who had made the folder has removed it again.
    try:
        yield
    finally:
        if ours:
            with suppress(OSError):  # it went with a folder that was replaced, or Windows has it
                if os.path.samestat(path.stat(), ours):
                    path.unlink()  # who has it open sees that it has gone, and begins again
            lock.release()
        with suppress(OSError):  # something is in them
            for folder in above:
                folder.rmdir()


def _acquired(lock: FileLock, place: Path) -> os.stat_result | None:
    """Take a lock; its file as it is then, None if the file system has no locks."""
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
    """Who has a lock, as far as that can be told."""
    with suppress(OSError, ValueError), path.open(encoding="ascii") as file:
        if found := _HOLDER.fullmatch(file.read(300)):
            return f"process {found[2]} on {found[1]}"
    return "another process"
