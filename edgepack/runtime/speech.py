"""Settings of a synthesis, and its results."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from edgepack import discovery
from edgepack.bundle.voices import Voice
from edgepack.errors import UsageError

MODES = ("auto", "sft", "zero-shot", "cross-lingual", "instruct")


@dataclass(frozen=True)
class Settings:
    """How to speak.

    `voice` is a name, None for the bundle's default voice. `mode` is one of MODES: auto is instruct
    where there is an instruction, else zero-shot for a voice with a prompt and sft for one without.
    `solver` is one of `runtime.stages.solver.NAMES`: auto is the calibrated one where the bundle
    has it. `steps` are the reference solver's, None for the checkpoint's own number. `speed` above
    1 is faster. With `strict` a fault of the audio is an error, otherwise it is only reported.
    `strict_language` refuses text that is not in the bundle's languages. `overlap` is whether
    sentences are decoded ahead, None for what the plan of the CPUs says. `lexicon` has the readings
    of words, as `runtime.text.lexicon` applies them. The same `seed` gives the same audio.
    """

    voice: str | None = None
    mode: str = "auto"
    instruction: str | None = None
    seed: int = 0
    solver: str = "auto"
    steps: int | None = None
    speed: float = 1.0
    strict: bool = True
    strict_language: bool = False
    overlap: bool | None = None
    lexicon: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Decoded:
    """Speech tokens of one piece of text; `ended` unless they hit the length limit.

    `least` is the number of tokens that the text should have at least. `rows` is how many pieces
    were decoded in one call with it at most, itself included.
    """

    text: str
    text_ids: list[int]
    speech_tokens: list[int]
    ended: bool
    least: int = 0
    rows: int = 1


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

    `foreign` is the share of characters that are not in the bundle's languages. `unread` are words
    that the language's grammar could not read; they were spoken as they are written. `arrivals` are
    the chunks of a stream: when each was there, in seconds since the start, and its seconds of
    audio.
    """

    sample_rate: int
    voice: str
    mode: str
    utterances: list[Utterance]
    stages: dict[str, float]
    seconds: float
    foreign: float = 0.0
    unread: tuple[str, ...] = ()
    arrivals: tuple[tuple[float, float], ...] = ()

    @cached_property
    def audio(self) -> np.ndarray:
        """All utterances, float32 [n]."""
        return np.concatenate([u.audio for u in self.utterances])

    @property
    def audio_seconds(self) -> float:
        """Length of the audio in seconds."""
        return len(self.audio) / self.sample_rate

    @property
    def real_time_factor(self) -> float:
        """Synthesis seconds a second of audio; below 1 is faster than real time.

        No audio counts as one sample, so that the factor is finite, and very large.
        """
        return self.seconds / max(self.audio_seconds, 1 / self.sample_rate)

    @property
    def first_audio_seconds(self) -> float:
        """From the request to the first audio handed out."""
        return self.utterances[0].ready

    @property
    def rows(self) -> int:
        """How many utterances were decoded in one call at most, of this text and of others."""
        return max((u.decoded.rows for u in self.utterances), default=1)

    @property
    def faults(self) -> list[str]:
        """Faults of all utterances."""
        return [fault for u in self.utterances for fault in u.faults]


def mode_of(name: str, chosen: Voice, settings: Settings) -> str:
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
