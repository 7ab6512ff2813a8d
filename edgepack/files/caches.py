"""Where caches are kept on this machine: files that can be made again."""

import functools
import multiprocessing
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from edgepack.process import system
from edgepack.report import note


def folder() -> Path:
    """The folder of this user's caches: that of XDG_CACHE_HOME, or in the home directory.

    Services and containers often have no home directory, or one that is not there: they get a
    temporary folder, and are told so once.
    """
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given, "edgepack")
    with suppress(RuntimeError):  # neither HOME nor an entry in the list of users
        home = Path.home()
        place = home / ".cache" if (home / ".cache").exists() else home
        if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
            return home / ".cache" / "edgepack"
    return _temporary()


@functools.cache
def _temporary() -> Path:
    """A temporary folder that only this user can write to, as its content is trusted."""
    own = Path(tempfile.gettempdir(), f"edgepack-{system.user() or 0}")
    with suppress(FileExistsError):
        own.mkdir(mode=0o700)
    state = own.lstat()
    ours = system.user() in (None, state.st_uid)
    if not stat.S_ISDIR(state.st_mode) or not ours or state.st_mode & 0o022:
        own = Path(tempfile.mkdtemp(prefix="edgepack-"))  # somebody else has that name
    if multiprocessing.parent_process() is None:  # once, not once a process of a build
        note(f"no home directory for caches: they are in {own}; XDG_CACHE_HOME chooses another")
    return own
