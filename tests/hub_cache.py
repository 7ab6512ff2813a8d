"""Folders as a hub's cache has them: links to blobs that are named by their hash."""

import hashlib
import os
import shutil
from pathlib import Path

REVISION = "0123456789abcdef0123456789abcdef01234567"


def snapshot_of(folder: Path, cache: Path) -> Path:
    """A copy of a folder as a snapshot in a Hugging Face cache."""
    repository = cache / f"models--someone--{folder.name}"
    snapshot, blobs = repository / "snapshots" / REVISION, repository / "blobs"
    blobs.mkdir(parents=True)
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        blob = blobs / hashlib.sha256(path.read_bytes()).hexdigest()
        if not blob.exists():
            shutil.copyfile(path, blob)
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot
