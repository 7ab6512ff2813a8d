"""SIGTERM and Ctrl-C end a program in the same way, and what it has started ends with it."""

import ctypes
import os
import signal
import sys
from types import FrameType

_BOTH = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1

MESSAGE = "interrupted; nothing was left half-written"

_came = False


def listen() -> None:
    """Make both signals raise KeyboardInterrupt in this program, unless it was told to ignore them.

    An interrupt can come where Python or an engine turns it into another error, or drops it with a
    traceback (in a destructor, a callback): `came` knows of it still.
    """
    for number in _BOTH:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    shown = sys.unraisablehook
    sys.unraisablehook = lambda lost: (
        None if lost.exc_type and issubclass(lost.exc_type, KeyboardInterrupt) else shown(lost)
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _came  # noqa: PLW0603 (there is one program in a process)
    _came = True
    raise KeyboardInterrupt


def came() -> bool:
    """Whether there was one."""
    return _came


def over() -> None:
    """From now on neither signal does anything: the program has its result, and is ending."""
    for number in _BOTH:
        signal.signal(number, signal.SIG_IGN)


def end_with(parent: int) -> None:
    """Let this process be killed when its parent (a process id) ends, however that ends.

    Only Linux can do so. The parent is more exactly the thread that started this process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before
            os.kill(os.getpid(), signal.SIGKILL)
