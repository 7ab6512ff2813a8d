"""A signal ends a program in one line, wherever it arrives."""

import signal
import subprocess
import sys
import threading

import pytest

from edgepack.process import interrupts

LINE = "edgepack: interrupted; nothing was left half-written\n"
WHERE = {
    "importing": """
class Finder:
    def find_spec(self, name, *rest):
        if name == "click":
            signal.raise_signal(NUMBER)
sys.meta_path.insert(0, Finder())
""",
    "an engine makes another error of it": """
from edgepack.profiles import target
def names():
    try:
        signal.raise_signal(NUMBER)
    except KeyboardInterrupt:
        raise ImportError("initialization failed") from None
target.names = names
""",
    "a destructor drops it": """
from edgepack.profiles import target
class Dropping:
    def __del__(self):
        signal.raise_signal(NUMBER)
def names():
    Dropping()
    time.sleep(60)
target.names = names
""",
    "it is ending": """
import atexit
atexit.register(lambda: signal.raise_signal(NUMBER))
""",
}


TELLING = """
import hashlib, os, signal, sys, threading, time
from edgepack.process import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
interrupts.listen()
begun = time.monotonic()
def later():
    time.sleep(0.3)
    os.kill(os.getpid(), signal.NUMBER)
def tell():
    print("told", time.monotonic() - begun, threading.current_thread().name, flush=True)
try:
    with interrupts.telling(tell):
        threading.Thread(target=later).start()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 8_000_000)  # a library that goes on for seconds
        print("went on")
except KeyboardInterrupt:
    print("raised", time.monotonic() - begun)
assert "edgepack-signals" not in {t.name for t in threading.enumerate()}
assert signal.set_wakeup_fd(-1) == -1
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_somebody_is_told_while_the_main_thread_is_in_a_library(number: str) -> None:
    script = TELLING.replace("NUMBER", number)
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    told, raised = (line.split() for line in ran.stdout.splitlines())
    assert (told[0], told[2], raised[0]) == ("told", "edgepack-signals", "raised")
    assert float(told[1]) < float(raised[1]) - 0.5


def test_in_another_thread_nobody_is_told() -> None:
    def work() -> None:
        with interrupts.telling(lambda: None):
            done.append(signal.getsignal(signal.SIGINT))

    done: list[object] = []
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [before]


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("where", WHERE)
def test_one_line_wherever_it_comes(where: str, number: str) -> None:
    script = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        + WHERE[where].replace("NUMBER", f"signal.{number}")
        + "from edgepack.__main__ import entry\nentry()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, "targets", "--json"],
        capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    if where == "it is ending":
        assert (ran.returncode, ran.stderr) == (0, "")
    else:
        assert (ran.returncode, ran.stderr.lstrip("\n")) == (5, LINE)
