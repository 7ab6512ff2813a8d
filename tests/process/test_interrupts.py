"""A signal ends a program in one line, wherever it arrives."""

import subprocess
import sys

import pytest

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
from edgepack import target
def names():
    try:
        signal.raise_signal(NUMBER)
    except KeyboardInterrupt:
        raise ImportError("initialization failed") from None
target.names = names
""",
    "a destructor drops it": """
from edgepack import target
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
