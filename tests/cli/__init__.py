"""Every command, through `edgepack.cli.main` in this process."""

import json
import shutil
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Ran(NamedTuple):
    """How a command line ended, and what it and the processes it started printed."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """All of stdout as one JSON document."""
        return json.loads(self.out)

    @property
    def message(self) -> str:
        """The error: the only line on stderr that does not tell of progress."""
        lines = self.err.splitlines()
        (line,) = [line for line in lines if not line.startswith(("build: ", "verify: "))]
        assert line.startswith("edgepack: ")
        return line.removeprefix("edgepack: ")


Cli = Callable[..., Ran]


def copied(bundle: Path, folder: Path) -> Path:
    """A copy of a bundle, to change."""
    return Path(shutil.copytree(bundle, folder / "bundle"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def samples(path: Path) -> tuple[int, np.ndarray]:
    """Rate and samples of a mono 16-bit wav file, read by another library than wrote it."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        data = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert len(data) == file.getnframes()
        return file.getframerate(), data
