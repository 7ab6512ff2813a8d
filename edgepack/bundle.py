"""The bundle: a folder with a manifest, the one thing that build and device share.

The manifest has one way to be written and carries its own hash and that of every file, so a
changed byte anywhere is found.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from edgepack.errors import IntegrityError, UnsupportedError, UsageError
from edgepack.manifest import FORMAT, Manifest, StoredFile, encode

MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. The manifest has been checked; a file is checked when asked for."""

    folder: Path
    manifest: Manifest

    def runtimes(self) -> list[str]:
        """Runtimes that every stage has, in the order of the target's preference."""
        stages = list(self.manifest.stages.values())
        return [r for r in stages[0].variants if all(r in stage.variants for stage in stages)]

    def path(self, name: str) -> Path:
        """The path of a listed file, inside the folder also after following links."""
        if name not in self.manifest.files:
            raise IntegrityError(f"{self.folder}: {name} is used but not listed; refused")
        pure = PurePosixPath(name)
        path = self.folder / pure
        if (
            pure.is_absolute()
            or ".." in pure.parts
            or "\\" in name
            or not path.resolve().is_relative_to(self.folder.resolve())
        ):
            raise IntegrityError(f"{self.folder}: {name!r} points outside the bundle; refused")
        return path

    def check(self, names: Iterable[str]) -> None:
        """Compare files with their recorded size and SHA-256; raises IntegrityError."""
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for _ in pool.map(self._check, sorted(set(names))):
                pass

    def _check(self, name: str) -> None:
        path, wanted = self.path(name), self.manifest.files[name]
        if not path.is_file():
            raise IntegrityError(f"{path}: missing from the bundle; copy or build it again")
        if stored(path) != wanted:
            raise IntegrityError(
                f"{path}: not the bytes that were built (corrupt or changed); copy it again"
            )

    def with_manifest(self, manifest: Manifest) -> "Bundle":
        """Replace the manifest on disk in one step and return the bundle it describes."""
        write_atomically(self.folder / MANIFEST, encode(manifest))
        return Bundle(self.folder, manifest)


def open_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`; raises UsageError if it is none, IntegrityError if it was changed."""
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(f"{folder}: no bundle there ({MANIFEST} is missing)")
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise IntegrityError(f"{path}: larger than 64 MiB; refused")
    data = path.read_bytes()
    try:
        tree = json.loads(data)
        if isinstance(tree, dict) and tree.get("format") not in (FORMAT, None):
            older = isinstance(tree["format"], int) and tree["format"] < FORMAT
            raise UnsupportedError(
                f"{path}: bundle format {tree['format']}, this edgepack reads {FORMAT}; "
                + ("build it again" if older else "update edgepack")
            )
        manifest = msgspec.convert(
            {key: value for key, value in tree.items() if key != "sha256"}, Manifest
        )
        intact = encode(manifest) == data
    except (ValueError, AttributeError, RecursionError, msgspec.ValidationError) as error:
        raise IntegrityError(f"{path}: not a valid manifest ({error}); copy it again") from None
    if not intact:
        raise IntegrityError(f"{path}: does not match its own hash (corrupt or changed); refused")
    return Bundle(folder, manifest)


def stored(path: Path) -> StoredFile:
    """Size and hash of a file, read in pieces."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return StoredFile(bytes=path.stat().st_size, sha256=digest)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a temporary file beside `path`, then rename it: the old file or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder(beside: Path) -> Iterator[Path]:
    """A hidden folder next to `beside` that is gone after the block.

    What a killed process left behind there is removed as well.
    """
    beside.parent.mkdir(parents=True, exist_ok=True)
    for stale in beside.parent.glob(f".{beside.name}.*.tmp"):
        if not Path("/proc", stale.name.split(".")[-2]).exists():
            shutil.rmtree(stale, ignore_errors=True)
    folder = beside.with_name(f".{beside.name}.{os.getpid()}.tmp")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block succeeds, and vanishes otherwise.

    An existing folder is exchanged in one step where the kernel can.
    """
    with temporary_folder(folder) as temporary:
        yield temporary
        if folder.exists() and not _exchange(temporary, folder):
            shutil.rmtree(folder)
        if not folder.exists():
            temporary.rename(folder)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two paths atomically (Linux `renameat2`); False where that cannot be done."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename is not None and rename(here, bytes(one), here, bytes(other), swap) == 0
