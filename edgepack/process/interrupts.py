"""SIGTERM and Ctrl-C end a program in the same way, and what it has started ends with it."""

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

from edgepack import system

_BOTH = (signal.SIGINT, signal.SIGTERM)
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
    if sys.platform != "win32":
        signal.signal(signal.SIGALRM, _interrupt)
        sys.unraisablehook = _dropped


def _dropped(lost: "sys.UnraisableHookArgs") -> None:
    if sys.platform != "win32" and issubclass(lost.exc_type, KeyboardInterrupt):
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
    for number in _BOTH:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


def end_with(parent: int) -> None:
    """Let this process be killed when its parent (a process id) ends, however that ends.

    Linux does so by itself, for the thread that started this process; elsewhere a thread waits.
    """
    if not system.die_with_parent():
        waiting = threading.Thread(target=_outlive, args=[parent], name="edgepack-parent")
        waiting.daemon = True
        waiting.start()
    elif os.getppid() != parent:  # it ended before
        _end()


def _outlive(parent: int) -> None:
    import psutil

    with suppress(psutil.NoSuchProcess):  # it ended before
        psutil.Process(parent).wait()
    _end()


def _end() -> None:
    import psutil

    psutil.Process().kill()
