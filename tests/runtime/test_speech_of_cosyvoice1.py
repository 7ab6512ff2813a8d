"""Text to speech end to end with a bundle of CosyVoice 1: what each mode gives, and streams."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from linked import linked
from support import COSYVOICE1, GOLDEN, RUNTIMES, Build

from edgepack.bundle import voices
from edgepack.bundle.voices import Voice
from edgepack.errors import UsageError
from edgepack.runtime.audio import waveform
from edgepack.runtime.engines.watch import Recorder
from edgepack.runtime.strategies.language_model.speaker_then_text import SpeakerThenText
from edgepack.runtime.synthesizer import LoadOptions, Settings, Speech, Synthesizer

TEXT, PROMPT_TEXT = "今天天气很好，我们一起去公园散步吧。", "Hi 你好"
RECORDING = GOLDEN / "common" / "prompt_24k.wav"
SPEAKER, PROMPTED = "spk_sft", "prompted"
HOP, OVERLAP = 100, 20  # tokens of a chunk
RATE, SAMPLES = 22050, 256  # of audio, and those of a mel frame


def frames(tokens: int) -> int:
    """Whole mel frames of speech tokens, of which there are 50 a second."""
    return int(tokens / 50 * RATE / SAMPLES)


@dataclass(frozen=True)
class Subject:
    """A synthesizer and a record of its network calls; the voice PROMPTED has a prompt."""

    synthesizer: Synthesizer
    recorder: Recorder
    prompted: Voice

    def speak(self, **settings: object) -> Speech:
        self.recorder.calls.clear()
        self.recorder.counts.clear()
        how = Settings(strict=False, **settings)  # type: ignore[arg-type]
        return self.synthesizer.speak(TEXT, how)

    def ids(self, text: str) -> list[int]:
        return self.synthesizer.loaded.frontend.ids(text)

    @property
    def decoder(self) -> SpeakerThenText:
        decoder = self.synthesizer.loaded.decoder
        assert isinstance(decoder, SpeakerThenText)
        return decoder


SPOKEN_BY = [
    pytest.param(name, marks=() if name == "ort" else pytest.mark.slow) for name in RUNTIMES
]


@pytest.fixture(scope="module", params=SPOKEN_BY)
def subject(
    request: pytest.FixtureRequest, bundle: Build, tmp_path_factory: pytest.TempPathFactory
) -> Subject:
    recorder = Recorder()
    own = linked(bundle(COSYVOICE1[0]), tmp_path_factory.mktemp("voiced"))
    synthesizer = Synthesizer.load(own.folder, request.param, 2, LoadOptions(watchers=[recorder]))
    ids = synthesizer.loaded.frontend.ids(PROMPT_TEXT)
    prompted = synthesizer.enroller.voice(waveform.read(Path(RECORDING)), ids)
    voices.add(own, PROMPTED, prompted)
    return Subject(synthesizer, recorder, prompted)


@pytest.mark.parametrize(
    ("settings", "before", "told_who", "spoken"),
    [
        ({"voice": SPEAKER}, "", True, False),
        ({"voice": PROMPTED}, PROMPT_TEXT, True, True),
        ({"voice": PROMPTED, "mode": "cross-lingual"}, "", True, False),
        ({"voice": SPEAKER, "instruction": "慢一点"}, "慢一点<endofprompt>", False, False),
    ],
    ids=["sft", "zero-shot", "cross-lingual", "instruct"],
)
def test_the_language_model_is_given_what_the_mode_has(
    subject: Subject, settings: dict[str, str], before: str, told_who: bool, spoken: bool
) -> None:
    speech = subject.speak(**settings)
    decoder, prompt = subject.decoder, subject.prompted.prompt
    assert prompt
    speaker = subject.synthesizer.loaded.voices.read(settings["voice"])[1].speaker
    wanted = [
        decoder.embed_speech([decoder.settings.start]),
        *([decoder.embed_speaker(speaker)] if told_who else []),
        decoder.encode_text([*subject.ids(before), *subject.ids(TEXT)]),
        decoder.embed_speech([decoder.settings.task, *prompt.tokens.tolist() * spoken]),
    ]
    first = subject.recorder.calls["speech_lm"]["0000.embeddings"]
    np.testing.assert_allclose(first, np.concatenate(wanted, 1), rtol=0, atol=1e-6)
    (utterance,) = speech.utterances
    assert speech.sample_rate == RATE
    assert utterance.mel.shape[2] == frames(len(utterance.decoded.speech_tokens))
    assert len(speech.audio) == SAMPLES * utterance.mel.shape[2]


def test_a_seed_draws_the_noise_of_the_mel_as_well(subject: Subject) -> None:
    tokens = list(range(60))
    mels = [
        subject.synthesizer.speak_tokens(tokens, Settings(voice=SPEAKER, seed=seed, strict=False))
        .utterances[0]
        .mel
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(mels[0], mels[1])
    assert not np.array_equal(mels[0], mels[2])


@pytest.mark.parametrize("voice", [SPEAKER, PROMPTED])
def test_a_stream_speaks_the_tokens_of_the_whole_in_chunks(subject: Subject, voice: str) -> None:
    whole = subject.speak(voice=voice, seed=3)
    with subject.synthesizer.stream(TEXT, Settings(voice=voice, seed=3, strict=False)) as stream:
        chunks = list(stream)
    (utterance,) = whole.utterances
    assert [u.decoded for u in stream.speech.utterances] == [utterance.decoded]
    count = len(utterance.decoded.speech_tokens)
    assert count > HOP + OVERLAP, "the seed gives too few tokens for two chunks"
    full = (count - OVERLAP) // HOP
    wanted = [*[frames(HOP + OVERLAP) - frames(OVERLAP)] * full, frames(count - full * HOP)]
    assert sum(map(len, chunks)) == SAMPLES * sum(wanted)
    assert len(chunks) > 1


def test_text_that_arrives_in_pieces_is_refused(subject: Subject) -> None:
    stream = subject.synthesizer.stream(iter(["今天", "很好"]), Settings(strict=False))
    with stream, pytest.raises(UsageError, match="reads a text as a whole"):
        list(stream)
