"""What was recorded with the fp32 networks, kept on this machine for the next build."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

_DONE = "done"


def cache_folder(kind: str, key: str) -> Path:
    """Where recordings of a kind and a key are kept (XDG_CACHE_HOME)."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "edgepack", kind, key[:32])


def recorded(kind: str, key: str, record: Callable[[Path], None]) -> Path:
    """The folder of a recording; `record` fills it if it is not there yet.

    It appears whole or not at all.
    """
    target = cache_folder(kind, key)
    if (target / _DONE).is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".recording-") as temporary:
        folder = Path(temporary, "recording")
        folder.mkdir()
        record(folder)
        (folder / _DONE).touch()
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
    return target
