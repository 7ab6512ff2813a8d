"""Ending a request early, from any thread.

A thread that works for a request has the request's `Cancellation` as its current one (`working`).
Loops look at it between their steps (`check`), waits for a lock go on looking (`holding`), and a
call of an engine says how it can be ended (`interruptible`). So the parts of a synthesis need not
hand a token on to each other, and do nothing of this where there is none.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol
from weakref import WeakSet

from edgepack.errors import CancelledError

_WAIT_SECONDS = 0.05  # for a lock, before looking whether the request was cancelled


class Cancellation:
    """What ends the requests that were given it. Any thread may call `cancel`, any number of times.

    With a `parent` it is also cancelled when that is, but not the other way round.
    """

    def __init__(self, parent: "Cancellation | None" = None) -> None:
        self._cancelled = threading.Event()
        # Of `_interrupts`, and held while they are called: none comes after its block.
        self._lock = threading.RLock()
        self._interrupts: dict[object, Callable[[], None]] = {}
        self._children: WeakSet[Cancellation] = WeakSet()
        if parent is not None:
            with parent._lock:
                parent._children.add(self)
            if parent.cancelled:
                self.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """End what works under it, soon; does not wait for that.

        Whoever asked for speech gets CancelledError.
        """
        self._cancelled.set()
        with self._lock:
            for interrupt in list(self._interrupts.values()):
                interrupt()
            children = list(self._children)
        for child in children:
            child.cancel()

    def raise_if(self) -> None:
        """Raise CancelledError if it was cancelled."""
        if self.cancelled:
            raise CancelledError("cancelled; nothing more is spoken")

    @contextmanager
    def interrupting(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """A block that `interrupt` tells to end, from the thread that cancels, and never after it.

        It is called at once if this is cancelled already. It must neither wait nor fail.
        """
        key = object()
        with self._lock:
            self._interrupts[key] = interrupt
            if self.cancelled:
                interrupt()
        try:
            yield
        finally:
            with self._lock:
                del self._interrupts[key]


class _Lock(Protocol):
    """A lock of `threading`."""

    def acquire(self, blocking: bool = ..., timeout: float = ..., /) -> bool: ...

    def release(self) -> None: ...


_current: ContextVar[Cancellation | None] = ContextVar("edgepack_cancellation", default=None)


def current() -> Cancellation | None:
    """What ends the work of this thread, if anything does."""
    return _current.get()


@contextmanager
def working(token: Cancellation | None) -> Iterator[None]:
    """A block that is work under a token; None leaves the current one."""
    if token is None:
        yield
        return
    before = _current.set(token)
    try:
        yield
    finally:
        _current.reset(before)


def check() -> None:
    """Raise CancelledError if the work of this thread was cancelled."""
    if (token := _current.get()) is not None:
        token.raise_if()


@contextmanager
def interruptible(interrupt: Callable[[], None]) -> Iterator[None]:
    """One call of an engine, which `interrupt` ends from another thread.

    Raises CancelledError if the work was cancelled before the call, or during it: whatever error
    the engine makes of that, and also if the call was too near its end.
    """
    token = _current.get()
    if token is None:
        yield
        return
    token.raise_if()
    try:
        with token.interrupting(interrupt):
            yield
    except Exception:
        token.raise_if()
        raise
    token.raise_if()


@contextmanager
def holding(lock: _Lock) -> Iterator[None]:
    """Hold a lock; raises CancelledError if the work is cancelled while it waits for that."""
    while not lock.acquire(True, _WAIT_SECONDS):
        check()
    try:
        check()
        yield
    finally:
        lock.release()


def uninterrupted() -> AbstractContextManager[None]:
    """One call of an engine that cannot be ended: CancelledError comes before it, or after it."""
    return interruptible(_nothing)


def _nothing() -> None:
    """Ends nothing."""
