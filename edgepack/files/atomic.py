"""Files and folders that appear whole or not at all, at whatever moment a process is killed.

A symbolic link is followed: the file that it points to is replaced. Devices and pipes are not
replaced; the content is written into them once it is complete (`places`).

A new file is written beside its destination under a hidden name, `.NAME.TOKEN.tmp`, and its writer
holds a lock on it. The system releases a lock when the process ends, in whichever container that
runs. So a temporary file that can be locked was left by a killed process, and the next writer to
the same destination removes it.
"""

import contextlib
import errno
import hashlib
import io
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from edgepack.errors import EdgepackError, IntegrityError, ResourceError, UsageError
from edgepack.files import places
from edgepack.process import system

_LOCK, _NEW, _OLD = "lock", "new", "old"  # what is in a hidden folder
_FULL = 1 << 16  # a disk with fewer free bytes is full, as some are reserved
# Errors of files that cannot be replaced but can be written to: a mount point, as a single file of
# a container is, and another user's file in a sticky folder such as /tmp.
_HELD = (errno.EBUSY, errno.EPERM)
_LONGEST = 200  # bytes of the name that go into a hidden name; file systems allow 255


class NewFile:
    """A file that is being written: `commit` puts it in its place, `discard` leaves no trace.

    If the place is a symbolic link, what it points to is replaced; if it is a device or a pipe,
    the file is in memory until `commit` writes it there.
    """

    def __init__(self, path: Path) -> None:
        """Open it for reading and writing; its folder has to exist."""
        self._path = path
        self._place = _place(path)
        self._temporary: Path | None = None
        self.file: BinaryIO
        if places.keeps_its_name(path):
            self.file = io.BytesIO()
            return
        clear(self._place)
        while True:
            self._temporary = _hidden(self._place)
            with naming(path):
                self.file = self._temporary.open("x+b")
            if _held(self.file):
                break
            self.file.close()  # somebody is clearing it away

    def commit(self) -> None:
        """Write the content to the disk (fsync), then rename the file to its final name."""
        try:
            with naming(self._path):
                if self._temporary is None:
                    self._pour()
                    return
                self.file.flush()
                os.fsync(self.file.fileno())
                if not system.LOCKS:  # Windows renames no open file; elsewhere the lock has to stay
                    self.file.close()
                try:
                    self._temporary.replace(self._place)
                except OSError as error:
                    if error.errno not in _HELD or self.file.closed:
                        raise
                    self._pour()
                system.sync(self._place.parent)
        finally:
            self.discard()

    def _pour(self) -> None:
        """Copy the content into the existing device, pipe or file."""
        self.file.seek(0)
        with places.opened(self._path) as out:
            shutil.copyfileobj(self.file, out)

    def discard(self) -> None:
        """Close the file, and remove it if it was not committed."""
        if system.LOCKS and self._temporary:
            self._temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what is still in its buffer, for a full disk
            self.file.close()
        if self._temporary:
            self._temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an OSError of the block name `path` in place of the temporary file that it came from."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def require_writable(path: Path) -> None:
    """Raise UsageError or OSError if no file can be written there; tried with a temporary one."""
    if path.is_dir() and path != places.STDOUT:
        raise UsageError(f"{path}: not a file name but a folder; give a name in it")
    if places.keeps_its_name(path):
        places.require_open(path)
        return
    if not path.parent.is_dir():
        raise UsageError(f"{path}: not a file name in a folder that exists")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    NewFile(path).discard()


def require_writable_folder(folder: Path) -> None:
    """Raise UsageError or OSError if a folder, which need not exist, could not be written to."""
    if folder == places.STDOUT:
        raise UsageError(f"{folder}: standard output, which is no folder; give the name of one")
    place = _place(folder)
    above = next(p for p in (place, *place.parents) if p.exists())
    if not above.is_dir():
        raise UsageError(f"{folder}: {above} is in the way; give another folder")
    with naming(folder):
        hidden = _hidden(above / "folder")
        hidden.mkdir()
        hidden.rmdir()


def require_replaceable_folder(folder: Path) -> None:
    """Raise UsageError or OSError if a folder cannot be replaced by another as a whole."""
    place = _place(folder)
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise UsageError(f"{folder}: something else than a folder is in the way; remove it")
    if os.path.ismount(place):
        raise UsageError(f"{folder}: a mount point, which cannot be replaced; give another folder")
    with naming(folder):
        require_writable_folder(place.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file in one step: a reader sees the old content or the new one, never a part."""
    new = NewFile(path)
    try:
        with naming(path):
            new.file.write(data)
        new.commit()
    finally:
        new.discard()


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """Make a folder and its parents; new ones that are empty are removed if the block fails."""
    folder = _place(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # something is in them
            for path in made:
                path.rmdir()
        raise


@contextlib.contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """A temporary folder on the disk of `beside`, which is removed after the block.

    Errors of the block do not show its name. Any error that a full disk caused is a ResourceError.
    """
    with _hidden_folder(beside, beside.parent) as new:
        yield new


@contextlib.contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files are moved to `folder` when the block succeeds.

    Other files of `folder` stay.
    """
    with made_folder(folder), _hidden_folder(folder / "files", folder) as new:
        with naming(folder):
            yield new
        for path in new.iterdir():
            place = folder / path.name
            if place.is_symlink() or places.keeps_its_name(place):
                write_atomically(place, path.read_bytes())
            else:
                path.replace(place)


@contextlib.contextmanager
def _hidden_folder(beside: Path, shown: Path) -> Iterator[Path]:
    """A temporary folder; errors in the block are about the path `shown`."""
    place = _place(beside)
    made = [above for above in place.parents if not above.exists()]
    place.parent.mkdir(parents=True, exist_ok=True)
    clear(place)
    hidden, lock = _begun(place)
    try:
        yield hidden / _NEW
    except Exception as error:
        _tell(error, hidden, shown)
        raise
    finally:
        if not system.LOCKS:  # Windows removes no open file
            lock.close()
        with contextlib.suppress(OSError):
            _remove(hidden, place)
        lock.close()
        with contextlib.suppress(OSError):  # something is in them
            for above in made:
                above.rmdir()


def _tell(error: Exception, hidden: Path, shown: Path) -> None:
    """Raise an error without the name of the hidden folder, or as one of a full disk if it is."""
    known = isinstance(error, EdgepackError) and not isinstance(error, IntegrityError)
    # For a partial write numpy raises an OSError without an errno.
    part = isinstance(error, OSError) and error.errno is None and "written" in str(error)
    if part or (not known and _full(hidden)):
        raise ResourceError(f"{shown}: no space left on its disk; free some") from error
    if isinstance(error, OSError) and str(hidden) in f"{error.filename} {error.filename2}":
        raise OSError(error.errno, error.strerror, str(shown)) from error
    if isinstance(error, EdgepackError) and str(hidden) in str(error):
        words = str(error).replace(str(hidden / _NEW), str(shown)).replace(str(hidden), str(shown))
        raise type(error)(words, error.details) from error


def _full(hidden: Path) -> bool:
    """Whether the disk of a folder is full, or a file in the folder as large as is allowed."""
    if shutil.disk_usage(hidden).free < _FULL:
        return True
    most = system.largest_file()
    files = (path for path in hidden.rglob("*") if path.is_file())
    return most is not None and any(path.stat().st_size >= most for path in files)


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block succeeds, and vanishes otherwise.

    An existing folder is exchanged in one step where the kernel can. Elsewhere it is set aside for
    a moment; if the process is killed then, `clear` puts it back.
    """
    require_replaceable_folder(folder)
    place = _place(folder)
    with _hidden_folder(place, folder) as new:
        yield new
        for path in [*new.rglob("*"), new]:
            if not path.is_symlink():
                system.sync(path)
        if place.exists() and not system.exchange(new, place):
            place.rename(new.with_name(_OLD))
        if not place.exists():
            new.rename(place)
        system.sync(place.parent)


def clear(place: Path) -> None:
    """Remove temporary files that killed processes left for a path; restore what they set aside.

    Files that a running process is writing stay, and so do those that we have no right to change.
    """
    place = _place(place)
    # Earlier versions had a process id in place of the token.
    ours = re.compile(re.escape(_stem(place)) + r"(?:[0-9a-f]{8}|\d{1,10})\.tmp")
    with contextlib.suppress(OSError):
        for path in list(place.parent.iterdir()):
            if ours.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    _clear(path, place)


def _clear(hidden: Path, place: Path) -> None:
    if hidden.is_symlink():
        return  # not ours: no temporary file is a link
    folder = hidden.is_dir()
    with (hidden / _LOCK).open("a+b") if folder else hidden.open("r+b") as lock:
        if not system.lock(lock, wait=False):
            return
        if folder:
            _remove(hidden, place)
        else:
            hidden.unlink(missing_ok=True)


def _place(path: Path) -> Path:
    """The path itself, or what it points to if it is a symbolic link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _stem(place: Path) -> str:
    """The beginning of temporary names for a path, different from that of every other path."""
    name = os.fsencode(place.name)
    if len(name) > _LONGEST:
        name = name[: _LONGEST - 16] + hashlib.sha256(name).hexdigest()[:16].encode()
    return f".{os.fsdecode(name)}."


def _hidden(place: Path) -> Path:
    """A random, unused temporary name beside `place`."""
    return place.with_name(f"{_stem(place)}{secrets.token_hex(4)}.tmp")


def _begun(place: Path) -> tuple[Path, IO[bytes]]:
    """A new hidden folder with an empty folder in it, and the open lock file that protects it."""
    while True:
        hidden = _hidden(place)
        hidden.mkdir()
        with contextlib.suppress(FileNotFoundError):  # somebody is clearing it away
            lock = (hidden / _LOCK).open("a+b")
            if _held(lock) and (hidden / _LOCK).exists():
                (hidden / _NEW).mkdir()
                return hidden, lock
            lock.close()


def _held(file: IO[bytes]) -> bool:
    """Take a writer's lock; also true without locks, since then nobody removes its files."""
    try:
        return system.lock(file, wait=False)
    except OSError:
        return True


def _remove(hidden: Path, place: Path) -> None:
    """Remove a hidden folder; the old content in it returns to its place if that is empty."""
    old = hidden / _OLD
    if old.exists() and not place.exists():
        old.rename(place)
    shutil.rmtree(hidden)
