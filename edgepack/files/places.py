"""Outputs that are written into and not replaced: devices, pipes, and standard output.

Every other output is a new file that takes the place of an old one (`atomic`).
"""

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from edgepack.errors import ResourceError, UsageError

STDOUT = Path("-")  # standard output, as commands call it


def is_stdout(path: Path) -> bool:
    """Whether a path is "-", or the file or pipe that standard output goes to, as /dev/stdout is.

    False for a terminal or another device, as several outputs may be written to those.
    """
    if path == STDOUT:
        return True
    with suppress(OSError, ValueError, AttributeError):  # closed, or none of the system's
        ours = os.fstat(sys.stdout.fileno())
        return not stat.S_ISCHR(ours.st_mode) and os.path.samestat(ours, path.stat())
    return False


def stdout() -> BinaryIO:
    """Standard output for bytes; raises UsageError if it is closed."""
    found = getattr(sys.stdout, "buffer", None)
    if found is None:
        raise UsageError("standard output is closed; give the name of a file")
    sys.stdout.flush()
    return cast(BinaryIO, found)


def keeps_its_name(path: Path) -> bool:
    """Whether a path has to be written into, because no new file can take its name.

    That is so for devices and pipes, for standard output, and for open files that have no name any
    more (/dev/fd/3). Raises OSError for circular links and for folders without search permission.
    """
    if path == STDOUT:
        return True
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISDIR(state.st_mode):
        return False
    if not stat.S_ISREG(state.st_mode) or is_stdout(path):
        return True
    return not Path(os.path.realpath(path)).exists()


def require_open(path: Path) -> None:
    """Raise UsageError or OSError if a device or a pipe cannot be written to.

    A pipe is not opened: opening waits for a reader, and closing it again ends that reader's input.
    """
    if path == STDOUT:
        stdout()
        return
    mode = path.stat().st_mode
    if stat.S_ISSOCK(mode):
        raise UsageError(f"{path}: a socket; give a file, a pipe or a device")
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        os.close(os.open(path, os.O_WRONLY))


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a device, a pipe or standard output for writing; a pipe waits for its reader.

    Raises OSError, and ResourceError if the reader of a pipe has gone. If it is the reader of
    standard output that has gone, the BrokenPipeError is left to the command line.
    """
    if is_stdout(path):
        out = stdout()
        yield out
        out.flush()
        return
    try:
        with path.open("wb") as file:
            yield file
    except BrokenPipeError:
        raise ResourceError(f"{path}: nobody reads on; start its reader again") from None
