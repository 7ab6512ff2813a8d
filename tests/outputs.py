"""Places to write to that are no files in a folder of one's own."""

import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def device(path: Path, minor: int) -> Path:
    """A device of memory like the system's: 3 is null, 7 is full."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        path.open("wb").close()
    except PermissionError:
        pytest.skip("only root makes devices, where they work")
    return path


class Pipe:
    """A named pipe, and what its reader has heard when the block ends."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self.heard = b""

    def _listen(self) -> None:
        self.heard = self.path.read_bytes()

    def __enter__(self) -> "Pipe":
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._reader.join(0 if any(error) else 30)
        assert any(error) or not self._reader.is_alive()  # nobody wrote
        assert self.path.is_fifo()


@contextmanager
def unchangeable(path: Path) -> Iterator[None]:
    """A file that may not be written to, or a folder in which nothing may be changed."""
    mode = path.stat().st_mode
    root = os.geteuid() == 0
    if root:
        tool = shutil.which("chattr")
        if not tool or subprocess.run([tool, "+i", path], capture_output=True).returncode:
            pytest.skip("root may change everything on this file system")
    else:
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        if root:
            subprocess.run(["chattr", "-i", path], check=True)
        else:
            path.chmod(mode)
