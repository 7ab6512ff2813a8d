"""One utterance at a time with a loaded bundle: tokens, mel, audio, whole or as a stream."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgepack.errors import GateError
from edgepack.runtime import guards
from edgepack.runtime.flow import Condition, change_speed
from edgepack.runtime.lexicon import Lexicon
from edgepack.runtime.loading import Loaded
from edgepack.runtime.memory import require_room
from edgepack.runtime.plain import heard
from edgepack.runtime.sampling import Sampler, inverse_cdf, repetition_aware
from edgepack.runtime.speech import Decoded, Settings, Speech, Utterance
from edgepack.runtime.streaming import Decoding, Making, Sentence, SpeechStream
from edgepack.runtime.watch import Clock
from edgepack.voices import Voice

_DRAWS, _NOISE = 0, 1  # independent random streams of one seed


@dataclass(frozen=True)
class Manner:
    """Who speaks, by name and as arrays, in which mode, and everything else that was asked for."""

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
        """Of the excitation noise of one utterance."""
        return np.random.default_rng([self.settings.seed, number, _NOISE])


@dataclass(frozen=True)
class Speaker:
    """A loaded bundle with caches of its own; `clock` has its seconds by network."""

    loaded: Loaded
    clock: Clock

    def speak(self, pieces: Sequence[str], manner: Manner) -> Speech:
        """Speak pieces of text, each an utterance.

        With more than one, and if `loaded.overlaps`, the language model decodes the next while the
        sound of one is made.
        """
        sentences = [
            Sentence(partial(self._tokens, number, manner), piece)
            for number, piece in enumerate(pieces)
        ]
        wanted = manner.settings.overlap
        ahead = self.loaded.host.overlaps if wanted is None else wanted
        if ahead and len(sentences) > 1 and not self.loaded.low_memory:
            with closing(Decoding(sentences)) as decoding:
                return self.sound(_decoded_ahead(decoding), manner)
        return self.sound(map(_decoded, sentences), manner)

    def sound(self, pieces: Iterable[Decoded], manner: Manner) -> Speech:
        """Mel and audio of each piece, checked and timed; raises GateError if strict and faulty."""
        self.clock.seconds.clear()
        start = time.perf_counter()
        utterances = []
        for number, decoded in enumerate(pieces):
            mel, audio = self._sound(decoded.speech_tokens, number, manner)
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
        """Speak in chunks; a sequence is of utterances, an iterable of text as it arrives.

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
        making = Making(
            self.loaded, Decoding(sentences), manner.condition, manner.noise, manner.settings
        )
        return SpeechStream(making, request, closed, abandoned)

    def _tokens(
        self, number: int, manner: Manner, sentence: Sentence
    ) -> Generator[int, None, None]:
        """Speech tokens of a sentence."""
        require_room(f"utterance {number + 1}")
        decoder = self.loaded.decoder
        prompt_text, prompt = self._prompt(manner)
        begun = None
        prompts = self.loaded.prompts if decoder.decoder.restorable else None
        if prompt_text and manner.mode == "zero-shot" and prompts:
            begun = prompts.begun(decoder, prompt_text)
        sentence.text_ids = self.loaded.frontend.ids(sentence.text)
        sentence.least = self._least(sentence.text_ids)
        sampler = self._sampler(number, manner.settings)
        sentence.ended = yield from decoder.generate(
            sentence.text_ids, sampler, prompt_text, prompt, begun=begun
        )

    def _tokens_of_pieces(
        self, pieces: Iterable[str], manner: Manner, sentence: Sentence
    ) -> Generator[int, None, None]:
        """Speech tokens of text that is still arriving; limited once all of it is there."""
        arrived = []
        decoder = self.loaded.decoder
        block = decoder.settings.mix[0]
        lexicon = Lexicon(manner.settings.lexicon)

        def ids() -> Iterator[list[int]]:
            for piece in sentence.arriving(pieces):
                found = self.loaded.frontend.ids(lexicon(heard(piece)))
                sentence.text += piece
                sentence.text_ids = [*sentence.text_ids, *found]
                # A block at a time: what the decoder cannot take yet would all come at the end.
                yield from (found[at : at + block] for at in range(0, len(found), block))
            arrived.append(True)

        prompt_text, prompt = self._prompt(manner)
        sampler = self._sampler(0, manner.settings)
        with closing(decoder.generate_streaming(ids(), sampler, prompt_text, prompt)) as tokens:
            for count, token in enumerate(tokens, 1):
                yield token
                if arrived and count >= decoder.settings.max_ratio * len(sentence.text_ids):
                    sentence.ended = False
                    return

    def _least(self, text: Sequence[int]) -> int:
        """How many speech tokens a text has at least, by the model's ratio and the exam's."""
        quality = self.loaded.bundle.manifest.quality
        seen = quality.speech_ratio if quality else None
        ratio = self.loaded.decoder.settings.min_ratio
        return guards.least(len(text), ratio, seen if isinstance(seen, float) else None)

    def _sampler(self, number: int, settings: Settings) -> Sampler:
        draws = np.random.default_rng([settings.seed, number, _DRAWS])
        return repetition_aware(self.loaded.decoder.settings.sampling, inverse_cdf(draws.random))

    def _prompt(self, manner: Manner) -> tuple[Sequence[int], Sequence[int]]:
        """Text ids and speech tokens that the language model continues."""
        if manner.mode == "instruct":
            return self.loaded.frontend.instruction(manner.settings.instruction or ""), ()
        if manner.mode == "zero-shot" and (prompt := manner.voice.prompt):
            return prompt.text.tolist(), prompt.tokens.tolist()
        return (), ()

    def _sound(
        self, tokens: list[int], number: int, manner: Manner
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mel and audio of speech tokens; both empty for no tokens."""
        flow, vocoder, settings = self.loaded.flow, self.loaded.vocoder, manner.settings
        require_room(f"the sound of utterance {number + 1}")
        if not tokens:
            return np.zeros((1, flow.settings.mels, 0), np.float32), np.zeros(0, np.float32)
        solver = self.loaded.solver(settings.solver, settings.steps)
        mel = flow.mel(tokens, manner.condition, solver=solver)
        if settings.speed != 1.0:
            mel = change_speed(mel, settings.speed)
        noise = vocoder.noise(mel.shape[2], manner.noise(number))
        return mel, vocoder.synthesize(mel, noise).audio[0]


def _decoded(sentence: Sentence) -> Decoded:
    tokens = list(sentence.tokens(sentence))
    return Decoded(sentence.text, sentence.text_ids, tokens, sentence.ended, sentence.least)


def _decoded_ahead(decoding: Decoding) -> Iterator[Decoded]:
    """The same, by a thread that goes on with the next sentence at once."""
    for sentence in decoding.sentences():
        tokens = list(decoding.tokens())
        yield Decoded(sentence.text, sentence.text_ids, tokens, sentence.ended, sentence.least)
