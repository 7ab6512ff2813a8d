"""Running a reader over hostile input in a process of its own, with little time and memory."""

import gc
import multiprocessing
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from edgepack.errors import EdgepackError, IntegrityError

T = TypeVar("T")
MB = 10**6


def within(
    function: Callable[..., T], *arguments: Any, seconds: float = 3, megabytes: int = 200
) -> T:
    """`function(*arguments)`, in at most so much processor time and so much memory more than now.

    What it raises is raised here. Running out of memory fails the test even if it was caught.
    """
    context = multiprocessing.get_context("fork")  # starts at once, with everything imported
    receiver, sender = context.Pipe(duplex=False)
    arguments = (sender, function, arguments, seconds, megabytes)
    process = context.Process(target=_child, args=arguments)
    process.start()
    sender.close()
    try:
        used, starved, error, result = receiver.recv()
    except EOFError:
        process.join()
        pytest.fail(f"the reader died with code {process.exitcode}")
    process.join()
    assert not starved, f"more than {megabytes} MB were asked for"
    assert used <= seconds, f"{used:.2f} s"
    if error is not None:
        raise error
    return cast(T, result)


def refused_within(
    function: Callable[..., object],
    *arguments: Any,
    match: str,
    error: type[EdgepackError] = IntegrityError,
    seconds: float = 3,
    megabytes: int = 200,
) -> None:
    """`function` has to refuse its arguments, with one line, within the limits of `within`."""
    with pytest.raises(error, match=match) as caught:
        within(function, *arguments, seconds=seconds, megabytes=megabytes)
    assert type(caught.value) is error
    assert len(str(caught.value)) < 2000


def _child(
    sender: Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    seconds: float,
    megabytes: int,
) -> None:
    gc.freeze()  # or a collection would copy all pages of the process that was forked
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + megabytes * MB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    started = time.process_time()
    allowed = int(started + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (allowed, allowed))
    error = result = None
    try:
        result = function(*arguments)
    except Exception as raised:
        error = raised
    used = time.process_time() - started
    starved = _of_memory(error)
    if error is not None:
        error.__traceback__ = None
    sender.send((used, starved, error, result))


def _of_memory(error: BaseException | None) -> bool:
    """Whether memory ran out at any point on the way to an error."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        error = error.__cause__ or error.__context__
    return False
