"""Text to speech end to end with a bundle of CosyVoice3: prompts with an opening, and streams."""

import itertools
from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import pytest
from support import COSYVOICE3, RUNTIMES, Build

from edgepack.bundle import voices
from edgepack.bundle.voices import Prompt
from edgepack.runtime.engines.watch import Recorder
from edgepack.runtime.stages.silence import Silence
from edgepack.runtime.strategies.language_model import text_then_speech
from edgepack.runtime.synthesizer import LoadOptions, Settings, Speech, Synthesizer

TEXT = "今天天气很好，我们一起去公园散步吧。"
OPENING, MARK = "You are a helpful assistant.", "<|endofprompt|>"
OWN = f"Speak slowly.{MARK}"
TOKEN = 960  # samples
PROMPTED = "spk_zero_shot"


@dataclass(frozen=True)
class Subject:
    """A synthesizer and a record of its network calls; the voice PROMPTED has this prompt."""

    synthesizer: Synthesizer
    recorder: Recorder
    prompt: Prompt

    def speak(self, text: str = TEXT, **settings: object) -> Speech:
        self.recorder.calls.clear()
        self.recorder.counts.clear()
        how = Settings(strict=False, **settings)  # type: ignore[arg-type]
        return self.synthesizer.speak(text, how)

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.synthesizer.loaded.frontend.tokenizer.encode(text).ids
        return found


SPOKEN_BY = [
    pytest.param(name, marks=() if name == "ort" else pytest.mark.slow) for name in RUNTIMES
]


@pytest.fixture(scope="module", params=SPOKEN_BY)
def subject(request: pytest.FixtureRequest, bundle: Build) -> Subject:
    recorder, folder = Recorder(), bundle(COSYVOICE3[0])
    options = LoadOptions(watchers=[recorder])
    synthesizer = Synthesizer.load(folder, request.param, 2, options=options)
    prompt = voices.read(synthesizer.loaded.bundle, PROMPTED)[1].prompt
    assert prompt
    return Subject(synthesizer, recorder, prompt)


@pytest.mark.parametrize(
    ("settings", "text", "before", "spoken"),
    [
        ({"mode": "sft"}, TEXT, OPENING + MARK, False),
        ({"mode": "cross-lingual"}, TEXT, OPENING + MARK, False),
        ({"instruction": "慢一点"}, TEXT, f"慢一点{MARK}", False),
        ({"mode": "zero-shot"}, TEXT, "", True),  # the prompt was recorded with an opening
        ({"mode": "cross-lingual"}, OWN + TEXT, "", False),
    ],
    ids=["sft", "cross-lingual", "instruct", "zero-shot", "own-opening"],
)
def test_the_language_model_always_has_an_opening(
    subject: Subject, settings: dict[str, str], text: str, before: str, spoken: bool
) -> None:
    speech = subject.speak(text, voice=PROMPTED, **settings)
    decoder, prompt = subject.synthesizer.loaded.decoder, subject.prompt
    assert isinstance(decoder.settings, text_then_speech.Record)
    prompt_text, prompt_tokens = prompt.text.tolist() * spoken, prompt.tokens.tolist() * spoken
    wanted = [
        decoder.embed_speech([decoder.settings.start]),
        decoder.embed_text([*subject.ids(before), *prompt_text, *subject.ids(text)]),
        decoder.embed_speech([decoder.settings.task, *prompt_tokens]),
    ]
    calls = subject.recorder.calls["speech_lm"]
    blocks = [a for name, a in calls.items() if name.endswith("embeddings") and a.shape[1] > 1]
    np.testing.assert_array_equal(np.concatenate(blocks, 1), np.concatenate(wanted, 1))
    assert len(speech.utterances) == 1


@pytest.mark.parametrize("mode", ["sft", "zero-shot"])
def test_a_stream_has_the_tokens_of_the_whole_and_as_many_samples(
    subject: Subject, mode: str
) -> None:
    seed = _seed_of_long_speech(subject, mode)
    whole = subject.speak(voice=PROMPTED, mode=mode, seed=seed)
    how = Settings(voice=PROMPTED, mode=mode, seed=seed, strict=False)
    with subject.synthesizer.stream(TEXT, how) as stream:
        chunks = list(stream)
    assert len(chunks) > 1
    assert [u.decoded for u in stream.speech.utterances] == [u.decoded for u in whole.utterances]
    assert len(np.concatenate(chunks)) == len(whole.audio)
    tokens = whole.utterances[0].decoded.speech_tokens
    assert len(whole.audio) == TOKEN * len(tokens)
    assert whole.utterances[0].mel.shape[2] == 2 * len(tokens)


def _seed_of_long_speech(subject: Subject, mode: str) -> int:
    """A seed with which speech does not end in its first chunk: the weights are random."""
    for seed in range(100):
        speech = subject.speak(voice=PROMPTED, mode=mode, seed=seed)
        if len(speech.utterances[0].decoded.speech_tokens) > 60:
            return seed
    raise AssertionError("speech always ends early")


def test_text_may_arrive_in_pieces(subject: Subject) -> None:
    how = Settings(voice=PROMPTED, mode="zero-shot", seed=3, strict=False)
    subject.recorder.calls.clear()
    subject.recorder.counts.clear()
    with subject.synthesizer.stream(iter("你好"), how) as stream:
        audio = np.concatenate(list(stream))
    decoder = subject.synthesizer.loaded.decoder
    assert isinstance(decoder.settings, text_then_speech.Record)
    first = subject.recorder.calls["speech_lm"]["0000.embeddings"]
    start = decoder.embed_speech([decoder.settings.start])
    opening = decoder.embed_text(subject.ids(OPENING + MARK))
    wanted = np.concatenate([start, opening], 1)
    np.testing.assert_array_equal(first[:, : wanted.shape[1]], wanted)
    (utterance,) = stream.speech.utterances
    assert len(audio) == TOKEN * len(utterance.decoded.speech_tokens)


def test_long_silences_are_not_made_to_sound(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [1, 2, *itertools.repeat(29, 8), 700, 701, *itertools.repeat(55, 3), 702]

    def generate(*_: object, **__: object) -> Generator[int, None, bool]:
        yield from given
        return True

    decoder = type(subject.synthesizer.loaded.decoder)
    monkeypatch.setattr(decoder, "generate", generate)
    speech = subject.speak()
    (utterance,) = speech.utterances
    settings = subject.synthesizer.loaded.decoder.settings
    assert isinstance(settings, text_then_speech.Record)
    kept = Silence(frozenset(settings.silent), settings.longest_silence).cut(given)
    assert utterance.decoded.speech_tokens == list(kept)
    assert len(speech.audio) == TOKEN * (len(given) - 5)
