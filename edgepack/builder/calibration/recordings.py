"""A cache of recordings made with the fp32 networks, for the next build on this machine."""

import functools
import hashlib
import shutil
from collections.abc import Callable
from contextlib import suppress
from importlib import resources
from pathlib import Path

from edgepack.files import atomic, caches

_DONE = "done"


def cache_folder(kind: str, key: str) -> Path:
    """Where recordings of a kind and a key are kept."""
    return caches.folder() / kind / key[:32]


def recorded(kind: str, key: str, record: Callable[[Path], None]) -> Path:
    """The folder of a recording; `record` fills it if it is not there yet.

    It appears whole or not at all. The key includes a hash of edgepack's code, as another version
    might record something else.
    """
    target = cache_folder(kind, hashlib.sha256(f"{key} {_code()}".encode()).hexdigest())
    if (target / _DONE).is_file():
        return target
    with atomic.temporary_folder(target) as folder:
        record(folder)
        (folder / _DONE).touch()
        if not (target / _DONE).is_file():
            shutil.rmtree(target, ignore_errors=True)
            with suppress(OSError):  # another process was faster, and somebody may read its own
                folder.rename(target)
    return target


@functools.cache
def _code() -> str:
    """Hash of every module of this package."""
    digest = hashlib.sha256()
    folder = Path(str(resources.files("edgepack")))
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()
