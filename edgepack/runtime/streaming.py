"""Speech that is handed out while it is made: tokens in one thread, sound in another."""

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
from edgepack.runtime import guards
from edgepack.runtime.flow import Condition
from edgepack.runtime.loading import Loaded
from edgepack.runtime.speech import Decoded, Settings, Speech, Utterance

_WAIT_SECONDS = 0.1
_FEW_TOKENS = 4


@dataclass
class Sentence:
    """A piece of text whose tokens are being decoded.

    `tokens` decodes them one by one; it fills in the text, its ids, how many there should be at
    least, and whether the model ended them itself. It says in `waiting` that it waits for text, and
    ends with ClosedError if `closed`.
    """

    tokens: Callable[["Sentence"], Generator[int, None, None]]
    text: str = ""
    text_ids: list[int] = field(default_factory=list)
    ended: bool = True
    least: int = 0
    waiting: bool = False
    closed: bool = False

    def arriving(self, pieces: Iterable[str]) -> Iterator[str]:
        """The pieces of its text, for as long as somebody wants them."""
        waited = iter(pieces)
        while True:
            self.waiting = True
            piece = next(waited, None)
            self.waiting = False
            if self.closed:
                raise ClosedError
            if piece is None:
                return
            yield piece


class ClosedError(Exception):
    """Nobody wants the rest of a stream."""


class Decoding:
    """Decodes sentences in a thread of its own, ahead of whoever takes their tokens.

    Between `hold_back` and `hurry` it is ahead by a few tokens only, and does not take the CPU from
    what has to be made of those that were taken. Tokens have to be taken all the while: a decoder
    that is held back may have its network to itself (`turn`), and others wait for that.
    """

    def __init__(self, sentences: Iterable[Sentence]) -> None:
        self._sentences = sentences
        self._limited = False
        self._moved = threading.Condition()
        self._out: queue.SimpleQueue[Sentence | int | BaseException | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._current: Sentence | None = None
        self._thread = threading.Thread(target=self._work, name="edgepack-lm", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            for sentence in self._sentences:
                self._current = sentence
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

    def _wait(self) -> None:
        with self._moved:
            self._moved.wait_for(
                lambda: not self._limited or self._stop.is_set() or self._out.qsize() < _FEW_TOKENS
            )

    def hold_back(self) -> None:
        """Stay a few tokens ahead from now on."""
        with self._moved:
            self._limited = True

    def hurry(self) -> None:
        """Go ahead without a limit from now on."""
        with self._moved:
            self._limited = False
            self._moved.notify()

    def sentences(self) -> Iterator[Sentence]:
        """Sentences as they are begun; take all tokens of one before the next."""
        while (item := self._take()) is not None:
            yield cast(Sentence, item)

    def tokens(self) -> Iterator[int]:
        """Tokens of the sentence taken last; ClosedError if they are not decoded any more."""
        while (item := self._take()) is not None:
            yield cast(int, item)

    def _take(self) -> Sentence | int | None:
        # A wait without a limit could not be interrupted by Ctrl-C on every system.
        while not self._stop.is_set():
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
        raise ClosedError

    def stop(self) -> None:
        """Have decoding end after the step that is under way, without waiting for it."""
        self._stop.set()
        self.hurry()
        if self._current:
            self._current.closed = True

    def close(self) -> None:
        """Stop decoding and wait for the step that is under way, but not for text."""
        self.stop()
        while self._thread.is_alive() and not (self._current and self._current.waiting):
            self._thread.join(_WAIT_SECONDS)


class SpeechStream:
    """Audio float32 [n] in chunks, in order; `close` stops it, as leaving a `with` block does.

    With `settings.strict` audio that is not finite raises GateError instead of being handed out,
    and any other fault of a sentence does after its last chunk.

    What it holds it gives back, by calling `closed`, once: when it was read to its end, failed, or
    was closed, by whichever thread. A stream that is dropped without any of these may be so in the
    middle of anything: it only stops decoding, and hands what is left to do to `abandoned`.
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
        """The chunks that are still to come."""
        return self

    def __next__(self) -> np.ndarray:
        """The next chunk."""
        with self._busy:
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

    def close(self) -> None:
        """Stop speaking: what was handed out stays, nothing more is made.

        If another thread reads, it waits until that has come to the end of its chunk.
        """
        self._making.decoding.stop()
        with self._busy:
            self._chunks.close()
            self._end()

    def __del__(self) -> None:
        """Nobody can close it any more."""
        if give_back := getattr(self, "_give_back", None):
            self._making.decoding.stop()
            self._abandoned(give_back)

    def _end(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back:
            give_back()

    @property
    def speech(self) -> Speech:
        """What was spoken so far, of a closed stream also of the sentence it was cut in."""
        made = self._making
        return replace(
            self._request,
            utterances=list(made.spoken),
            stages=dict(self._request.stages),
            seconds=made.seconds,
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
    start: float = field(default_factory=time.perf_counter)

    def chunks(self) -> Generator[np.ndarray, None, None]:
        """The audio; it ends where decoding is stopped."""
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
        overlap = self.loaded.stream.settings.mel_overlap
        solver = self.loaded.solver(self.settings.solver, self.settings.steps)
        for chunk in self.loaded.stream.run(tokens, self.condition, rng, solver=solver):
            audio = chunk.audio[0]
            if self.settings.strict and not np.isfinite(audio).all():
                raise GateError(guards.NOT_FINITE)
            sounding.ready = sounding.ready or time.perf_counter() - self.start
            sounding.mels.append(chunk.mel[:, :, overlap if sounding.mels else 0 :])
            sounding.audio.append(audio)
            self.decoding.hurry()  # only the first audio is waited for
            yield audio
        sounding.whole = True


@dataclass
class _Sounding:
    """A sentence that is being spoken."""

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
        """What it came to; faults only of a sentence that was not cut."""
        of = self.sentence
        decoded = Decoded(of.text, of.text_ids, self.tokens, of.ended, of.least)
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
