"""Run a function in a fresh process: its memory is given back, its output owes nothing to ours."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar, cast

from edgepack.errors import ResourceError
from edgepack.report import Step

T = TypeVar("T")

_INTERRUPTS = {signal.SIGINT, signal.SIGTERM}


def isolated(function: Callable[..., T], *arguments: Any, step: Step) -> T:
    """`function(*arguments, step)` in a new interpreter; its steps and its error come back here.

    Function and arguments have to be picklable. A process that dies (out of memory) is a
    ResourceError. An interrupt reaches only this process, which then ends the other one.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, function, arguments), daemon=True)
    try:
        with sheltered():
            process.start()
        sender.close()
        while True:
            kind, value = receiver.recv()
            if kind == "step":
                step(value)
            elif kind == "error":
                raise value
            else:
                return cast(T, value)
    except EOFError:
        process.join()
        cause = "memory ran out" if process.exitcode == -signal.SIGKILL else "it crashed"
        raise ResourceError(
            f"the build process for {function.__name__!r} ended with code {process.exitcode}: "
            f"{cause}; close other programs and build again"
        ) from None
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
        receiver.close()


@contextlib.contextmanager
def sheltered() -> Iterator[None]:
    """Processes that are started in the block are not interrupted: who started them ends them."""
    resource_tracker.ensure_running()  # starting it would undo the mask
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)  # a child inherits it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _child(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the parent has gone
        try:
            result = function(*arguments, lambda message: sender.send(("step", message)))
            sender.send(("result", result))
        except Exception as error:  # whatever it is, the parent raises it
            error.__traceback__ = None
            sender.send(("error", error))
