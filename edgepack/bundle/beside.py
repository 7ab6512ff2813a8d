"""Where files about a bundle are: beside it, as bundles are not changed, or in this user's caches.

They are in the caches if nothing can be written beside the bundle, as in a read-only image, or if
the folder above it is a hub's own. What came beside the bundle is read there all the same.
"""

import hashlib
import os
from pathlib import Path

from edgepack import caches, links


def place(bundle: Path, ending: str) -> Path:
    """Where a file `NAME.ending` of a bundle is written; a folder of caches may have to be made."""
    folder = bundle.resolve()
    if not links.of_hub(folder) and os.access(folder.parent, os.W_OK | os.X_OK):
        return _next_to(folder, ending)
    key = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return caches.folder() / "bundles" / f"{folder.name}-{key}.{ending}"


def found(bundle: Path, ending: str, inside: str = "") -> Path:
    """Where it, or a file `inside` such a folder, is read: where it is written, or came from."""
    path = place(bundle, ending) / inside
    return path if path.exists() else _next_to(bundle.resolve(), ending) / inside


def _next_to(folder: Path, ending: str) -> Path:
    return folder.with_name(f"{folder.name}.{ending}")
