"""Text to speech with a bundle: `Synthesizer.load(folder).speak("…")`."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from edgepack import voices
from edgepack.errors import GateError, UsageError
from edgepack.runtime import audio, guards
from edgepack.runtime.coverage import Coverage
from edgepack.runtime.cpu.plan import CpuPlan
from edgepack.runtime.enrol import Enroller
from edgepack.runtime.flow import Condition, change_speed
from edgepack.runtime.gpu.placement import AS_PROMISED, Wanted
from edgepack.runtime.gpu.warm_up import warm_up
from edgepack.runtime.loading import Loaded, load, open_coverage, open_enroller
from edgepack.runtime.sampling import Sampler, inverse_cdf, repetition_aware
from edgepack.runtime.speech import Decoded, Settings, Speech, Utterance, mode_of
from edgepack.runtime.streaming import Sentence, SpeechStream
from edgepack.runtime.watch import Clock, Watcher
from edgepack.voices import Voice

__all__ = ["Settings", "Speech", "Synthesizer"]

_DRAWS, _NOISE = 0, 1  # independent random streams of one seed


@dataclass(frozen=True)
class Synthesizer:
    """A loaded bundle that speaks. Not for use by several threads at once."""

    loaded: Loaded
    clock: Clock

    @staticmethod
    def load(
        folder: Path,
        runtime: str | None = None,
        threads: int | None = None,
        watchers: Sequence[Watcher] = (),
        *,
        plan: CpuPlan | None = None,
        memory: str = "all",
        profile: bool = False,
        wanted: Wanted = AS_PROMISED,
        on_stage: Callable[[str], None] = lambda stage: None,
    ) -> "Synthesizer":
        """Check and load a bundle for one of its runtimes, by default its first.

        `plan` says where it runs (`runtime.cpu.plan`), in place of `threads`. With `memory` "low"
        networks are loaded when they are needed and released after. `wanted` is a provider of
        a GPU (`runtime.gpu.placement`). The others are `load`'s.
        """
        clock = Clock()
        loaded = load(
            folder,
            runtime,
            threads,
            [clock, *watchers],
            plan=plan,
            memory=memory,
            profile=profile,
            wanted=wanted,
            on_stage=on_stage,
        )
        if not loaded.low_memory and loaded.host.placement and loaded.host.placement.accelerated:
            warm_up(loaded)
        return Synthesizer(loaded, clock)

    @property
    def sample_rate(self) -> int:
        """Samples a second of the audio."""
        return self.loaded.bundle.manifest.sample_rate

    def speak(self, text: str, settings: Settings = Settings()) -> Speech:
        """Speak a text; raises GateError if the audio is faulty and `settings.strict`."""
        name, chosen = voices.read(self.loaded.bundle, settings.voice)
        mode = mode_of(name, chosen, settings)
        pieces = self.loaded.frontend.utterances(text)
        foreign = self._foreign([*pieces, settings.instruction or ""], settings)
        decoded = self._decode(pieces, chosen, mode, settings)
        speech = self._render(decoded, name, chosen, mode, settings)
        return replace(speech, foreign=foreign)

    def speak_tokens(self, tokens: Sequence[int], settings: Settings = Settings()) -> Speech:
        """Speak given speech tokens, without the language model."""
        limit = self.loaded.bundle.manifest.language_model.speech_tokens
        if not tokens or not all(0 <= token < limit for token in tokens):
            raise UsageError(f"speech tokens have to be one or more numbers from 0 to {limit - 1}")
        name, chosen = voices.read(self.loaded.bundle, settings.voice)
        decoded = Decoded("", [], list(tokens), ended=True)
        return self._render([decoded], name, chosen, mode_of(name, chosen, settings), settings)

    def convert(self, recording: Path, settings: Settings = Settings()) -> Speech:
        """Say a recording's words in another voice (voice conversion)."""
        tokens = self.enroller.tokens(audio.read(recording))
        return self.speak_tokens(tokens.tolist(), settings)

    @cached_property
    def enroller(self) -> Enroller:
        """The networks that make voices of recordings."""
        return open_enroller(self.loaded.bundle, self.loaded.host)

    def _foreign(self, texts: Sequence[str], settings: Settings) -> float:
        """Share of out-of-language characters; raises UsageError if there are any and strict."""
        known = self.coverage
        if known is None:
            return 0.0
        runs = [run for text in texts for run in known.foreign(text)]
        if runs and settings.strict_language:
            raise UsageError(
                f"{runs[0]!r} is not in this bundle's languages "
                f"({self.loaded.bundle.manifest.language}); build with more --language or "
                "--keep-text, or do not ask for --strict-language"
            )
        return known.share(texts)

    @cached_property
    def coverage(self) -> Coverage | None:
        """Which text the bundle was trimmed for; None if it is for every language."""
        return open_coverage(self.loaded.bundle, self.loaded.frontend)

    def stream(self, text: str | Iterable[str], settings: Settings = Settings()) -> SpeechStream:
        """Speak in chunks that are handed out while the rest is made; close it when done.

        A text is cut into sentences. An iterable gives pieces of text as they become known, such
        as a chat model's output; they are spoken as they are, in one go, numbers not read out.
        """
        if settings.speed != 1.0:
            raise UsageError("a stream has the speed of the voice; leave out --speed or --stream")
        if self.loaded.low_memory:
            raise UsageError(
                "a stream needs all networks in memory; leave out --memory low or --stream"
            )
        name, chosen = voices.read(self.loaded.bundle, settings.voice)
        mode = mode_of(name, chosen, settings)
        self.clock.seconds.clear()
        if isinstance(text, str):
            pieces = self.loaded.frontend.utterances(text)
            foreign = self._foreign([*pieces, settings.instruction or ""], settings)
            sentences = [
                Sentence(partial(self._tokens, number, chosen, mode, settings), piece)
                for number, piece in enumerate(pieces)
            ]
        else:
            foreign = 0.0
            sentences = [Sentence(partial(self._tokens_of_pieces, text, chosen, mode, settings))]
        return SpeechStream(
            self.loaded,
            sentences,
            _condition(chosen, mode),
            partial(_generator, settings),
            settings,
            Speech(self.sample_rate, name, mode, [], self.clock.seconds, 0.0, foreign),
        )

    def _decode(
        self, pieces: Sequence[str], chosen: Voice, mode: str, settings: Settings
    ) -> Iterator[Decoded]:
        """Speech tokens of each piece of a text."""
        for number, piece in enumerate(pieces):
            sentence = Sentence(partial(self._tokens, number, chosen, mode, settings), piece)
            tokens = list(sentence.tokens(sentence))
            yield Decoded(piece, sentence.text_ids, tokens, sentence.ended)

    def _tokens(
        self, number: int, chosen: Voice, mode: str, settings: Settings, sentence: Sentence
    ) -> Iterator[int]:
        """Speech tokens of a sentence."""
        decoder = self.loaded.decoder
        prompt_text, prompt = self._prompt(chosen, mode, settings)
        sentence.text_ids = self.loaded.frontend.ids(sentence.text)
        sentence.ended = yield from decoder.generate(
            sentence.text_ids, self._sampler(number, settings), prompt_text, prompt
        )

    def _tokens_of_pieces(
        self,
        pieces: Iterable[str],
        chosen: Voice,
        mode: str,
        settings: Settings,
        sentence: Sentence,
    ) -> Iterator[int]:
        """Speech tokens of text that is still arriving; limited once all of it is there."""
        arrived = []

        def ids() -> Iterator[list[int]]:
            for piece in sentence.arriving(pieces):
                found = self.loaded.frontend.ids(piece)
                sentence.text += piece
                sentence.text_ids = [*sentence.text_ids, *found]
                yield found
            arrived.append(True)

        decoder = self.loaded.decoder
        prompt_text, prompt = self._prompt(chosen, mode, settings)
        sampler = self._sampler(0, settings)
        tokens = decoder.generate_streaming(ids(), sampler, prompt_text, prompt)
        for count, token in enumerate(tokens, 1):
            yield token
            if arrived and count >= decoder.settings.max_ratio * len(sentence.text_ids):
                sentence.ended = False
                return

    def _sampler(self, number: int, settings: Settings) -> Sampler:
        draws = np.random.default_rng([settings.seed, number, _DRAWS])
        return repetition_aware(self.loaded.decoder.settings.sampling, inverse_cdf(draws.random))

    def _prompt(
        self, chosen: Voice, mode: str, settings: Settings
    ) -> tuple[Sequence[int], Sequence[int]]:
        """Text ids and speech tokens that the language model continues."""
        if mode == "instruct":
            return self.loaded.frontend.instruction(settings.instruction or ""), ()
        if mode == "zero-shot" and chosen.prompt:
            return chosen.prompt.text.tolist(), chosen.prompt.tokens.tolist()
        return (), ()

    def _render(
        self,
        pieces: Iterable[Decoded],
        name: str,
        chosen: Voice,
        mode: str,
        settings: Settings,
    ) -> Speech:
        """Mel and audio of each piece, checked and timed."""
        self.clock.seconds.clear()
        start = time.perf_counter()
        condition = _condition(chosen, mode)
        utterances = []
        for number, decoded in enumerate(pieces):
            mel, audio = self._sound(decoded.speech_tokens, condition, number, settings)
            found = guards.faults(
                audio,
                ended=decoded.ended,
                text_tokens=len(decoded.text_ids),
                speech_tokens=len(decoded.speech_tokens),
            )
            if found and settings.strict:
                raise GateError(found[0])
            ready = time.perf_counter() - start
            utterances.append(Utterance(decoded, mel, audio, found, ready))
        seconds = time.perf_counter() - start
        return Speech(self.sample_rate, name, mode, utterances, dict(self.clock.seconds), seconds)

    def _sound(
        self, tokens: list[int], condition: Condition, number: int, settings: Settings
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mel and audio of speech tokens; both empty for no tokens."""
        flow, vocoder = self.loaded.flow, self.loaded.vocoder
        if not tokens:
            return np.zeros((1, flow.settings.mels, 0), np.float32), np.zeros(0, np.float32)
        mel = flow.mel(
            tokens, condition, solver=self.loaded.solver(settings.solver, settings.steps)
        )
        if settings.speed != 1.0:
            mel = change_speed(mel, settings.speed)
        noise = vocoder.noise(mel.shape[2], _generator(settings, number))
        return mel, vocoder.synthesize(mel, noise).audio[0]


def _condition(chosen: Voice, mode: str) -> Condition:
    """What the flow decoder continues: the prompt of a voice, if the mode has one."""
    prompt = chosen.prompt if mode != "sft" else None
    return Condition(
        chosen.speaker, prompt.tokens.tolist() if prompt else (), prompt.mel if prompt else None
    )


def _generator(settings: Settings, number: int) -> np.random.Generator:
    """Of the excitation noise of one utterance."""
    return np.random.default_rng([settings.seed, number, _NOISE])
