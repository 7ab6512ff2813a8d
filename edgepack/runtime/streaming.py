"""Speech in chunks while it is made: one thread decodes tokens, another makes the sound."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

import numpy as np

from edgepack.errors import GateError
from edgepack.runtime import cancellation, guards
from edgepack.runtime.cancellation import Cancellation
from edgepack.runtime.loading import Loaded
from edgepack.runtime.speech import Decoded, Settings, Speech, Utterance
from edgepack.runtime.stages.flow import Condition

_WAIT_SECONDS = 0.1
_FEW_TOKENS = 4


@dataclass
class Sentence:
    """A piece of text whose tokens are being decoded.

    `tokens` decodes them one by one and fills in the other fields: the text, its ids, the least
    number of tokens, whether the model ended by itself, and with how many rows. While it waits for
    text `waiting` is set; if `closed` it ends with ClosedError.
    """

    tokens: Callable[["Sentence"], Generator[int, None, None]]
    text: str = ""
    text_ids: list[int] = field(default_factory=list)
    ended: bool = True
    least: int = 0
    rows: int = 1
    waiting: bool = False
    closed: bool = False

    def decoded(self, tokens: list[int]) -> Decoded:
        """What was decoded, with the tokens that are made to sound."""
        return Decoded(self.text, self.text_ids, tokens, self.ended, self.least, self.rows)

    def arriving(self, pieces: Iterable[str]) -> Iterator[str]:
        """The pieces of its text, for as long as somebody wants them."""
        waited = iter(pieces)
        while True:
            self.waiting = True
            piece = next(waited, None)
            self.waiting = False
            cancellation.check()
            if self.closed:
                raise ClosedError
            if piece is None:
                return
            yield piece


class ClosedError(Exception):
    """The stream was closed before its end."""


class Decoding:
    """Decodes sentences in a thread of its own, ahead of the consumer of tokens.

    Between `hold_back` and `hurry` it is only a few tokens ahead, so that it does not take the CPU
    from making sound of the tokens before. The consumer must go on taking tokens: a decoder that
    is held back may hold its network's lock (`turn`), for which others wait.

    Unless it goes `ahead`, a sentence is decoded as a whole before its first token is handed out,
    and the next one only when it is asked for: the language model and the networks of the sound are
    never called at the same time, so that only one of them has to be in memory.

    `token` ends it, and so does what ends the thread that began it.
    """

    def __init__(self, sentences: Iterable[Sentence], *, ahead: bool = True) -> None:
        self._sentences, self._ahead = sentences, ahead
        self._asked = False
        self.token = Cancellation(cancellation.current())
        self._limited = False
        self._moved = threading.Condition()
        self._out: queue.SimpleQueue[Sentence | int | BaseException | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._current: Sentence | None = None
        self._thread = threading.Thread(target=self._work, name="edgepack-lm", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        with cancellation.working(self.token), self.token.interrupting(self.stop):
            self._decode()

    def _decode(self) -> None:
        try:
            for sentence in self._sentences:
                self._current = sentence
                self._await_turn()
                if self._stop.is_set():  # and whoever stopped it may not have seen the sentence
                    return
                self._out.put(sentence)
                with closing(sentence.tokens(sentence)) as tokens:
                    for token in tokens:
                        self._out.put(token)
                        self._wait()
                        if self._stop.is_set():
                            return
                self._out.put(None)
            self._out.put(None)
        except ClosedError:
            return
        except BaseException as error:  # raised again where the tokens are taken
            self._out.put(error)

    def _await_turn(self) -> None:
        if self._ahead:
            return
        with self._moved:
            self._moved.wait_for(lambda: self._asked or self._stop.is_set())
            self._asked = False

    def _wait(self) -> None:
        with self._moved:
            self._moved.wait_for(
                lambda: not self._limited or self._stop.is_set() or self._out.qsize() < _FEW_TOKENS
            )

    def hold_back(self) -> None:
        """Decode only a few tokens ahead from now on."""
        with self._moved:
            self._limited = True

    def hurry(self) -> None:
        """Decode ahead without a limit from now on."""
        with self._moved:
            self._limited = False
            self._moved.notify()

    def sentences(self) -> Iterator[Sentence]:
        """Sentences as their decoding begins; take all tokens of one before the next sentence."""
        while (item := self._next()) is not None:
            yield cast(Sentence, item)

    def tokens(self) -> Iterator[int]:
        """Tokens of the last sentence.

        Raises ClosedError if decoding was stopped, CancelledError if the request was cancelled.
        """
        taken = iter(self._take, None)
        for item in taken if self._ahead else list(taken):
            yield cast(int, item)

    def _next(self) -> Sentence | int | None:
        """What comes after a sentence, which has been made to sound."""
        with self._moved:
            self._asked = True
            self._moved.notify()
        return self._take()

    def _take(self) -> Sentence | int | None:
        # A wait without a limit could not be interrupted by Ctrl-C on every system.
        while not self._stop.is_set():
            cancellation.check()
            try:
                item = self._out.get(timeout=_WAIT_SECONDS)
            except queue.Empty:
                continue
            if self._limited:
                with self._moved:
                    self._moved.notify()
            if isinstance(item, BaseException):
                raise item
            return item
        cancellation.check()
        raise ClosedError

    def stop(self) -> None:
        """Let decoding end after the current step, without waiting for that."""
        self._stop.set()
        self.hurry()
        if self._current:
            self._current.closed = True

    def close(self) -> None:
        """Stop decoding and wait for the end of the current step, but not for more text."""
        self.stop()
        while self._thread.is_alive() and not (self._current and self._current.waiting):
            self._thread.join(_WAIT_SECONDS)


class SpeechStream:
    """Chunks of audio, float32 [n], in order. `close` stops it, and so does leaving `with`.

    `cancel` ends what is being computed for it, from any thread; whoever reads it gets
    CancelledError. It still has to be closed, or left to be garbage-collected.

    With `settings.strict` GateError is raised in place of a chunk that is not finite, and after the
    last chunk of a sentence with any other fault.

    `closed` is called once, to return what the stream holds, when it was read to its end, failed or
    was closed, in whichever thread. A stream may also be garbage-collected without that, at any
    moment: then it only stops decoding, and passes `closed` on to `abandoned`, to be called later.
    """

    def __init__(
        self,
        making: "Making",
        request: Speech,
        closed: Callable[[], None],
        abandoned: Callable[[Callable[[], None]], None],
    ) -> None:
        self._making, self._request = making, request
        self._chunks = making.chunks()
        self._busy = threading.Lock()  # is held by the thread that reads
        self._give_back: Callable[[], None] | None = partial(_ended, making.decoding, closed)
        self._abandoned = abandoned

    def __iter__(self) -> Iterator[np.ndarray]:
        """The remaining chunks."""
        return self

    def __next__(self) -> np.ndarray:
        """The next chunk."""
        with self._busy, cancellation.working(self._making.decoding.token):
            try:
                return next(self._chunks)
            except BaseException:
                self._end()
                raise

    def __enter__(self) -> "SpeechStream":
        """The stream itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close it."""
        self.close()

    def cancel(self) -> None:
        """End decoding, solver and vocoder soon, also while another thread waits for a chunk.

        It does not wait for that.
        """
        self._making.decoding.token.cancel()

    def close(self) -> None:
        """Stop speaking: no more chunks are made.

        If another thread is reading, this waits until its current chunk is finished.
        """
        self._making.decoding.stop()
        with self._busy:
            self._chunks.close()
            self._end()

    def __del__(self) -> None:
        """A stream that was dropped without being closed: stop decoding and tell `abandoned`."""
        if give_back := getattr(self, "_give_back", None):
            self._making.decoding.stop()
            self._abandoned(give_back)

    def _end(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back:
            give_back()

    @property
    def speech(self) -> Speech:
        """What was spoken so far; after `close` including the sentence that was cut."""
        made = self._making
        return replace(
            self._request,
            utterances=list(made.spoken),
            stages=dict(self._request.stages),
            seconds=made.seconds,
            arrivals=tuple(made.arrivals),
        )


def _ended(decoding: Decoding, closed: Callable[[], None]) -> None:
    decoding.close()
    closed()


@dataclass
class Making:
    """What makes the chunks of a stream of what `decoding` decodes; time counts from here."""

    loaded: Loaded
    decoding: Decoding
    condition: Condition
    generator: Callable[[int], np.random.Generator]
    settings: Settings
    spoken: list[Utterance] = field(default_factory=list)
    seconds: float = 0.0
    arrivals: list[tuple[float, float]] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)

    def chunks(self) -> Generator[np.ndarray, None, None]:
        """Chunks of audio until the text ends or decoding is stopped."""
        self.decoding.hold_back()
        with suppress(ClosedError):
            for number, sentence in enumerate(self.decoding.sentences()):
                sounding = _Sounding(sentence)
                try:
                    yield from self._speak(number, sounding)
                finally:
                    utterance = sounding.utterance()
                    self.spoken.append(utterance)
                    self.seconds = time.perf_counter() - self.start
                if utterance.faults and self.settings.strict:
                    raise GateError(utterance.faults[0])

    def _speak(self, number: int, sounding: "_Sounding") -> Generator[np.ndarray, None, None]:
        tokens = sounding.known(self.decoding.tokens())
        rng = self.generator(number)
        solver = self.loaded.solver(self.settings.solver, self.settings.steps)
        for chunk in self.loaded.stream.run(tokens, self.condition, rng, solver=solver):
            audio = chunk.audio[0]
            if self.settings.strict and not np.isfinite(audio).all():
                raise GateError(guards.NOT_FINITE)
            now = time.perf_counter() - self.start
            sounding.ready = sounding.ready or now
            self.arrivals.append((now, len(audio) / self.loaded.bundle.manifest.sample_rate))
            sounding.mels.append(chunk.mel[:, :, chunk.repeated :])
            sounding.audio.append(audio)
            self.decoding.hurry()  # only the first audio is waited for
            yield audio
        sounding.whole = True


@dataclass
class _Sounding:
    """A sentence that is being made to sound."""

    sentence: Sentence
    tokens: list[int] = field(default_factory=list)
    mels: list[np.ndarray] = field(default_factory=list)
    audio: list[np.ndarray] = field(default_factory=list)
    ready: float = 0.0
    whole: bool = False

    def known(self, tokens: Iterable[int]) -> Iterator[int]:
        for token in tokens:
            self.tokens.append(token)
            yield token

    def utterance(self) -> Utterance:
        """The sentence as an utterance; a sentence that was cut has no faults."""
        decoded = self.sentence.decoded(self.tokens)
        audio = np.concatenate([np.zeros(0, np.float32), *self.audio])
        mel = np.concatenate(self.mels, 2) if self.mels else np.zeros((1, 0, 0), np.float32)
        faults = self._faults(audio) if self.whole else []
        return Utterance(decoded, mel, audio, faults, self.ready)

    def _faults(self, audio: np.ndarray) -> list[str]:
        return guards.faults(
            audio,
            ended=self.sentence.ended,
            text_tokens=len(self.sentence.text_ids),
            speech_tokens=len(self.tokens),
            least=self.sentence.least,
        )
