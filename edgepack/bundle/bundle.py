"""The bundle: a folder with a manifest, the only thing that build and device share.

The manifest is encoded in exactly one way and contains a hash of itself and of every file, so that
any changed byte is detected.
"""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgepack.bundle import consistency
from edgepack.bundle.host import HostLoops
from edgepack.bundle.manifest import FORMAT, Manifest, StoredFile, encode
from edgepack.errors import IntegrityError, UnsupportedError, UsageError
from edgepack.files import links, locks
from edgepack.files.atomic import clear, require_replaceable_folder, write_atomically

MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES, _MAX_READ_BYTES = 8 << 20, 1 << 30


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. The manifest has been checked; a file is checked when asked for."""

    folder: Path
    manifest: Manifest

    def runtimes(self) -> list[str]:
        """Runtimes that every stage has, in the order of the target's preference."""
        stages = list(self.manifest.stages.values())
        return [r for r in stages[0].variants if all(r in stage.variants for stage in stages)]

    def engines(self, runtime: str) -> list[str]:
        """The engines that run a runtime's stages: its own, and those that it delegates some to."""
        engines = {stage.variants[runtime].engine for stage in self.manifest.stages.values()}
        return [runtime, *sorted(engines - {"", runtime})]

    def delegated(self, runtime: str, engine: str) -> list[str]:
        """The stages of a runtime that another engine runs, because it is faster."""
        stages = self.manifest.stages.items()
        return [name for name, stage in stages if stage.variants[runtime].engine == engine]

    def path(self, name: str) -> Path:
        """The path of a listed file, inside the folder or its hub cache also behind links."""
        if name not in self.manifest.files:
            raise IntegrityError(f"{self.folder}: {name} is used but not listed; refused")
        path = self.folder / name
        try:
            inside = links.stays(path, self.folder)
        except (OSError, RuntimeError) as error:  # RuntimeError: links that go round in circles
            raise IntegrityError(f"{path}: leads nowhere ({error}); copy it again") from None
        if not inside:
            raise IntegrityError(f"{self.folder}: {name!r} points outside the bundle; refused")
        return path

    def check(self, names: Iterable[str]) -> None:
        """Compare files with their recorded size and SHA-256; raises IntegrityError."""
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            for _ in pool.map(self._check, sorted(set(names))):
                pass

    def read(self, name: str) -> bytes:
        """The content of a file that is no network, checked; raises IntegrityError."""
        path, wanted = self._sized(name)
        if wanted.bytes > _MAX_READ_BYTES:
            raise IntegrityError(f"{path}: larger than {_MAX_READ_BYTES >> 20} MiB; refused")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != wanted.sha256:
            raise _changed(path)
        return data

    def check_folder(self, name: str) -> None:
        """Check what an engine could open beside a network file by itself, such as its weights.

        Everything below the file's folder has to be listed. Files that belong to a network are
        checked when that network is loaded; all others are now.
        """
        beside = self.path(name).parent
        found = {
            path.relative_to(self.folder).as_posix()
            for path in beside.rglob("*")
            if not path.is_dir() or path.is_symlink()
        } - {MANIFEST, locks.file_of(Path(MANIFEST)).name}
        if unlisted := sorted(found - self.manifest.files.keys()):
            raise IntegrityError(
                f"{self.folder / unlisted[0]}: not of this bundle, but where its networks could "
                "read it; remove it"
            )
        owned = {model.file for model in self.manifest.enrolment.values()}
        for stage in self.manifest.stages.values():
            owned.update(*(variant.files for variant in stage.variants.values()))
        self.check(found - owned)

    def _check(self, name: str) -> None:
        path, wanted = self._sized(name)
        if stored(path) != wanted:
            raise _changed(path)

    def _sized(self, name: str) -> tuple[Path, StoredFile]:
        """A file, whose size is checked but whose content is not read."""
        path, wanted = self.path(name), self.manifest.files[name]
        if not path.is_file():
            raise IntegrityError(f"{path}: missing from the bundle; copy or build it again")
        if path.stat().st_size != wanted.bytes:
            raise _changed(path)
        return path, wanted

    def with_manifest(self, manifest: Manifest) -> "Bundle":
        """Replace the manifest on disk in one step and return the bundle it describes."""
        write_atomically(self.folder / MANIFEST, encode(manifest))
        return Bundle(self.folder, manifest)


def _changed(path: Path) -> IntegrityError:
    return IntegrityError(
        f"{path}: not the bytes that were built (corrupt or changed); copy it again"
    )


class _Version(msgspec.Struct):
    """The first fields to check; msgspec ignores all others."""

    format: msgspec.Raw = msgspec.Raw(b"null")


# A manifest as it is stored: with the hash of everything else, and with its host record unparsed,
# since kinds are looked up by name.
_Sealed: Any = msgspec.defstruct(
    "_Sealed",
    [("sha256", str), ("host", msgspec.Raw)],
    bases=(Manifest,),
    frozen=True,
    kw_only=True,
)


def open_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`; raises UsageError if it is none, IntegrityError if it was changed."""
    path = folder / MANIFEST
    if not path.is_file():
        clear(folder)  # a process may have been killed while it replaced the bundle
    if not path.is_file():
        raise UsageError(f"{folder}: no bundle there ({MANIFEST} is missing){_instead(folder)}")
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{folder}: not a UTF-8 name, which engines need; rename it") from None
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise IntegrityError(f"{path}: larger than {_MAX_MANIFEST_BYTES >> 20} MiB; refused")
    data = path.read_bytes()
    try:
        version = bytes(msgspec.json.decode(data, type=_Version).format)[:20].decode()
        if version not in (str(FORMAT), "null"):
            older = version.isdecimal() and int(version) < FORMAT
            raise UnsupportedError(
                f"bundle format {version}, this edgepack reads {FORMAT}; "
                + ("build it again" if older else "update edgepack")
            )
        sealed = msgspec.json.decode(data, type=_Sealed)  # builds nothing that it does not know
        fields = {name: getattr(sealed, name) for name in Manifest.__struct_fields__}
        manifest = Manifest(**{**fields, "host": HostLoops.read(bytes(sealed.host))})
        if encode(manifest) != data:
            raise IntegrityError(
                f"{path}: does not match its own hash (corrupt or changed); refused"
            )
        consistency.check(manifest)
    except UnsupportedError as error:
        raise UnsupportedError(f"{path}: {error}") from None
    except (ValueError, AttributeError, RecursionError, msgspec.ValidationError) as error:
        raise IntegrityError(f"{path}: not a valid manifest ({error}); copy it again") from None
    return Bundle(folder, manifest)


def require_replaceable(folder: Path) -> None:
    """Raise UsageError or OSError if a bundle could not be put there in place of what is there."""
    if links.of_hub(folder):
        raise UsageError(
            f"{folder}: in the cache of a hub, which shares its files; give another folder"
        )
    require_replaceable_folder(folder)


def _instead(folder: Path) -> str:
    """A hint for messages, which folder may be meant, where there is no bundle."""
    build = f"; 'edgepack build {folder} --target NAME' makes one"
    if folder.is_file():
        if (folder.parent / MANIFEST).is_file():
            return f"; did you mean {folder.parent}?"
        return "; give the folder of a bundle"
    if not folder.exists():
        return build if folder.name == "demo" else ""
    if any(folder.glob("cosyvoice*.yaml")):
        return f"; it is a checkpoint{build}"
    inside = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    return f"; did you mean {inside[0]}?" if inside else ""


def stored(path: Path) -> StoredFile:
    """Size and hash of a file, read in pieces."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return StoredFile(bytes=path.stat().st_size, sha256=digest)
