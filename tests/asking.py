"""Requests in threads of their own, for tests that end them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgepack.errors import CancelledError

LIMIT = 0.5  # seconds until a request that was cancelled has ended
PATIENCE = 30.0  # for what has to come on a busy machine
NAME = "asking"


class Asking:
    """A request in a thread of its own, and how it ended."""

    def __init__(self, request: Callable[[], object]) -> None:
        self._request = request
        self.error: BaseException | None = None
        self.result: object = None
        self._thread = threading.Thread(target=self._ask, name=NAME, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self.result = self._request()
        except BaseException as error:
            self.error = error

    def ended(self, patience: float = PATIENCE) -> bool:
        self._thread.join(patience)
        return not self._thread.is_alive()

    def cancelled(self, cancel: Callable[[], None]) -> None:
        """It is still running, and ends soon with CancelledError when it is cancelled."""
        assert not self.ended(0)
        start = time.monotonic()
        cancel()
        assert time.monotonic() - start < LIMIT
        assert self.ended()
        assert time.monotonic() - start < LIMIT
        assert isinstance(self.error, CancelledError), self.error


@contextmanager
def no_thread_left() -> Iterator[None]:
    """After the block no thread of a request or of a stream is there any more."""
    yield
    until = time.monotonic() + PATIENCE
    while left := {t.name for t in threading.enumerate()} & {"edgepack-lm", NAME}:
        assert time.monotonic() < until, left
        time.sleep(0.01)
