"""Run a function in a new process: its memory is freed, and no state of ours reaches its result."""

import contextlib
import errno
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar, cast

import psutil

from edgepack.errors import EdgepackError, IntegrityError, ResourceError
from edgepack.process import interrupts, shortage, system
from edgepack.report import Step

T = TypeVar("T")

_INTERRUPTS = {signal.SIGINT, signal.SIGTERM}
_STDERR = 2
_KEPT_BYTES = 8192  # the end of what a process wrote to stderr
_LINE = 200  # characters of it in a message
_END_SECONDS = 5.0  # for a process to end that has given its answer
_WAIT_SECONDS = 1.0  # for the end of stderr, which a grandchild may still have open


@dataclass(frozen=True)
class Bounds:
    """Limits of a process that reads files of unknown origin; `what` names them in messages.

    `memory` is bytes of address space more than it has at its start (files that are mapped count),
    `seconds` of processor time, `written` the largest file in bytes. Each is at least what sound
    files of the same size need.
    """

    what: object
    memory: int
    seconds: int
    written: int = 0

    def enter(self) -> None:
        """Set these limits for this process; they cannot be raised again."""
        system.limit(
            memory=psutil.Process().memory_info().vms + self.memory,
            seconds=int(sum(os.times()[:2])) + self.seconds,
            written=self.written,
        )

    def translated(self, error: Exception) -> Exception:
        """The error to show for the process' own: one of an unexpected kind means faulty files."""
        if shortage.of_memory(error):
            return self._beyond(f"{self.memory >> 20} MiB of memory")
        if isinstance(error, OSError) and error.errno == errno.EFBIG:
            return self._beyond(f"{self.written >> 20} MiB in a file")
        if isinstance(error, EdgepackError | ModuleNotFoundError | OSError):
            return error
        return IntegrityError(
            f"{self.what}: cannot be read ({type(error).__name__}: {error}); download it again"
        )

    def died(self, code: int | None) -> EdgepackError:
        """The error for a process that ended without an answer."""
        if system.out_of_time(code):
            return self._beyond(f"{self.seconds} s of processor time")
        if system.killed(code):
            return ResourceError(f"{self.what}: memory ran out while it was read")
        return IntegrityError(
            f"{self.what}: what reads it crashed (code {code}); corrupt or hostile, download it "
            "again"
        )

    def _beyond(self, limit: str) -> ResourceError:
        return ResourceError(
            f"{self.what}: what reads it took more than {limit}, which no sound checkpoint of this "
            "size needs; download it again"
        )


class _ChildError(Exception):
    """The traceback of an error in another process, as text; it is set as the error's cause."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class _Words:
    """The end of what another process writes to stderr, including what C++ code writes there."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._end = b""
        self._thread = threading.Thread(target=self._read, name="edgepack-stderr", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while some := os.read(self._pipe.fileno(), _KEPT_BYTES):
            self._end = (self._end + some)[-_KEPT_BYTES:]
        self._pipe.close()

    def text(self) -> str:
        """What was written, once the process has ended."""
        self._thread.join(_WAIT_SECONDS)
        return self._end.decode("utf-8", "replace").strip()


def isolated(
    function: Callable[..., T],
    *arguments: Any,
    step: Step,
    bounds: Bounds | None = None,
    grace: float = 0.0,
) -> T:
    """`function(*arguments, step)` in a new interpreter; its steps and its error come back here.

    Function and arguments have to be picklable. The error has the traceback of the other process as
    its cause, and the end of what was written to stderr there as a note (and `stderr` in the
    details of an EdgepackError). If the process dies, that is a ResourceError.

    An interrupt reaches only this process, which then ends the other one. With `grace` the other
    one is interrupted first and has so many seconds to end. With `bounds` it has limits, and every
    error is an EdgepackError, an OSError or a ModuleNotFoundError.

    Only a build has such processes. Raises UnsupportedError on systems where limits do not work.
    """
    system.require_limits(bounds.what if bounds else "a build")
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    heard, stderr = context.Pipe(duplex=False)
    work = pickle.dumps((function, arguments))  # loaded once the child is set to end with us
    target = (sender, stderr, os.getpid(), bounds, grace > 0, work)
    process = context.Process(target=_child, args=target, daemon=True)
    words = _Words(heard)
    try:
        try:
            with sheltered():
                process.start()
        finally:
            sender.close()
            stderr.close()
        while True:
            kind, value = receiver.recv()
            if kind == "step":
                step(value)
            elif kind == "error":
                error, trace = value
                process.join()
                error = bounds.translated(error) if bounds else error
                raise explained(error, trace, words.text())
            else:
                process.join(_END_SECONDS)  # time to release what it has registered
                return cast(T, value)
    except EOFError:
        process.join()
        if bounds:
            error = bounds.died(process.exitcode)
            raise explained(error, f"code {process.exitcode}", words.text()) from None
        raise _died(function.__name__, process.exitcode, words.text()) from None
    finally:
        if process.pid is not None:
            if grace and process.is_alive():
                process.terminate()
                process.join(grace)
            process.kill()
            process.join()
        receiver.close()


@contextlib.contextmanager
def sheltered() -> Iterator[None]:
    """Processes that are started in the block ignore interrupts: this process has to end them."""
    with system.deaf(_INTERRUPTS):
        yield


def explained(error: Exception, trace: str, words: str = "") -> Exception:
    """An error of another process, with where it arose there and what was written to stderr."""
    error.__cause__ = _ChildError(trace)
    if words:
        error.add_note(f"The process had written to stderr:\n{words}")
        if isinstance(error, EdgepackError):
            error.details["stderr"] = words
    return error


def _died(name: str, code: int | None, words: str) -> ResourceError:
    cause = "memory ran out" if system.killed(code) else "it crashed"
    last = f", after writing {words.splitlines()[-1][-_LINE:]!r}" if words else ""
    return ResourceError(
        f"the build process for {name!r} ended with code {code}: {cause}{last}; close other "
        "programs and build again",
        {"stderr": words} if words else None,
    )


def _child(
    sender: Connection,
    stderr: Connection,
    parent: int,
    bounds: Bounds | None,
    listening: bool,
    work: bytes,
) -> None:
    interrupts.end_with(parent)
    if listening:
        interrupts.listen()
        system.hearing(_INTERRUPTS)
    os.dup2(stderr.fileno(), _STDERR)
    stderr.close()
    with contextlib.suppress(BrokenPipeError):  # the parent has gone
        try:
            function, arguments = pickle.loads(work)  # noqa: S301 (our own bytes)
            if bounds:
                bounds.enter()
            result = function(*arguments, lambda message: sender.send(("step", message)))
            sender.send(("result", result))
        except Exception as error:  # whatever it is, the parent raises it
            trace = traceback.format_exc()
            sender.send(("error", (portable(error), trace)))
        sys.stderr.flush()


def portable(error: Exception) -> Exception:
    """The error, or one that says the same if it cannot be sent to another process."""
    error.__traceback__ = None
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (our own bytes)
    except Exception:  # anything can be in the way
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
