"""Several utterances in one call of the language model: rows, which join and leave between tokens.

The calls are made by one thread, which begins with the first utterance and ends with the last.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from edgepack.errors import CancelledError
from edgepack.runtime import cancellation
from edgepack.runtime.cancellation import Cancellation
from edgepack.runtime.engines.session import Rows
from edgepack.runtime.engines.watch import Clock
from edgepack.runtime.stages.decode import Choosing, Context, SpeechDecoder, scores

_WAIT_SECONDS = 0.1  # for a token, before looking whether it is still wanted
_CANCELLED = "cancelled; nothing more is spoken"


@dataclass
class BatchedUtterance:
    """An utterance that waits for its turn, is decoded, or has been.

    `clock` is told of its share in the seconds of each call. `most` is the largest number of rows
    that it was decoded with, itself included.
    """

    text: Sequence[int]
    context: Context
    choosing: Choosing
    begun: Mapping[str, np.ndarray] | None
    clock: Clock
    token: Cancellation | None = field(default_factory=cancellation.current)
    most: int = 0
    _out: queue.SimpleQueue[int | bool | BaseException] = field(default_factory=queue.SimpleQueue)
    _left: threading.Event = field(default_factory=threading.Event)

    def tokens(self, unwanted: Callable[[], bool] = lambda: False) -> Generator[int, None, bool]:
        """Its tokens as they are decoded; returns whether a stop id ended them before the limit.

        It also ends when it is `unwanted`. Raises CancelledError if the request was cancelled.
        """
        try:
            while not unwanted():
                cancellation.check()
                try:
                    item = self._out.get(timeout=_WAIT_SECONDS)
                except queue.Empty:
                    continue
                if isinstance(item, BaseException):
                    raise item
                if isinstance(item, bool):
                    return item
                yield item
            return False
        finally:
            self.leave()

    def leave(self) -> None:
        """Decode no more of it after the current step; does not wait for that."""
        self._left.set()

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for its tokens any more."""
        return self._left.is_set() or bool(self.token and self.token.cancelled)

    def chosen(self, logits: np.ndarray) -> bool:
        """Choose a token by logits [V] and hand it out; whether the row goes on."""
        try:
            token = self.choosing.next(scores(logits))
        except Exception as error:  # of this row alone: the others go on
            return self.failed(error)
        if token is not None:
            self._out.put(token)
        return self.choosing.goes_on or self.finished()

    def finished(self) -> bool:
        """Tell that there are no more tokens; False."""
        self._out.put(self.choosing.ended)
        return False

    def failed(self, error: BaseException) -> bool:
        """Hand out an error in place of more tokens; False."""
        self._out.put(error)
        return False


class RowDecoder:
    """Decodes up to `most` utterances at once, in the order in which they came.

    `decoder` has networks that nobody else calls, and `clock` is told of their calls.
    """

    def __init__(self, decoder: SpeechDecoder, most: int, clock: Clock) -> None:
        """Start with no utterance and no thread."""
        self._decoder, self._most, self._clock = decoder, most, clock
        self._waiting: deque[BatchedUtterance] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self, row: BatchedUtterance) -> BatchedUtterance:
        """Decode an utterance when there is room for it."""
        with self._lock:
            if self._thread is None:
                # A program that ends waits for it: engines must not be cut off in a call.
                thread = threading.Thread(target=self._work, name="edgepack-rows")
                thread.start()
                self._thread = thread
            self._waiting.append(row)
        return row

    def wait(self) -> None:
        """Wait until nothing is decoded any more; others may begin utterances meanwhile."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        active: list[BatchedUtterance] = []
        try:
            rows = self._decoder.language_model.rows()
            if rows is None:
                raise RuntimeError("a language model without rows")  # loading asks it
            while self._joined(rows, active):
                self._step(rows, active)
        except BaseException as error:  # of a call for all of them: each is told
            with self._lock:
                self._thread = None
                waiting, self._waiting = self._waiting, deque()
            for row in (*active, *waiting):
                row.failed(error)

    def _joined(self, rows: Rows, active: list[BatchedUtterance]) -> bool:
        """Let those join that there is room for; False, and the thread ends, if nobody is there."""
        while True:
            for number in reversed(range(len(active))):
                if active[number].unwanted:
                    active[number].failed(CancelledError(_CANCELLED))
                    _remove(rows, active, number)
            with self._lock:
                if len(active) == self._most or not self._waiting:
                    if not active:
                        self._thread = None
                    return bool(active)
                row = self._waiting.popleft()
            if not row.unwanted and self._began(row):
                rows.join(self._decoder.language_model.caches())
                active.append(row)

    def _began(self, row: BatchedUtterance) -> bool:
        """Compute the first token of a row by itself; whether there are more."""
        if not row.choosing.goes_on:
            return row.finished()
        decoder = self._decoder
        try:
            with cancellation.working(row.token), self._timed([row]):
                cancellation.check()
                block = decoder.begin(row.text, row.context, row.begun)
                logits = decoder.language_model.run({"embeddings": block})["logits"][0]
        except Exception as error:
            return row.failed(error)
        return row.chosen(logits)

    def _step(self, rows: Rows, active: list[BatchedUtterance]) -> None:
        """One more token of every row; those that end leave."""
        with self._timed(active):
            last = [row.choosing.history[-1] for row in active]
            embeddings = np.moveaxis(self._decoder.embed_speech(last), 1, 0)
            logits = rows.run({"embeddings": embeddings})["logits"]
        for row in active:
            row.most = max(row.most, len(active))
        for number in reversed(range(len(active))):
            if not active[number].chosen(logits[number]):
                _remove(rows, active, number)

    @contextmanager
    def _timed(self, active: Sequence[BatchedUtterance]) -> Iterator[None]:
        """Share the seconds of the block's calls among rows."""
        self._clock.seconds.clear()
        try:
            yield
        finally:
            for stage, seconds in self._clock.seconds.items():
                for row in active:
                    row.clock.seconds[stage] += seconds / len(active)


def _remove(rows: Rows, active: list[BatchedUtterance], number: int) -> None:
    """Take a row out; the last one takes its place, in the caches as in the list."""
    rows.leave(number)
    last = active.pop()
    if number < len(active):
        active[number] = last
