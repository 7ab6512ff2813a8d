"""Where links in a downloaded folder may lead: into the folder, or into its hub cache's blobs.

Hubs keep what they download as REPOSITORY/snapshots/REVISION/NAME, a link to REPOSITORY/blobs/HASH,
and that may be one to a blob that repositories of the cache share, CACHE/blobs/HA/HASH, called
after its content. A folder of files may be such a snapshot, or below one.
Source: huggingface_hub, "Understand caching".
"""

import re
from pathlib import Path

_SHARED = re.compile("[0-9a-f]{64}")  # a blob that repositories share


def stays(path: Path, folder: Path) -> bool:
    """Whether a path is in `folder` also after following links, or a blob of its hub's cache.

    Raises OSError or RuntimeError for links that lead nowhere or in circles.
    """
    root, found = folder.resolve(), path.resolve()
    return found.is_relative_to(root) or _is_blob(found, root)


def of_hub(folder: Path) -> bool:
    """Whether a folder is in the cache of a hub, which others share and nobody may change."""
    repository = _repository(folder.resolve())
    return repository is not None and _is_folder(repository / "blobs")


def _is_blob(found: Path, root: Path) -> bool:
    """Whether a file is a blob of the cache that `root` is a snapshot in; both are resolved.

    A blob of the same repository, or one that repositories share. To link to a shared one, its
    SHA-256 has to be known, so a link gives away nothing that its writer did not know.
    """
    repository = _repository(root)
    if repository is None:
        return False
    own, shared = repository / "blobs", repository.parent / "blobs"
    if found.parent == own:
        return _is_folder(own)
    named = _SHARED.fullmatch(found.name) and found.parent == shared / found.name[:2]
    return bool(named) and _is_folder(shared)


def _is_folder(path: Path) -> bool:
    """Whether it is a folder itself: one that is a link could be any folder."""
    return path.is_dir() and not path.is_symlink()


def _repository(root: Path) -> Path | None:
    """The repository whose snapshot a folder is, or is in; None for any other folder."""
    for above in (root, *root.parents):
        if above.parent.name == "snapshots":
            return above.parent.parent
    return None
