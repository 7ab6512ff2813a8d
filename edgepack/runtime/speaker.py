"""One utterance at a time with a loaded bundle: tokens, mel, audio, whole or as a stream."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edgepack.bundle.voices import Voice
from edgepack.errors import GateError
from edgepack.machine.memory import require_room
from edgepack.runtime import cancellation, guards
from edgepack.runtime.engines.watch import Clock
from edgepack.runtime.loading import Loaded
from edgepack.runtime.speech import Decoded, Settings, Speech, Utterance
from edgepack.runtime.stages.decode import Context
from edgepack.runtime.stages.flow import Condition, change_speed
from edgepack.runtime.stages.rows import BatchedUtterance, RowDecoder
from edgepack.runtime.stages.sampling import Sampler, inverse_cdf, repetition_aware
from edgepack.runtime.streaming import Decoding, Making, Sentence, SpeechStream
from edgepack.runtime.text.lexicon import Lexicon
from edgepack.runtime.text.plain import heard

_DRAWS, _NOISE = 0, 1  # independent random streams of one seed


@dataclass(frozen=True)
class Manner:
    """Who speaks (name and arrays), in which mode, and with which settings."""

    name: str
    voice: Voice
    mode: str
    settings: Settings

    @property
    def condition(self) -> Condition:
        """What the flow decoder continues: the prompt of the voice, if the mode has one."""
        prompt = self.voice.prompt if self.mode != "sft" else None
        return Condition(
            self.voice.speaker,
            prompt.tokens.tolist() if prompt else (),
            prompt.mel if prompt else None,
        )

    def noise(self, number: int) -> np.random.Generator:
        """The random generator of one utterance's excitation noise."""
        return np.random.default_rng([self.settings.seed, number, _NOISE])


@dataclass(frozen=True)
class Speaker:
    """A loaded bundle with caches of its own; `clock` counts seconds by network.

    `rows` decodes utterances together with those of others, as `loaded.batching` says.
    """

    loaded: Loaded
    clock: Clock
    rows: RowDecoder | None = None

    def speak(self, pieces: Sequence[str], manner: Manner) -> Speech:
        """Speak pieces of text, each an utterance.

        With more than one, and if `host.overlaps`, the language model decodes the next while the
        sound of one is made.
        """
        wanted = manner.settings.overlap
        ahead = self.loaded.host.overlaps if wanted is None else wanted
        if self.rows and self.loaded.batching.takes(len(pieces)):
            with closing(self._decoded_together(self.rows, pieces, manner, ahead)) as decoded:
                return self.sound(decoded, manner, beside=ahead)
        sentences = [
            Sentence(partial(self._tokens, number, manner), piece)
            for number, piece in enumerate(pieces)
        ]
        if ahead and len(sentences) > 1 and not self.loaded.low_memory:
            with closing(Decoding(sentences)) as decoding:
                return self.sound(_decoded_ahead(decoding), manner)
        return self.sound(map(_decoded, sentences), manner)

    def sound(self, pieces: Iterable[Decoded], manner: Manner, *, beside: bool = False) -> Speech:
        """Mel and audio of each piece, checked and timed; raises GateError if strict and faulty.

        With `beside` the audio of one is made while the mel of the next is.
        """
        self.clock.seconds.clear()
        start = time.perf_counter()
        utterances = []
        with closing(self._sounds(pieces, manner, beside)) as sounds:
            for decoded, mel, audio in sounds:
                found = guards.faults(
                    audio,
                    ended=decoded.ended,
                    text_tokens=len(decoded.text_ids),
                    speech_tokens=len(decoded.speech_tokens),
                    least=decoded.least,
                )
                if found and manner.settings.strict:
                    raise GateError(found[0])
                ready = time.perf_counter() - start
                utterances.append(Utterance(decoded, mel, audio, found, ready))
        seconds = time.perf_counter() - start
        rate = self.loaded.bundle.manifest.sample_rate
        stages = dict(self.clock.seconds)
        return Speech(rate, manner.name, manner.mode, utterances, stages, seconds)

    def stream(
        self,
        text: Sequence[str] | Iterable[str],
        manner: Manner,
        closed: Callable[[], None],
        abandoned: Callable[[Callable[[], None]], None],
        foreign: float = 0.0,
        unread: tuple[str, ...] = (),
    ) -> SpeechStream:
        """Speak in chunks: the utterances of a sequence, or the text of an iterable as it arrives.

        Decoding begins at once. `closed` and `abandoned` are `SpeechStream`'s, `foreign` and
        `unread` those of its `Speech`.
        """
        self.clock.seconds.clear()
        if isinstance(text, Sequence):
            sentences = [
                Sentence(partial(self._tokens, number, manner), piece)
                for number, piece in enumerate(text)
            ]
        else:
            sentences = [Sentence(partial(self._tokens_of_pieces, text, manner))]
        rate = self.loaded.bundle.manifest.sample_rate
        stages = self.clock.seconds
        request = Speech(rate, manner.name, manner.mode, [], stages, 0.0, foreign, unread)
        decoding = Decoding(sentences, ahead=not self.loaded.low_memory)
        making = Making(self.loaded, decoding, manner.condition, manner.noise, manner.settings)
        return SpeechStream(making, request, closed, abandoned)

    def _decoded_together(
        self, rows: RowDecoder, pieces: Sequence[str], manner: Manner, ahead: bool
    ) -> Generator[Decoded, None, None]:
        """The pieces in order, decoded at once; unless `ahead`, all before the first is given."""
        with ExitStack() as leaving:
            begun = []
            for number, piece in enumerate(pieces):
                sentence = Sentence(_no_tokens, piece)
                row = rows.begin(self._row(number, manner, sentence))
                leaving.callback(row.leave)
                sentence.tokens = partial(self._tokens_of_row, row)
                begun.append(sentence)
            decoded = map(_decoded, begun)
            yield from decoded if ahead else list(decoded)

    def _tokens(
        self, number: int, manner: Manner, sentence: Sentence
    ) -> Generator[int, None, None]:
        """Speech tokens of a sentence."""
        row = self._row(number, manner, sentence)
        if self.rows and self.loaded.batching.every:
            yield from self._tokens_of_row(self.rows.begin(row), sentence)
            return
        decoder = self.loaded.decoder
        found = decoder.generate(row.text, row.choosing.sampler, row.context, begun=row.begun)
        sentence.ended = yield from _kept(found, decoder.keeper())

    def _tokens_of_row(
        self, row: BatchedUtterance, sentence: Sentence
    ) -> Generator[int, None, None]:
        """Speech tokens of a sentence that is decoded together with others."""
        found = row.tokens(lambda: sentence.closed)
        try:
            sentence.ended = yield from _kept(found, self.loaded.decoder.keeper())
        finally:
            found.close()
            sentence.rows = max(1, row.most)

    def _row(self, number: int, manner: Manner, sentence: Sentence) -> BatchedUtterance:
        """A sentence as it is decoded; fills in what is known of it before."""
        require_room(f"utterance {number + 1}")
        decoder = self.loaded.decoder
        sentence.text_ids = self.loaded.frontend.ids(sentence.text)
        sentence.least = self._least(sentence.text_ids)
        context = self._context(manner, sentence.text_ids)
        begun = None
        prompts = self.loaded.prompts if decoder.language_model.restorable else None
        if context.text and manner.mode == "zero-shot" and prompts:
            begun = prompts.begun(decoder, context)
        choosing = decoder.choosing(sentence.text_ids, self._sampler(number, manner.settings))
        return BatchedUtterance(sentence.text_ids, context, choosing, begun, self.clock)

    def _tokens_of_pieces(
        self, pieces: Iterable[str], manner: Manner, sentence: Sentence
    ) -> Generator[int, None, None]:
        """Speech tokens of text that is still arriving; their limit is set when all has come."""
        arrived = []
        decoder = self.loaded.decoder
        block = decoder.block
        lexicon = Lexicon(manner.settings.lexicon)

        def ids() -> Iterator[list[int]]:
            for piece in sentence.arriving(pieces):
                found = self.loaded.frontend.ids(lexicon(heard(piece)))
                sentence.text += piece
                sentence.text_ids = [*sentence.text_ids, *found]
                # A block at a time: what the decoder cannot take yet would all come at the end.
                yield from (found[at : at + block] for at in range(0, len(found), block))
            arrived.append(True)

        context = self._context(manner)
        sampler = self._sampler(0, manner.settings)
        keeps = decoder.keeper()
        with closing(decoder.generate_streaming(ids(), sampler, context)) as tokens:
            for count, token in enumerate(tokens, 1):
                if keeps(token):
                    yield token
                if arrived and count >= decoder.settings.max_ratio * len(sentence.text_ids):
                    sentence.ended = False
                    return

    def _least(self, text: Sequence[int]) -> int:
        """How many speech tokens a text has at least, by the model's ratio and the evaluation's."""
        quality = self.loaded.bundle.manifest.quality
        seen = quality.speech_ratio if quality else None
        ratio = self.loaded.decoder.settings.min_ratio
        return guards.least(len(text), ratio, seen if isinstance(seen, float) else None)

    def _sampler(self, number: int, settings: Settings) -> Sampler:
        draws = np.random.default_rng([settings.seed, number, _DRAWS])
        return repetition_aware(self.loaded.decoder.settings.sampling, inverse_cdf(draws.random))

    def _context(self, manner: Manner, text: Sequence[int] = ()) -> Context:
        """What the language model continues for a text, as far as that is known."""
        frontend, given = self.loaded.frontend, Context(speaker=manner.voice.speaker)
        if manner.mode == "instruct":
            told = frontend.instruction(manner.settings.instruction or "")
            given = Context(text=told)  # it says who speaks
        elif manner.mode == "zero-shot" and (prompt := manner.voice.prompt):
            given = replace(given, text=prompt.text.tolist(), tokens=prompt.tokens.tolist())
        return frontend.context(given, text)

    def _sounds(
        self, pieces: Iterable[Decoded], manner: Manner, beside: bool
    ) -> Generator[tuple[Decoded, np.ndarray, np.ndarray], None, None]:
        """Each piece with its mel and audio; see `sound` for `beside`."""
        with ThreadPoolExecutor(1, "edgepack-vocoder") as other:
            before: tuple[Decoded, np.ndarray, Future[np.ndarray]] | None = None
            for number, decoded in enumerate(pieces):
                rng = manner.noise(number)
                mel = self._mel(decoded.speech_tokens, number, manner, rng)
                if not beside:
                    yield decoded, mel, self._audio(mel, rng)
                    continue
                made = other.submit(copy_context().run, self._audio, mel, rng)
                if before:
                    yield *before[:2], before[2].result()
                before = decoded, mel, made
            if before:
                yield *before[:2], before[2].result()

    def _mel(
        self, tokens: list[int], number: int, manner: Manner, rng: np.random.Generator
    ) -> np.ndarray:
        """Mel [1, mels, frames] of speech tokens, of which there may be none."""
        flow, settings = self.loaded.flow, manner.settings
        cancellation.check()
        require_room(f"the sound of utterance {number + 1}")
        if not tokens:
            return np.zeros((1, flow.settings.mels, 0), np.float32)
        solver = self.loaded.solver(settings.solver, settings.steps)
        mel = flow.drawing(rng).mel(tokens, manner.condition, solver=solver)
        return mel if settings.speed == 1.0 else change_speed(mel, settings.speed)

    def _audio(self, mel: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Audio [n] of a mel, which draws its noise after the mel has drawn its own."""
        vocoder = self.loaded.vocoder
        if not mel.shape[2]:
            return np.zeros(0, np.float32)
        return vocoder.synthesize(mel, vocoder.noise(mel.shape[2], rng)).audio[0]


def _kept(
    tokens: Generator[int, None, bool], keeps: Callable[[int], bool]
) -> Generator[int, None, bool]:
    """Tokens that are kept; returns what `tokens` do."""
    while True:
        try:
            token = next(tokens)
        except StopIteration as stop:
            return bool(stop.value)
        if keeps(token):
            yield token


def _decoded(sentence: Sentence) -> Decoded:
    return sentence.decoded(list(sentence.tokens(sentence)))


def _no_tokens(sentence: Sentence) -> Generator[int, None, None]:
    """The tokens of a sentence before its decoding begins."""
    yield from ()


def _decoded_ahead(decoding: Decoding) -> Iterator[Decoded]:
    """The same sentences, decoded ahead by a thread of its own."""
    for sentence in decoding.sentences():
        tokens = list(decoding.tokens())
        yield sentence.decoded(tokens)
