"""Syntheses on their way, each once: requests for the same audio listen to the same one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import numpy as np

from edgepack.runtime.cancellation import Cancellation
from edgepack.runtime.speech import Speech
from edgepack.serve.admission import Admission, Place, no_turn
from edgepack.serve.speaking import Order, Speaking

Kept = Callable[["Flight"], Awaitable[None]]


class Flight:
    """A synthesis in the queue or in its thread. Everything here happens in the event loop.

    `pieces` is the audio so far, int16 [n] each; nothing is dropped, so that who joins late hears
    the beginning. When it has `ended` there is either `speech` or `error`, or neither if it was
    abandoned by its last listener.
    """

    def __init__(self, key: str, order: Order, place: Place, queue_seconds: float) -> None:
        self.key, self.order = key, order
        self.pieces: list[np.ndarray] = []
        self.speech: Speech | None = None
        self.error: BaseException | None = None
        self.ended = self.abandoned = False
        self.queued: float | None = None
        self._arrived = time.monotonic()
        self._place, self._queue_seconds = place, queue_seconds
        self._listeners = 0
        self._news, self._finished = asyncio.Event(), asyncio.Event()
        self._cancellation = Cancellation()

    async def fly(self) -> None:
        """Wait for its turn, and until it was spoken or stopped."""
        try:
            async with asyncio.timeout(self._queue_seconds):
                await self._place.turn()
            self.queued = time.monotonic() - self._arrived
            if not self.abandoned:
                # Held by its thread alone: in here it would keep this flight from being freed.
                Speaking(self.order, self._heard, self._end, self._cancellation).start()
                await self._finished.wait()
        except TimeoutError:
            self.error = no_turn(self._queue_seconds)
        finally:
            if not self._finished.is_set():  # the event loop ends
                self._cancellation.cancel()
            self._place.leave(measured=self.speech is not None)
            self.ended = True
            self._wake()

    def _heard(self, piece: np.ndarray) -> None:
        self.pieces.append(piece)
        self._wake()

    def _end(self, speech: Speech | None, error: BaseException | None) -> None:
        self.speech, self.error = speech, error
        self._finished.set()

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def after(self, count: int) -> bool:
        """Wait for more than `count` pieces; whether there are, and not only the end."""
        while len(self.pieces) <= count and not self.ended:
            await self._news.wait()
        return len(self.pieces) > count

    async def end(self) -> None:
        """Wait for the end."""
        while not self.ended:
            await self._news.wait()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Somebody waits for it during the block. After the last one it stops."""
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1
            if not self._listeners and not self.ended:
                self._abandon()

    def _abandon(self) -> None:
        self.abandoned = True
        if self._place.began is None:
            self._place.leave(measured=False)
            self._place.begin()  # `fly` goes on, and ends
        else:
            self._cancellation.cancel()


class Flights:
    """The flights by key. `keep` is awaited for each that ended well, before it is forgotten."""

    def __init__(self, admission: Admission, queue_seconds: float, keep: Kept) -> None:
        self._admission, self._queue_seconds, self._keep = admission, queue_seconds, keep
        self._known: dict[str, Flight] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def joined(self, key: str) -> Flight | None:
        """The flight of a key that others wait for already."""
        found = self._known.get(key)
        return None if found is None or found.abandoned or found.error else found

    def begin(self, key: str, order: Order, *, again: bool = False) -> Flight:
        """A new flight; raises RefusalError if there is no place for it (`Admission.enter`)."""
        place = self._admission.enter(again=again)
        flight = Flight(key, order, place, self._queue_seconds)
        self._known[key] = flight
        task = asyncio.get_running_loop().create_task(self._fly(flight))
        self._tasks.add(task)  # the event loop itself would not keep it
        task.add_done_callback(self._tasks.discard)
        return flight

    async def _fly(self, flight: Flight) -> None:
        try:
            await flight.fly()
            await self._keep(flight)
        finally:
            if self._known.get(flight.key) is flight:
                del self._known[flight.key]
