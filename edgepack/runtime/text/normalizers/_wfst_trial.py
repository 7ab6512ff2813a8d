"""Whether a grammar file may be opened: a damaged one crashes kaldifst or uses up the memory.

The grammars of the package wetext are known by their SHA-256. `grammars.sha256` has them as
`sha256sum` prints them; for another version of the package, add the lines of

    cd site-packages/wetext/fsts && sha256sum {zh,en,ja}/tn/{tagger,verbalizer}.fst

Other files are tried in a process of their own, which may crash.
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from edgepack.errors import IntegrityError
from edgepack.process import interrupts, system

_MEMORY_BYTES, _CPU_SECONDS, _WALL_SECONDS = 2 << 30, 10, 30
_SENTENCES = (
    "2024年5月6日12:30，3/4的人跑了5kg、-3、1,234.5、$12.50、￥128，电话090-1234-5678，约5%。",
    'On Jan. 5th, 2024 at 3:15 PM it cost $12.50, or 1,234.5 kg: "a\\b" <c> {d} x_y -3 1/2 50%.',
)


@cache
def known() -> frozenset[str]:
    """SHA-256 of every grammar that is opened without a trial."""
    lines = (resources.files(__package__) / "grammars.sha256").read_text("ascii").splitlines()
    return frozenset(line.split()[0] for line in lines if line and not line.startswith("#"))


def check(locale: str, files: Sequence[Path]) -> None:
    """Raise IntegrityError for a tagger and a verbaliser that cannot be opened and read with.

    Raises UnsupportedError for unknown files on systems where a process cannot be limited.
    """
    try:
        unknown = [file for file in files if _sha256(file) not in known()]
    except OSError as error:
        raise IntegrityError(f"{error.filename}: kaldifst cannot read it: {error}") from None
    if unknown:
        system.require_limits(unknown[0])
    if unknown and (reason := _failure(locale, files)):
        raise IntegrityError(
            f"{unknown[0]}: kaldifst cannot read it: {reason}; take the file of the package wetext"
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _failure(locale: str, files: Sequence[Path]) -> str | None:
    """How a process that opens the files and reads with them failed, or None."""
    command = [sys.executable, "-m", __name__, str(os.getpid()), locale, *map(str, files)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        tried = subprocess.run(  # noqa: S603 - this interpreter and this module
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it was not done after {_WALL_SECONDS} s"
    if tried.returncode < 0:
        return f"it crashed (signal {-tried.returncode})"
    last = tried.stderr.decode(errors="replace").strip().splitlines()[-1:]
    return "".join(last) or "it failed" if tried.returncode else None


def _main(parent: str, locale: str, *files: str) -> None:
    """Open the files and read with them, within limits of memory and time."""
    interrupts.end_with(int(parent))
    system.limit(memory=_MEMORY_BYTES, seconds=_CPU_SECONDS)
    from edgepack.runtime.text.normalizers._wfst_grammar import grammar

    read = grammar(locale, [Path(file) for file in files])
    for sentence in _SENTENCES:
        read(sentence)


if __name__ == "__main__":
    _main(*sys.argv[1:])
