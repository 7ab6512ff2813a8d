"""Readers of files from outside over changed files, for a time or a number of inputs.

    python -m fuzz --seconds 60              every reader, together 60 s
    python -m fuzz --runs 100000 manifest    one of them, so many inputs
    python -m fuzz manifest --file FILE      once, with the input that a run wrote

Exits with 1 if any reader failed; the inputs it failed at are in the folder `--found`.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from fuzz.readers import CORPUS, READERS

_MEMORY = Path("/dev/shm")  # a file is written there in a hundredth of the time
_LONGEST_BYTES = 1 << 16  # of an input
_HANGS_SECONDS = 60  # of wall time, on a busy machine; processor time is limited in `fuzz.one`
_SHARE_IN_CHILDREN = 100
_LAST_LINES = 25


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help=", ".join(READERS))
    parser.add_argument("--seconds", type=int, default=60, help="of all readers together")
    parser.add_argument("--runs", type=int, help="inputs of each reader, in place of a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2, help="readers at once")
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"))
    parser.add_argument("--file", type=Path, help="the only input")
    found = parser.parse_args(arguments)
    found.readers = found.readers or list(READERS)
    if unknown := set(found.readers) - READERS.keys():
        parser.error(f"no reader {min(unknown)!r}; there are {', '.join(READERS)}")
    return found


def ran(name: str, asked: argparse.Namespace) -> tuple[bool, str]:
    """Whether a reader passed, and a line about it, or several if it did not."""
    asked.found.mkdir(parents=True, exist_ok=True)
    prefix = f"{asked.found.resolve()}/{name}-"
    memory = str(_MEMORY) if _MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="edgepack-fuzz-", dir=memory) as scratch:
        read, kept = Path(scratch) / "read", Path(scratch) / "kept"
        read.mkdir()
        kept.mkdir()
        limits = [f"-timeout={_HANGS_SECONDS}", "-rss_limit_mb=0", f"-max_len={_LONGEST_BYTES}"]
        if asked.file:
            work = [str(asked.file.resolve())]
        elif asked.runs:
            fewer = _SHARE_IN_CHILDREN if READERS[name].in_children else 1
            work = [f"-runs={asked.runs // fewer}", str(kept), str(CORPUS / name)]
        else:
            share = max(1, round(asked.seconds / len(asked.readers)))
            work = [f"-max_total_time={share}", str(kept), str(CORPUS / name)]
        command = [
            sys.executable, "-m", "fuzz.one", name, str(read), f"-seed={asked.seed}",
            f"-artifact_prefix={prefix}", "-print_final_stats=1", *limits, *work,
        ]  # fmt: skip
        done = subprocess.run(command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE)
    words = done.stdout.decode(errors="replace")
    if done.returncode:
        return False, failure(name, done.returncode, words)
    figures = dict(re.findall(r"^stat::(\w+): +(\d+)", words, re.MULTILINE))
    return True, (
        f"{name}: {int(figures.get('number_of_executed_units', 1)):,} inputs, slowest "
        f"{figures.get('slowest_unit_time_sec', '0')} s, {figures.get('peak_rss_mb', '?')} MB"
    )


def failure(name: str, code: int, words: str) -> str:
    """What a reader failed with, where the input is, and how to read it again."""
    last = "\n".join(words.strip().splitlines()[-_LAST_LINES:])
    line = f"{name}: FAILED (exit code {code})"
    if written := re.search(r"Test unit written to (\S+)", words):
        line += f"; the input is {written[1]}; again: python -m fuzz {name} --file {written[1]}"
    return f"{last}\n{line}"


def main(arguments: Sequence[str]) -> int:
    """Run readers side by side; 1 if one failed."""
    asked = options(arguments)
    passed = True
    with ThreadPoolExecutor(asked.jobs) as pool:
        for done in as_completed(pool.submit(ran, name, asked) for name in asked.readers):
            well, line = done.result()
            print(line, flush=True)
            passed = passed and well
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
