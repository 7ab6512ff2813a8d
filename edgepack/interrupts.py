"""SIGTERM and Ctrl-C end a program in the same way, and what it has started ends with it."""

import ctypes
import os
import signal
import sys
from types import FrameType

_BOTH = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1
_AGAIN_SECONDS = 0.01

MESSAGE = "interrupted; nothing was left half-written"

_came = False


def listen() -> None:
    """Make both signals raise KeyboardInterrupt in this program, unless it was told to ignore them.

    An interrupt can come where it is turned into another error (while an engine is imported):
    `came` knows of it still. Where Python would drop it with a traceback (in a destructor), it
    comes again a moment later.
    """
    for number in _BOTH:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _interrupt)
        sys.unraisablehook = _dropped


def _dropped(lost: "sys.UnraisableHookArgs") -> None:
    if issubclass(lost.exc_type, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
    else:
        sys.__unraisablehook__(lost)


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _came
    _came = True
    raise KeyboardInterrupt


def came() -> bool:
    """Whether there was one."""
    return _came


def over() -> None:
    """From now on neither signal does anything: the program has its result, and is ending."""
    for number in (*_BOTH, *([signal.SIGALRM] if hasattr(signal, "setitimer") else [])):
        signal.signal(number, signal.SIG_IGN)


def end_with(parent: int) -> None:
    """Let this process be killed when its parent (a process id) ends, however that ends.

    Only Linux can do so. The parent is more exactly the thread that started this process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before
            os.kill(os.getpid(), signal.SIGKILL)
