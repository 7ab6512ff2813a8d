"""Text to speech with a bundle: `Synthesizer.load(folder).speak("…")`."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from edgepack import discovery, voices
from edgepack.errors import GateError, UsageError
from edgepack.runtime import audio, guards
from edgepack.runtime.coverage import Coverage
from edgepack.runtime.enrol import Enroller
from edgepack.runtime.flow import Condition, change_speed
from edgepack.runtime.loading import Loaded, load, open_coverage, open_enroller
from edgepack.runtime.sampling import inverse_cdf, repetition_aware
from edgepack.runtime.watch import Clock, Watcher
from edgepack.voices import Voice

MODES = ("auto", "sft", "zero-shot", "cross-lingual", "instruct")
_DRAWS, _NOISE = 0, 1  # independent random streams of one seed


@dataclass(frozen=True)
class Settings:
    """How to speak.

    `mode` is one of MODES: auto is instruct where there is an instruction, else zero-shot for a
    voice with a prompt and sft for one without. `steps` are ODE steps, None for the checkpoint's
    own. `speed` above 1 is faster. `strict` makes a fault of the audio an error, otherwise it is
    only reported. `strict_language` refuses text that is not in the bundle's languages. The same
    `seed` gives the same audio.
    """

    voice: str | None = None
    mode: str = "auto"
    instruction: str | None = None
    seed: int = 0
    steps: int | None = None
    speed: float = 1.0
    strict: bool = True
    strict_language: bool = False


@dataclass(frozen=True)
class Decoded:
    """Speech tokens of one piece of text; `ended` unless they hit the length limit."""

    text: str
    text_ids: list[int]
    speech_tokens: list[int]
    ended: bool


@dataclass(frozen=True)
class Utterance:
    """One spoken piece: its tokens, mel [1, mels, frames] and audio, float32 [n].

    `ready` is when the audio was there, in seconds since the start of the synthesis.
    """

    decoded: Decoded
    mel: np.ndarray
    audio: np.ndarray
    faults: list[str]
    ready: float


@dataclass(frozen=True)
class Speech:
    """What was spoken; `stages` is wall seconds by network, `seconds` the whole synthesis.

    `foreign` is the share of characters that are not in the bundle's languages.
    """

    sample_rate: int
    voice: str
    mode: str
    utterances: list[Utterance]
    stages: dict[str, float]
    seconds: float
    foreign: float = 0.0

    @cached_property
    def audio(self) -> np.ndarray:
        """All utterances, float32 [n]."""
        return np.concatenate([u.audio for u in self.utterances])

    @property
    def audio_seconds(self) -> float:
        """Length of the audio."""
        return len(self.audio) / self.sample_rate

    @property
    def real_time_factor(self) -> float:
        """Synthesis seconds a second of audio; below 1 is faster than real time.

        No audio counts as one sample: the factor stays a number, and a bad one.
        """
        return self.seconds / max(self.audio_seconds, 1 / self.sample_rate)

    @property
    def first_audio_seconds(self) -> float:
        """From the request to the first audio handed out."""
        return self.utterances[0].ready

    @property
    def faults(self) -> list[str]:
        """Faults of all utterances."""
        return [fault for u in self.utterances for fault in u.faults]


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
    ) -> "Synthesizer":
        """Check and load a bundle for one of its runtimes, by default its first."""
        clock = Clock()
        return Synthesizer(load(folder, runtime, threads, [clock, *watchers]), clock)

    @property
    def sample_rate(self) -> int:
        """Samples a second of the audio."""
        return self.loaded.bundle.manifest.sample_rate

    def speak(self, text: str, settings: Settings = Settings()) -> Speech:
        """Speak a text; raises GateError if the audio is faulty and `settings.strict`."""
        name, chosen = voices.read(self.loaded.bundle, settings.voice)
        mode = _mode(name, chosen, settings)
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
        return self._render([decoded], name, chosen, _mode(name, chosen, settings), settings)

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

    def _decode(
        self, pieces: Sequence[str], chosen: Voice, mode: str, settings: Settings
    ) -> Iterator[Decoded]:
        """Speech tokens of each piece of a text."""
        frontend, decoder = self.loaded.frontend, self.loaded.decoder
        prompt_text: Sequence[int] = ()
        prompt: Sequence[int] = ()
        if mode == "instruct":
            prompt_text = frontend.instruction(settings.instruction or "")
        elif mode == "zero-shot" and chosen.prompt:
            prompt_text, prompt = chosen.prompt.text.tolist(), chosen.prompt.tokens.tolist()
        for number, piece in enumerate(pieces):
            draws = np.random.default_rng([settings.seed, number, _DRAWS])
            sampler = repetition_aware(decoder.settings.sampling, inverse_cdf(draws.random))
            ids = frontend.ids(piece)
            tokens, ended = decoder.collect(decoder.generate(ids, sampler, prompt_text, prompt))
            yield Decoded(piece, ids, tokens, ended)

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
        prompt = chosen.prompt if mode != "sft" else None
        condition = Condition(
            chosen.speaker, prompt.tokens.tolist() if prompt else (), prompt.mel if prompt else None
        )
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
        mel = flow.mel(tokens, condition, steps=settings.steps)
        if settings.speed != 1.0:
            mel = change_speed(mel, settings.speed)
        rng = np.random.default_rng([settings.seed, number, _NOISE])
        return mel, vocoder.synthesize(mel, vocoder.noise(mel.shape[2], rng)).audio[0]


def _mode(name: str, chosen: Voice, settings: Settings) -> str:
    """The mode to speak in; raises UsageError if the voice or the settings do not allow it."""
    mode = settings.mode
    if mode == "auto":
        mode = "instruct" if settings.instruction else "zero-shot" if chosen.prompt else "sft"
    if mode not in MODES:
        raise UsageError(discovery.unknown("mode", mode, MODES))
    if mode in ("zero-shot", "cross-lingual") and not chosen.prompt:
        raise UsageError(
            f"mode {mode} needs a voice with a prompt, and {name!r} has none; "
            "make one with 'edgepack voice add'"
        )
    if (mode == "instruct") != bool(settings.instruction):
        raise UsageError("mode instruct and an instruction go together; give both or neither")
    return mode
