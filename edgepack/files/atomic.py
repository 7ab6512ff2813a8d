"""Files and folders that appear whole or not at all, at whatever moment a process is killed.

Links are written through: what they lead to is replaced. Devices and pipes are not replaced, but
get what is written, when it is whole (`places`).

What is being written is beside its place under a hidden name, `.NAME.TOKEN.tmp`, and its writer
holds a lock on it. A lock ends with the process that holds it, in whichever container that is: what
can be locked was left behind, and whoever writes to the same place next clears it away.
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

from edgepack import places, system
from edgepack.errors import EdgepackError, IntegrityError, ResourceError, UsageError

_LOCK, _NEW, _OLD = "lock", "new", "old"  # what is in a hidden folder
_FULL = 1 << 16  # bytes that are free on a disk that is full: a few may not be used
# What cannot be replaced can still be written to: a mount point, as one file of a container is, and
# another user's file in a folder where everybody may only remove their own.
_HELD = (errno.EBUSY, errno.EPERM)
_LONGEST = 200  # bytes of a name that a hidden name has in it: file systems allow 255


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
        """Bring the content to the disk, then give it its name in one step."""
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
        """Write the content into what is there."""
        self.file.seek(0)
        with places.opened(self._path) as out:
            shutil.copyfileobj(self.file, out)

    def discard(self) -> None:
        """Close it, and remove it if it has no name yet."""
        if system.LOCKS and self._temporary:
            self._temporary.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what is still in its buffer, for a full disk
            self.file.close()
        if self._temporary:
            self._temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the system in the block are about `path`, not about a hidden name beside it."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None


def require_writable(path: Path) -> None:
    """Raise UsageError or OSError if no file could be written there, by beginning one."""
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
    """The same for a folder that may have to be made, with those above it."""
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
    """The same for a folder that is to be replaced as a whole, and so changes the one above it."""
    place = _place(folder)
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise UsageError(f"{folder}: something else than a folder is in the way; remove it")
    if os.path.ismount(place):
        raise UsageError(f"{folder}: a mount point, which cannot be replaced; give another folder")
    with naming(folder):
        require_writable_folder(place.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file in one step: there is the old one or the new one, whole."""
    new = NewFile(path)
    try:
        with naming(path):
            new.file.write(data)
        new.commit()
    finally:
        new.discard()


@contextlib.contextmanager
def made_folder(folder: Path) -> Iterator[None]:
    """A folder with those above it; what was made and is empty goes away if the block fails."""
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
    """A folder in a hidden one next to `beside` that is gone after the block.

    Errors do not name it, and a disk that is full is a ResourceError, whatever it was called.
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
    """Raise an error in other words if its own name a hidden folder, or its disk is full."""
    known = isinstance(error, EdgepackError) and not isinstance(error, IntegrityError)
    # numpy has no number for a write that the system took a part of.
    part = isinstance(error, OSError) and error.errno is None and "written" in str(error)
    if part or (not known and _full(hidden)):
        raise ResourceError(f"{shown}: no space left on its disk; free some") from error
    if isinstance(error, OSError) and str(hidden) in f"{error.filename} {error.filename2}":
        raise OSError(error.errno, error.strerror, str(shown)) from error
    if isinstance(error, EdgepackError) and str(hidden) in str(error):
        words = str(error).replace(str(hidden / _NEW), str(shown)).replace(str(hidden), str(shown))
        raise type(error)(words, error.details) from error


def _full(hidden: Path) -> bool:
    """Whether a disk has no more room for what is being written, or a file in it is at a limit."""
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
    """Remove what killed processes left of their work on a path; what they had set aside returns.

    What another process is at work on stays, and so does what we may not change.
    """
    place = _place(place)
    # Earlier versions had the number of a process there.
    ours = re.compile(re.escape(_stem(place)) + r"(?:[0-9a-f]{8}|\d{1,10})\.tmp")
    with contextlib.suppress(OSError):
        for path in list(place.parent.iterdir()):
            if ours.fullmatch(path.name):
                with contextlib.suppress(OSError):
                    _clear(path, place)


def _clear(hidden: Path, place: Path) -> None:
    if hidden.is_symlink():
        return  # we make none
    folder = hidden.is_dir()
    with (hidden / _LOCK).open("a+b") if folder else hidden.open("r+b") as lock:
        if not system.lock(lock, wait=False):
            return
        if folder:
            _remove(hidden, place)
        else:
            hidden.unlink(missing_ok=True)


def _place(path: Path) -> Path:
    """Where a path leads: links are written through."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _stem(place: Path) -> str:
    """How hidden names of a path begin, and those of no other path."""
    name = os.fsencode(place.name)
    if len(name) > _LONGEST:
        name = name[: _LONGEST - 16] + hashlib.sha256(name).hexdigest()[:16].encode()
    return f".{os.fsdecode(name)}."


def _hidden(place: Path) -> Path:
    """A name beside `place` that nobody else has."""
    return place.with_name(f"{_stem(place)}{secrets.token_hex(4)}.tmp")


def _begun(place: Path) -> tuple[Path, IO[bytes]]:
    """A new hidden folder with an empty one in it, and its lock, held until it is closed."""
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
    """Take the lock of a writer; where there are no locks, nobody can clear its work away."""
    try:
        return system.lock(file, wait=False)
    except OSError:
        return True


def _remove(hidden: Path, place: Path) -> None:
    """Remove a hidden folder; what it was to replace goes back if nothing has taken its place."""
    old = hidden / _OLD
    if old.exists() and not place.exists():
        old.rename(place)
    shutil.rmtree(hidden)
