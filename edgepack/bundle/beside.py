"""Where files about a bundle are kept: beside it, or in this user's caches.

They are not in the bundle, as bundles are not changed. They are in the caches if nothing can be
written beside the bundle, as in a read-only image, or if the folder above it belongs to a hub's
cache. A file that was delivered beside the bundle is read from there.
"""

import hashlib
import os
from pathlib import Path

from edgepack.files import caches, links


def place(bundle: Path, ending: str) -> Path:
    """The path to write a bundle's file `NAME.ending` to; its folder may not exist yet."""
    folder = bundle.resolve()
    if not links.of_hub(folder) and os.access(folder.parent, os.W_OK | os.X_OK):
        return _next_to(folder, ending)
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return caches.folder() / "bundles" / f"{folder.name}-{key}.{ending}"


def found(bundle: Path, ending: str, inside: str = "") -> Path:
    """The path to read such a file from, or `inside` such a folder: cached or beside the bundle."""
    path = place(bundle, ending) / inside
    return path if path.exists() else _next_to(bundle.resolve(), ending) / inside


def _next_to(folder: Path, ending: str) -> Path:
    return folder.with_name(f"{folder.name}.{ending}")
