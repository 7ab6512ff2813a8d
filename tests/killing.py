"""Commands that get a signal at a chosen change below a folder, or after a chosen time.

An audit hook in every process of a command counts changes below the folder (`WATCHED`). At the one
that is chosen, the first process or all of them get the signal.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

HOOK = """
import os, sys
watched, counter = os.environ["KILL_WATCH"], os.environ["KILL_COUNT"]
fatal, number = int(os.environ["KILL_AT"]), int(os.environ["KILL_SIGNAL"])
kill = os.kill if os.environ["KILL_ALONE"] else os.killpg
first = os.getpgrp()  # it leads the group
tally = os.open(counter, os.O_WRONLY | os.O_APPEND)
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate",
           "shutil.rmtree", "shutil.copyfile", "shutil.move"}
WRITES = os.O_WRONLY | os.O_RDWR

def hook(event, arguments):
    if event == "import" and arguments[0] == "edgepack.cli" and os.getpid() == first:
        os.close(os.open(f"{counter}.begun", os.O_CREAT | os.O_WRONLY))
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, int) or not (flags or 0) & WRITES:
            return
    elif event not in CHANGES:
        return
    if not any(isinstance(a, (str, bytes, os.PathLike)) and
               os.path.abspath(os.fsdecode(a)).startswith(watched) for a in arguments[:2]):
        return
    os.write(tally, b".")
    if fatal and os.fstat(tally).st_size == fatal:
        kill(first, number)

sys.addaudithook(hook)
"""


@dataclass(frozen=True)
class Shot:
    """A signal to all processes of a command or the first `alone`: at a change, or after a time.

    `change` counts from 1; 0 is none. `seconds` are from the command's start, or, if `begun`, from
    the moment when its code runs (before, Python itself ends in its own way).
    """

    number: signal.Signals = signal.SIGKILL
    alone: bool = False
    change: int = 0
    seconds: float | None = None
    begun: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its code, its lines on stderr, changes, seconds.

    `lasting` are the seconds that the last of its processes went on after it.
    """

    code: int
    lines: Sequence[str]
    changes: int
    seconds: float
    lasting: float


def run(
    hooked: Path,
    arguments: Sequence[object],
    watched: Path,
    shot: Shot | None = None,
    variables: Mapping[str, str] | None = None,
) -> Outcome:
    """Run a command, which may be shot."""
    counter = watched.with_name(f"{watched.name}.count")
    begun = counter.with_name(f"{counter.name}.begun")
    counter.write_bytes(b"")
    begun.unlink(missing_ok=True)
    shot = shot or Shot()
    environment = {
        **os.environ,
        **(variables or {}),
        "PYTHONPATH": os.pathsep.join([str(hooked), os.environ.get("PYTHONPATH", "")]),
        "KILL_WATCH": str(watched),
        "KILL_COUNT": str(counter),
        "KILL_AT": str(shot.change),
        "KILL_SIGNAL": str(int(shot.number)),
        "KILL_ALONE": "1" if shot.alone else "",
    }
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "edgepack", *map(str, arguments), "--quiet"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # A shell's background job, which tests may run in, ignores it; so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    if shot.seconds is not None:
        while shot.begun and process.poll() is None and not begun.exists():
            time.sleep(0.001)
        with suppress(subprocess.TimeoutExpired):
            process.wait(shot.seconds)
        with suppress(ProcessLookupError):
            if process.poll() is None:
                (os.kill if shot.alone else os.killpg)(process.pid, shot.number)
    code = process.wait()
    end = time.perf_counter()
    lasting = _ended(process.pid)
    assert process.stderr
    lines = process.stderr.read().decode().splitlines()
    process.stderr.close()
    return Outcome(
        code, [line for line in lines if line], counter.stat().st_size, end - start, lasting
    )


def _ended(session: int) -> float:
    """Wait until no process of a session is left, at most 5 s; the seconds it took."""
    start = time.perf_counter()
    while left := [p for p in psutil.pids() if _of(p, session)]:
        assert time.perf_counter() < start + 5, [psutil.Process(p).cmdline() for p in left]
        time.sleep(0.01)
    return time.perf_counter() - start


def _of(process: int, session: int) -> bool:
    with suppress(ProcessLookupError, PermissionError, psutil.Error):
        if os.getsid(process) == session:
            return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    return False
