"""SIGTERM and Ctrl-C end a program in the same way, and its child processes end with it."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from edgepack.process import system

_BOTH = (signal.SIGINT, signal.SIGTERM)
_AGAIN_SECONDS = 0.01

MESSAGE = "interrupted; nothing was left half-written"

_came = False


def listen() -> None:
    """Make both signals raise KeyboardInterrupt in this program, unless it was told to ignore them.

    A library may turn the interrupt into another error, as some do while they are imported; `came`
    tells that there was one. Where Python would only print it (in a destructor), it is raised again
    a moment later.
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
    """Whether there was an interrupt, even if it became another error."""
    return _came


@contextmanager
def telling(call: Callable[[], None]) -> Iterator[None]:
    """A block during which either signal also calls `call`, at once and from another thread.

    Python itself raises KeyboardInterrupt only after the library call that the main thread is in,
    which may take seconds. Only the main thread gets signals; in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    listening = threading.Thread(target=_tell, args=[reader, call], name="edgepack-signals")
    listening.daemon = True
    listening.start()
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()  # which ends the thread
        listening.join()
        reader.close()


def _tell(reader: socket.socket, call: Callable[[], None]) -> None:
    while came := reader.recv(1):  # the number of a signal
        if came[0] in _BOTH:
            call()


def over() -> None:
    """Ignore both signals from now on: the program has its result, and is ending."""
    for number in _BOTH:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


def end_with(parent: int) -> None:
    """Let this process be killed when its parent (a process id) ends, however that ends.

    On Linux the kernel does that when the thread that started this process ends. Elsewhere a thread
    of this process waits for the parent.
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
