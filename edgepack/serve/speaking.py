"""A synthesis in a thread of its own, which hands audio to the event loop and can be stopped."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from edgepack.errors import EdgepackError, UsageError
from edgepack.runtime.audio.sound_file import sixteen_bits
from edgepack.runtime.cancellation import Cancellation
from edgepack.runtime.speech import Settings, Speech
from edgepack.runtime.synthesizer import Synthesizer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What to speak, with which synthesizer: as a stream, or `whole`, which sounds different.

    `most_seconds` is the longest audio.
    """

    synthesizer: Synthesizer
    text: str
    settings: Settings
    whole: bool
    most_seconds: float


@dataclass
class Speaking:
    """One order being spoken. `heard` gets int16 [n]; `ended` what was spoken, or the error.

    Both are called in the event loop that this is made in. One that was cancelled ends with neither
    of them: `ended(None, None)`.
    """

    order: Order
    heard: Callable[[np.ndarray], None]
    ended: Callable[[Speech | None, BaseException | None], None]
    cancellation: Cancellation
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def start(self) -> None:
        """Begin to speak. A program that ends waits for the thread: engines must not be cut off."""
        threading.Thread(target=self._work, name="edgepack-speaking").start()

    def _work(self) -> None:
        try:
            speech = self._whole() if self.order.whole else self._streamed()
        except BaseException as error:  # whoever listens is told
            if not isinstance(error, EdgepackError):
                _log.exception("a synthesis failed")
            # Its traceback holds this, and so who listens, who keeps the error.
            self._end(None, error.with_traceback(None))
        else:
            self._end(speech, None)

    def _end(self, speech: Speech | None, error: BaseException | None) -> None:
        told = (None, None) if self.cancellation.cancelled else (speech, error)
        self._tell(self.ended, *told)

    def _whole(self) -> Speech:
        order = self.order
        speech = order.synthesizer.speak(order.text, order.settings, self.cancellation)
        self._require(len(speech.audio))
        self._tell(self.heard, sixteen_bits(speech.audio))
        return speech

    def _streamed(self) -> Speech:
        order, made = self.order, 0
        with order.synthesizer.stream(order.text, order.settings, self.cancellation) as stream:
            for chunk in stream:
                made += len(chunk)
                self._require(made)
                self._tell(self.heard, sixteen_bits(chunk))
        return stream.speech

    def _require(self, samples: int) -> None:
        most = self.order.most_seconds
        if samples > most * self.order.synthesizer.sample_rate:
            raise UsageError(f"the speech is longer than {most:g} s; send less text at a time")

    def _tell(self, listener: Callable[..., None], *given: object) -> None:
        with suppress(RuntimeError):  # the event loop is closed: nobody listens
            self._loop.call_soon_threadsafe(listener, *given)
