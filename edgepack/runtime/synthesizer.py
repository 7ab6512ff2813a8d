"""Text to speech with a bundle: `Synthesizer.load(folder).speak("…")`."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from edgepack.bundle.voices import Voice
from edgepack.errors import UsageError
from edgepack.runtime import cancellation
from edgepack.runtime.audio import waveform
from edgepack.runtime.audio.enrol import Enroller
from edgepack.runtime.cancellation import Cancellation
from edgepack.runtime.engines.watch import Clock, Watcher
from edgepack.runtime.fit import recorded, require_voice, widths
from edgepack.runtime.gpu.warm_up import warm_up
from edgepack.runtime.load_options import LoadOptions
from edgepack.runtime.loading import Loaded, forked, load, open_enroller
from edgepack.runtime.speaker import Manner, Speaker
from edgepack.runtime.speech import Decoded, Settings, Speech, mode_of
from edgepack.runtime.stages.rows import RowDecoder
from edgepack.runtime.streaming import SpeechStream
from edgepack.runtime.text.coverage import Coverage
from edgepack.runtime.text.lexicon import Lexicon
from edgepack.runtime.trimmed import open_coverage

_WAIT_SECONDS = 0.1  # for a turn, before looking for streams that were dropped

__all__ = ["LoadOptions", "Settings", "Speech", "Synthesizer"]


@dataclass(frozen=True)
class Synthesizer:
    """A loaded bundle that speaks. Several threads may use it at once.

    Utterances that overlap share the weights and have caches of their own. On a GPU, and with low
    memory, they take turns.

    What is spoken can be ended from another thread by the `cancel` that it was given, without one
    by that of the block the caller is in (`runtime.cancellation.working`). Then CancelledError is
    raised, and what was used for it is free for the next.
    """

    loaded: Loaded
    clock: Clock
    _idle: list[Speaker] = field(default_factory=list, repr=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    # Which can be put to at any time, as when garbage is collected.
    _abandoned: queue.SimpleQueue[Callable[[], None]] = field(
        default_factory=queue.SimpleQueue, repr=False, compare=False
    )
    _listening: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __post_init__(self) -> None:
        """The first speaker has the networks as they were loaded."""
        self._idle.append(Speaker(self.loaded, self.clock, self._rows))

    @staticmethod
    def load(
        folder: Path,
        runtime: str | None = None,
        threads: int | None = None,
        options: LoadOptions = LoadOptions(),
    ) -> "Synthesizer":
        """Check and load a bundle for one of its runtimes, or the first that is installed."""
        clock = Clock()
        watchers: list[Watcher] = [clock, *options.watchers]
        loaded = load(folder, runtime, threads, replace(options, watchers=watchers))
        if not loaded.low_memory and loaded.host.placement and loaded.host.placement.accelerated:
            warm_up(loaded)
        return Synthesizer(loaded, clock)

    @property
    def sample_rate(self) -> int:
        """Samples a second of the audio."""
        return self.loaded.bundle.manifest.sample_rate

    def speak(
        self, text: str, settings: Settings = Settings(), cancel: Cancellation | None = None
    ) -> Speech:
        """Speak a text; raises GateError if the audio is faulty and `settings.strict`."""
        manner = self._manner(settings)
        read = self._read(text, settings)
        with cancellation.working(cancel), self._speaker() as speaker:
            speech = speaker.speak(read.pieces, manner)
        return replace(speech, foreign=read.foreign, unread=read.unread)

    def speak_tokens(
        self,
        tokens: Sequence[int],
        settings: Settings = Settings(),
        cancel: Cancellation | None = None,
    ) -> Speech:
        """Speak given speech tokens, without the language model."""
        limit = self.loaded.bundle.manifest.host.language_model.speech_tokens
        if not tokens or not all(0 <= token < limit for token in tokens):
            raise UsageError(f"speech tokens have to be one or more numbers from 0 to {limit - 1}")
        manner = self._manner(settings)
        decoded = Decoded("", [], list(tokens), ended=True)
        with cancellation.working(cancel), self._speaker() as speaker:
            return speaker.sound([decoded], manner)

    def convert(
        self,
        recording: Path | waveform.Recording,
        settings: Settings = Settings(),
        cancel: Cancellation | None = None,
    ) -> Speech:
        """Say a recording's words in another voice (voice conversion)."""
        heard = waveform.read(recording) if isinstance(recording, Path) else recording
        with cancellation.working(cancel), cancellation.holding(self._listening):
            tokens = self.enroller.tokens(heard)
        return self.speak_tokens(tokens.tolist(), settings, cancel)

    def enrol(
        self,
        recording: Path | waveform.Recording,
        text: str,
        cancel: Cancellation | None = None,
    ) -> Voice:
        """A voice whose prompt is a recording in which `text` is said; it is not kept anywhere.

        Raises UsageError if the bundle has no networks for it, or the recording does not do.
        """
        heard = waveform.read(recording) if isinstance(recording, Path) else recording
        frontend, bundle = self.loaded.frontend, self.loaded.bundle
        ids = frontend.ids(frontend.clean(text))
        with cancellation.working(cancel), cancellation.holding(self._listening):
            made = self.enroller.voice(heard, ids)
        require_voice(bundle, made, widths(bundle, recorded(bundle)), "what was heard")
        return made

    def stream(
        self,
        text: str | Iterable[str],
        settings: Settings = Settings(),
        cancel: Cancellation | None = None,
    ) -> SpeechStream:
        """Speak in chunks that are handed out while the rest is made; close it when done.

        A text is cut into sentences. An iterable gives pieces of text as they become known, such
        as a chat model's output; they are spoken as they are, in one go, numbers not read out.
        With low memory each sentence, or all that arrives, is decoded before its first chunk.
        """
        if settings.speed != 1.0:
            raise UsageError("a stream has the speed of the voice; leave out --speed or --stream")
        manner = self._manner(settings)
        whole = self._read(text, settings) if isinstance(text, str) else _Read([], 0.0, ())
        pieces = whole.pieces if isinstance(text, str) else iter(text)
        with cancellation.working(cancel), ExitStack() as held:
            speaker = held.enter_context(self._speaker())
            later = ExitStack()
            stream = speaker.stream(
                pieces, manner, later.close, self._abandoned.put, whole.foreign, whole.unread
            )
            later.push(held.pop_all())
        return stream

    def reload_voices(self) -> None:
        """Take the bundle's voices as they are on the disk now.

        Without it a voice that is replaced or removed there speaks on as it was when the bundle was
        loaded; one that is added is known at once.
        """
        self.loaded.voices.reload()

    @cached_property
    def enroller(self) -> Enroller:
        """The networks that make voices of recordings."""
        return open_enroller(self.loaded.bundle, self.loaded.host)

    @cached_property
    def coverage(self) -> Coverage | None:
        """Which text the bundle was trimmed for; None if it is for every language."""
        return open_coverage(self.loaded.bundle, self.loaded.frontend)

    @property
    def concurrent(self) -> bool:
        """Whether utterances may overlap, or take turns."""
        placement = self.loaded.host.placement
        return not self.loaded.low_memory and not (placement and placement.accelerated)

    @contextmanager
    def _speaker(self) -> Iterator[Speaker]:
        """A speaker that nobody else has: an idle one, or a new fork of the first.

        Raises CancelledError if the request is cancelled before its turn.
        """
        self._close_abandoned()
        cancellation.check()
        while not self.concurrent and not self._turn.acquire(timeout=_WAIT_SECONDS):
            self._close_abandoned()
            cancellation.check()
        with self._lock:
            speaker = self._idle.pop() if self._idle else self._another()
        try:
            yield speaker
        finally:
            with self._lock:
                self._idle.append(speaker)
            if not self.concurrent:
                self._turn.release()

    def _close_abandoned(self) -> None:
        """Take back what streams held that were dropped: only now is it safe to wait for them."""
        with suppress(queue.Empty):
            while True:
                self._abandoned.get_nowait()()

    def _another(self) -> Speaker:
        clock = Clock()
        return Speaker(forked(self.loaded, {id(self.clock): clock}), clock, self._rows)

    @cached_property
    def _rows(self) -> RowDecoder | None:
        """What decodes utterances together, with networks of its own; None if nothing does."""
        loaded, clock = self.loaded, Clock()
        if not loaded.batching.rows or loaded.decoder.language_model.rows() is None:
            return None
        own = forked(loaded, {id(self.clock): clock})
        return RowDecoder(own.decoder, loaded.batching.rows, clock)

    def _manner(self, settings: Settings) -> Manner:
        """Who speaks and how; raises UsageError for what does not go together."""
        name, chosen = self.loaded.voices.read(settings.voice)
        self.loaded.solver(settings.solver, settings.steps)
        return Manner(name, chosen, mode_of(name, chosen, settings), settings)

    def _read(self, text: str, settings: Settings) -> "_Read":
        """A text as it will be spoken.

        Raises UsageError if it has characters that are not of the languages and
        `settings.strict_language`.
        """
        unread: list[str] = []
        lexicon = Lexicon(settings.lexicon)
        pieces = self.loaded.frontend.utterances(text, unread.append, lexicon)
        known = self.coverage
        if known is None:
            return _Read(pieces, 0.0, tuple(unread))
        texts = [*pieces, settings.instruction or ""]
        runs = [run for text in texts for run in known.foreign(text)]
        if runs and settings.strict_language:
            raise UsageError(
                f"{runs[0]!r} is not in this bundle's languages "
                f"({self.loaded.bundle.manifest.language}); build with more --language or "
                "--keep-text, or do not ask for --strict-language"
            )
        return _Read(pieces, known.share(texts), tuple(unread))


@dataclass(frozen=True)
class _Read:
    """Utterances of a text, with `Speech.foreign` and `Speech.unread`."""

    pieces: list[str]
    foreign: float
    unread: tuple[str, ...]
