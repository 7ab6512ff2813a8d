"""How many texts are spoken at once and how many may wait; all of it in the event loop."""

import asyncio
import math
import time
from collections import deque
from http import HTTPStatus

from edgepack.serve.refusal import RefusalError

_FIRST_GUESS = 2.0  # seconds of a synthesis before any was measured
_SHARE = 0.2  # of the latest synthesis in the running mean
_LONGEST = 60  # seconds that a client is asked to wait at most


class Admission:
    """Places of syntheses: `running` at once, `waiting` more in order of arrival."""

    def __init__(self, running: int, waiting: int) -> None:
        self._most_running, self._most_waiting = running, waiting
        self._queue: deque[Place] = deque()
        self._seconds = _FIRST_GUESS
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many wait for their turn."""
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether there is no place, not even in the queue."""
        busy = self.running >= self._most_running or bool(self._queue)
        return busy and len(self._queue) >= self._most_waiting

    def enter(self, *, again: bool = False) -> "Place":
        """A place, whose turn may come later; raises RefusalError at once if all are taken.

        Who goes on with what was begun comes `again`, and may always wait.
        """
        if self.full and not again:
            raise RefusalError(
                HTTPStatus.TOO_MANY_REQUESTS,
                f"{self.running} texts are being spoken and {len(self._queue)} wait; ask later",
                code="rate_limit_exceeded",
                retry_after=self._wait(),
            )
        place = Place(self)
        if self.running < self._most_running and not self._queue:
            self._begin(place)
        else:
            self._queue.append(place)
        return place

    def _wait(self) -> int:
        """Whole seconds until a place in the queue is likely to be free."""
        return min(_LONGEST, max(1, math.ceil(self._seconds / self._most_running)))

    def _begin(self, place: "Place") -> None:
        self.running += 1
        place.begin()

    def leave(self, place: "Place", *, measured: bool) -> None:
        """Give a place back, which is called by `Place.leave`."""
        if place.began is None:
            self._queue.remove(place)
            return
        self.running -= 1
        if measured:
            took = time.monotonic() - place.began
            self._seconds += _SHARE * (took - self._seconds)
        while self._queue and self.running < self._most_running:
            self._begin(self._queue.popleft())


class Place:
    """A place in the queue, or among those that are spoken; to be left once."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._turn = asyncio.Event()
        self._left = False
        self.began: float | None = None

    def begin(self) -> None:
        """It is its turn."""
        self.began = time.monotonic()
        self._turn.set()

    async def turn(self) -> None:
        """Wait for the turn."""
        await self._turn.wait()

    def leave(self, *, measured: bool) -> None:
        """Give the place back, in the queue or after it; more calls do nothing.

        `measured` is whether the time since its turn is that of a whole synthesis.
        """
        if not self._left:
            self._left = True
            self._admission.leave(self, measured=measured)


def no_turn(seconds: float) -> RefusalError:
    """What a request is told that had no turn in time."""
    return RefusalError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"no turn within {seconds:g} s; ask later",
        code="queue_timeout",
        retry_after=1,
    )
