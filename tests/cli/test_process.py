"""What only a process of its own shows: signals, pipes, terminals, encodings."""

import json
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from support import RUNTIMES, Build

from edgepack.bundle.bundle import Bundle
from edgepack.runtime.synthesizer import Synthesizer

EDGEPACK = [sys.executable, "-m", "edgepack"]
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-8]|4[0-8]|9[0-7])[;m]")


def edgepack(*arguments: object, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    command = [*EDGEPACK, *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run(command, check=False, **options)


def environment(**changes: str) -> dict[str, str]:
    """Ours, as a user's shell would have it."""
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "PYTHONUNBUFFERED")}
    return {**kept, **changes}


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_no_error(unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    env = environment(PYTHONUNBUFFERED=unbuffered)
    ran = edgepack("targets", "--json", stdout=write, env=env)
    os.close(write)
    assert (ran.returncode, ran.stderr) == (0, b"")


@pytest.mark.parametrize("arguments", [["targets"], ["targets", "--json"], ["nope", "--json"]])
def test_a_full_disk_below_stdout_is_one_line(arguments: Sequence[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = edgepack(*arguments, stdout=full, env=environment())
    assert ran.returncode == (2 if "nope" in arguments else 5)
    assert ran.stderr.count(b"\n") == 1
    assert ran.stderr.startswith(b"edgepack: ")


def test_closed_streams_are_no_bugs(bundle: Build) -> None:
    quiet = subprocess.run([*EDGEPACK, "targets"], preexec_fn=lambda: os.close(1), check=False)
    assert quiet.returncode == 0
    ran = edgepack("run", bundle("tiny"), "-", preexec_fn=lambda: os.close(0))
    assert ran.returncode == 2
    assert b"nothing to speak" in ran.stderr


def test_input_that_is_not_utf8_is_a_usage_error(bundle: Build) -> None:
    ran = edgepack("run", bundle("tiny"), "-", input=b"\xff\xfe")
    assert ran.returncode == 2
    assert ran.stderr == (
        b"edgepack: standard input: not UTF-8 text; convert it first, such as with "
        b"'iconv -f UTF-16 -t UTF-8'\n"
    )


def test_names_that_stdout_cannot_encode_are_escaped() -> None:
    ran = edgepack("run", "你\udcff", "hello", "--json", env=environment(PYTHONIOENCODING="ascii"))
    assert ran.returncode == 2
    assert json.loads(ran.stdout)["error"]["message"].startswith("你\\udcff: no bundle there")


@pytest.mark.parametrize("name", ["é", "😀"])
def test_a_document_is_json_whatever_stdout_encodes(name: str) -> None:
    ran = edgepack("run", name, "hello", "--json", env=environment(PYTHONIOENCODING="latin-1"))
    assert json.loads(ran.stdout)["error"]["message"].startswith(f"{name}: no bundle there")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_engines_say_nothing_between_the_lines(
    int8_demo: Bundle, tmp_path: Path, runtime: str
) -> None:
    output = tmp_path / "a.wav"
    ran = edgepack("run", int8_demo.folder, "好的。", "-o", output, "--format", runtime)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_the_library_leaves_the_process_as_it_is(
    int8_demo: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading and speaking: no descriptor is replaced, no variable set, no logger turned down."""
    import onnxruntime

    changed: list[object] = []
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    before = dict(os.environ), logging.root.manager.disable, list(warnings.filters)
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup2", lambda *which: changed.append(which))
        patch.setattr(onnxruntime, "set_default_logger_severity", changed.append)
        for runtime in RUNTIMES:
            Synthesizer.load(int8_demo.folder, runtime, 1).speak("好的。")
    assert changed == []
    assert (dict(os.environ), logging.root.manager.disable, list(warnings.filters)) == before


def interrupted(
    arguments: Sequence[str], moment: str, number: signal.Signals, *, alone: bool
) -> tuple[int, str]:
    """Interrupt when the first child process is there, or when a line of progress has come.

    ^C and a service that is stopped reach every process, `kill` the first one `alone`.
    """
    command = [*EDGEPACK, *arguments]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background job, which tests may run in, ignores it; so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr
    seen = ""
    if moment == "importing":
        while not any("spawn_main" in str(p) for p in command_lines(process.pid)):
            time.sleep(0.01)
        time.sleep(0.2)
    else:
        while moment not in seen:
            seen += process.stderr.readline()
    started = psutil.Process(process.pid).children(recursive=True)
    (os.kill if alone else os.killpg)(process.pid, number)
    seen += process.stderr.read()
    code = process.wait()
    _, orphans = psutil.wait_procs(started, timeout=5)
    assert not orphans
    return code, seen


def command_lines(parent: int) -> list[list[str]]:
    found = []
    for child in psutil.Process(parent).children():
        with suppress(psutil.Error):  # it has ended since
            found.append(child.cmdline())
    return found


@pytest.mark.parametrize(
    ("number", "alone", "moment"),
    [
        (signal.SIGINT, False, "importing"),
        (signal.SIGINT, False, "writing speech_lm"),
        (signal.SIGTERM, False, "writing speech_lm"),
        (signal.SIGTERM, True, "importing"),
    ],
    ids=["^C early", "^C", "stopped", "kill early"],
)
def test_an_interrupt_ends_a_build_in_one_line(
    tmp_path: Path, number: signal.Signals, moment: str, *, alone: bool
) -> None:
    build = ["build", "demo", "-t", "intel-cpu", "-o", str(tmp_path)]
    code, seen = interrupted(build, moment, number, alone=alone)
    lines = [line for line in seen.splitlines() if line and not line.startswith("build: ")]
    assert code == 5
    assert lines == ["edgepack: interrupted; nothing was left half-written"]
    assert not any(tmp_path.iterdir())


def test_an_interrupt_ends_a_benchmark_in_one_line(bundle: Build, tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    bench = ["bench", str(bundle("demo")), "-o", str(out), "--energy", "none"]
    code, seen = interrupted(bench, "importing", signal.SIGTERM, alone=False)
    lines = [line for line in seen.splitlines() if line and not line.startswith("bench: ")]
    assert code == 5
    assert lines == ["edgepack: interrupted; nothing was left half-written"]
    assert not any(tmp_path.iterdir())


def on_a_terminal(arguments: Sequence[object], env: dict[str, str]) -> str:
    """What a command shows on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    command = [*EDGEPACK, *map(str, arguments)]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 1 << 16):
                shown += data
        except OSError:  # how Linux says that the other end was closed
            pass
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


def test_no_color_is_honoured_on_a_terminal(bundle: Build, tmp_path: Path) -> None:
    speak = ["run", bundle("demo"), "Hello.", "-o", tmp_path / "a.wav"]
    terminal = {"TERM": "xterm-256color", "COLUMNS": "80"}
    assert COLOUR.search(on_a_terminal(speak, environment(**terminal)))
    assert not COLOUR.search(on_a_terminal(speak, environment(**terminal, NO_COLOR="1")))


def test_nothing_is_styled_when_stdout_is_a_file(bundle: Build) -> None:
    terminal = environment(TERM="xterm-256color", COLUMNS="80")
    for arguments in (["voice", "list", bundle("demo")], ["verify", bundle("tiny"), "--help"]):
        assert b"\x1b" not in edgepack(*arguments, env=terminal).stdout
