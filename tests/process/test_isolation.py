"""Functions in processes of their own: results, steps, and everything known about an error."""

import os
import signal
import subprocess
import sys
import time
import traceback

import psutil
import pytest

from edgepack.cli import main
from edgepack.errors import ResourceError, UnsupportedError
from edgepack.process.isolation import isolated
from edgepack.report import Step, silent


def chatty(step: Step) -> int:
    """Writes more to stderr than a pipe holds, and goes on."""
    step("one")
    for _ in range(200):
        os.write(2, b"x" * 1024)
    step("two")
    return 7


def test_results_and_steps_come_back_however_much_is_written() -> None:
    told: list[str] = []
    assert isolated(chatty, step=told.append) == 7
    assert told == ["one", "two"]


def refuses(step: Step) -> None:
    os.write(2, b"y\n" * 50_000 + b"engine: no kernel for this\n")
    raise UnsupportedError("a: does not work", {"known": 1})


def test_an_error_comes_with_what_the_engine_wrote_and_where_it_arose() -> None:
    with pytest.raises(UnsupportedError, match="a: does not work") as caught:
        isolated(refuses, step=silent)
    assert str(caught.value) == "a: does not work"
    assert caught.value.details["known"] == 1
    words = caught.value.details["stderr"]
    assert words.endswith("engine: no kernel for this")
    assert len(words) <= 8192
    assert "no kernel" in "".join(caught.value.__notes__)
    assert "in refuses" in str(caught.value.__cause__)


class AwkwardError(RuntimeError):
    """Which cannot be made again of its arguments, as some of the engines' own."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)


def fails(step: Step) -> None:
    print("python: half way", file=sys.stderr)
    raise AwkwardError(3, "deep inside")


def test_an_error_that_cannot_be_sent_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="AwkwardError: deep inside") as caught:
        isolated(fails, step=silent)
    assert capfd.readouterr().err == ""
    shown = "".join(traceback.format_exception(caught.value))
    assert "in fails" in shown
    assert "python: half way" in shown


def test_the_command_line_shows_it_when_asked_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edgepack.profiles.target.names", lambda: isolated(refuses, step=silent))
    monkeypatch.delenv("EDGEPACK_DEBUG", raising=False)
    assert main(["targets"]) == 3
    assert capsys.readouterr().err == "edgepack: a: does not work\n"
    monkeypatch.setenv("EDGEPACK_DEBUG", "1")
    assert main(["targets"]) == 3
    shown = capsys.readouterr().err
    assert "in refuses" in shown
    assert "engine: no kernel for this" in shown
    assert shown.endswith("\nedgepack: a: does not work\n")


def crashes(step: Step) -> None:
    os.write(2, b"engine: bad address\n")
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


def test_a_crash_says_what_was_written_last() -> None:
    wanted = "'crashes' ended with code -11: it crashed, after writing 'engine: bad address'; close"
    with pytest.raises(ResourceError, match=wanted) as caught:
        isolated(crashes, step=silent)
    assert caught.value.details["stderr"] == "engine: bad address"


def lingers(step: Step) -> None:
    step(str(os.getpid()))
    time.sleep(60)


def test_where_no_kernel_ends_it_a_thread_does() -> None:
    child = (
        "import sys, time, edgepack.process.interrupts as i; "
        "i.system.die_with_parent = lambda: False; i.end_with(int(sys.argv[1])); "
        "print(i.os.getpid(), flush=True); time.sleep(60)"
    )
    script = (
        "import os, subprocess, sys; "
        f"subprocess.run([sys.executable, '-c', {child!r}, str(os.getpid())])"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        started = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert psutil.wait_procs([started], timeout=5)[1] == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends processes with their parent")
def test_it_ends_with_a_parent_that_is_killed() -> None:
    script = (
        f"import sys; sys.path[:] = {sys.path!r}; import test_isolation; "
        "import edgepack.process.isolation as i; "
        "i.isolated(test_isolation.lingers, step=lambda said: print(said, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    gone, alive = psutil.wait_procs([child], timeout=5)
    assert (gone, alive) == ([child], [])


def killed(step: Step) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def test_a_kill_is_taken_for_memory() -> None:
    with pytest.raises(ResourceError, match="code -9: memory ran out; close other") as caught:
        isolated(killed, step=silent)
    assert caught.value.details == {}
