"""The names by which clients know bundles: those of their folders."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from edgepack.errors import UsageError


def named_folders(bundles: Iterable[Path]) -> dict[str, Path]:
    """The folders of bundles by name; raises UsageError if two have one."""
    folders = [path.resolve() for path in bundles]
    for name, count in Counter(folder.name for folder in folders).items():
        if count > 1:
            raise UsageError(f"{count} bundles are in folders called {name}; rename one")
    return {folder.name: folder for folder in folders}
