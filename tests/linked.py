"""A copy of a bundle that a test may change."""

import os
import shutil
from pathlib import Path

import msgspec

from edgepack.bundle.bundle import Bundle, open_bundle, stored


def linked(folder: Path, to: Path) -> Bundle:
    """A copy whose files are hard links: replace them, do not write into them."""
    return open_bundle(Path(shutil.copytree(folder, to / folder.name, copy_function=os.link)))


def changed(bundle: Bundle, name: str, data: bytes, *, listed: bool = False) -> Bundle:
    """The bundle with another file in place of `name`; `listed` as if it had been built so."""
    path = bundle.folder / name
    path.unlink()
    path.write_bytes(data)
    if not listed:
        return bundle
    files = bundle.manifest.files | {name: stored(path)}
    return bundle.with_manifest(msgspec.structs.replace(bundle.manifest, files=files))
