"""Access to a machine: its files, its clock and its programs, which tests replace."""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.errors import UnsupportedError


class UnusableError(UnsupportedError):
    """Why a meter cannot be used on this machine, with what to do about it if anything helps."""


def run_program(command: Sequence[str]) -> str:
    """The standard output of a program; raises UnusableError if it fails or takes two seconds."""
    try:
        done = subprocess.run(  # noqa: S603 (absolute path, fixed arguments)
            command, check=True, capture_output=True, text=True, timeout=2
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UnusableError(f"{Path(command[0]).name}: {error}") from None
    return done.stdout


@dataclass(frozen=True)
class Machine:
    """The machine to be measured; tests give another root, clock and programs."""

    root: Path = Path("/")
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    program: Callable[[Sequence[str]], str] = run_program

    def text(self, path: str | Path) -> str | None:
        """A file's text, stripped; None if it is not there. UnusableError if it may not be read."""
        full = self.root / str(path).lstrip("/")
        try:
            return full.read_text("utf-8").strip()
        except PermissionError:
            raise UnusableError(f"{path}: no permission to read it") from None
        except (OSError, UnicodeError):
            return None

    def number(self, path: str | Path) -> int | None:
        """A file that holds one whole number; None if it is not there or holds something else."""
        text = self.text(path)
        try:
            return int(text) if text else None
        except ValueError:
            return None

    def paths(self, pattern: str) -> list[Path]:
        """Absolute paths that match below the root, as seen from there, sorted."""
        found = sorted(self.root.glob(pattern.lstrip("/")))
        return [Path("/") / path.relative_to(self.root) for path in found]
