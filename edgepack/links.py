"""Where links in a folder from outside may lead: into the folder, or its hub cache's blobs.

Hubs keep what they download as REPOSITORY/snapshots/REVISION/NAME, a link to REPOSITORY/blobs/HASH.
A folder of files may be such a snapshot, or below one.
"""

from pathlib import Path


def stays(path: Path, folder: Path) -> bool:
    """Whether a path is in `folder` also after following links, or a blob of its repository.

    Raises OSError or RuntimeError for links that lead nowhere or in circles.
    """
    root, found = folder.resolve(), path.resolve()
    return found.is_relative_to(root) or found.parent == _blobs(root)


def of_hub(folder: Path) -> bool:
    """Whether a folder is in the cache of a hub, which others share and nobody may change."""
    return _blobs(folder.resolve()) is not None


def _blobs(root: Path) -> Path | None:
    """Where the files of a snapshot are in a hub's cache; None for any other folder.

    Source: huggingface_hub, "Understand caching". `root` is resolved, and so has to be what it
    returns: a folder of blobs that is a link could be any folder.
    """
    for above in (root, *root.parents):
        if above.parent.name == "snapshots":
            blobs = above.parent.parent / "blobs"
            return blobs if blobs.is_dir() and not blobs.is_symlink() else None
    return None
