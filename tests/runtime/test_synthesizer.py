"""Text to speech end to end with the demo voice, in every runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from linked import linked
from support import GOLDEN, RUNTIMES, Build

from edgepack.bundle import voices
from edgepack.bundle.voices import Prompt
from edgepack.errors import UsageError
from edgepack.runtime.audio import sound_file, waveform
from edgepack.runtime.engines.session import engine
from edgepack.runtime.engines.watch import Recorder
from edgepack.runtime.stages.decode import Context
from edgepack.runtime.synthesizer import LoadOptions, Settings, Speech, Synthesizer
from edgepack.verification.quality import mel_cepstral_distortion

TEXT = "Good morning."
PROMPT_TEXT = "妈妈正在厨房里做晚饭。"
TOKEN = 960  # samples


@dataclass(frozen=True)
class Subject:
    """A synthesizer and a record of its network calls; `cloned` is a voice with this prompt."""

    synthesizer: Synthesizer
    recorder: Recorder
    prompt: Prompt

    def speak(self, text: str = TEXT, **settings: object) -> Speech:
        self.recorder.calls.clear()
        self.recorder.counts.clear()
        return self.synthesizer.speak(text, Settings(**settings))  # type: ignore[arg-type]

    def fed(self, stage: str, name: str) -> np.ndarray:
        """What the first call of a network was given."""
        return self.recorder.calls[stage][f"0000.{name}"]


@pytest.fixture(scope="module")
def folder(bundle: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo voice with a voice more, made of a recording of it."""
    demo = linked(bundle("demo"), tmp_path_factory.mktemp("voiced"))
    synthesizer = Synthesizer.load(demo.folder, "ort", 1)
    with np.load(GOLDEN / "demo-voice" / "sentences.npz") as recorded:
        spoken = waveform.Recording("prompt", recorded["zh02_wav"][0], 24000)
    ids = synthesizer.loaded.frontend.ids(PROMPT_TEXT)
    return voices.add(demo, "cloned", synthesizer.enroller.voice(spoken, ids)).folder


@pytest.fixture(scope="module")
def subjects(folder: Path) -> dict[str, Subject]:
    found = {}
    for runtime in RUNTIMES:
        recorder = Recorder()
        synthesizer = Synthesizer.load(folder, runtime, 2, options=LoadOptions(watchers=[recorder]))
        prompt = voices.read(synthesizer.loaded.bundle, "cloned")[1].prompt
        assert prompt
        found[runtime] = Subject(synthesizer, recorder, prompt)
    return found


@pytest.fixture(params=RUNTIMES)
def subject(request: pytest.FixtureRequest, subjects: dict[str, Subject]) -> Subject:
    return subjects[request.param]


@pytest.fixture
def ort(subjects: dict[str, Subject]) -> Subject:
    return subjects["ort"]


def assert_heard(speech: Speech) -> None:
    assert speech.faults == []
    assert speech.sample_rate == 24000
    assert speech.audio.dtype == np.float32
    assert 0.05 < np.abs(speech.audio).max() <= 1
    assert speech.audio_seconds == len(speech.audio) / 24000


@pytest.mark.parametrize(
    ("settings", "mode", "in_decoder", "in_flow"),
    [
        ({"mode": "sft"}, "sft", (0, 0), False),
        ({"mode": "zero-shot"}, "zero-shot", (1, 1), True),
        ({"mode": "cross-lingual"}, "cross-lingual", (0, 0), True),
        ({"mode": "instruct", "instruction": PROMPT_TEXT}, "instruct", (1, 0), True),
        ({}, "zero-shot", (1, 1), True),
        ({"instruction": PROMPT_TEXT}, "instruct", (1, 0), True),
        ({"voice": "espeak_male"}, "sft", (0, 0), False),
        ({"voice": "espeak_male", "instruction": PROMPT_TEXT}, "instruct", (1, 0), False),
    ],
    ids=lambda value: ",".join(value) or "nothing" if isinstance(value, dict) else None,
)
def test_each_mode_gives_the_networks_its_own_prompt(
    subject: Subject,
    settings: dict[str, str],
    mode: str,
    in_decoder: tuple[int, int],
    in_flow: bool,
) -> None:
    speech = subject.speak(**{"voice": "cloned", **settings})
    assert_heard(speech)
    assert (speech.mode, speech.voice) == (mode, settings.get("voice", "cloned"))

    frontend, prompt = subject.synthesizer.loaded.frontend, subject.prompt
    (utterance,) = speech.utterances
    before = frontend.instruction(PROMPT_TEXT) if mode == "instruct" else prompt.text.tolist()
    wanted = subject.synthesizer.loaded.decoder.prefix(
        frontend.ids(TEXT),
        Context(before * in_decoder[0], prompt.tokens.tolist() * in_decoder[1]),
    )
    calls = subject.recorder.calls["speech_lm"]
    blocks = [a for name, a in calls.items() if name.endswith("embeddings") and a.shape[1] > 1]
    first = 1 + len(before) if mode == "zero-shot" and len(blocks) == 1 else 0  # known by then
    assert np.array_equal(np.concatenate(blocks, 1), wanted[:, first:])

    tokens = utterance.decoded.speech_tokens
    spoken = [*prompt.tokens.tolist() * in_flow, *tokens, 0, 0, 0]
    assert subject.fed("flow_encoder", "tokens").tolist() == [spoken]
    cond = subject.fed("flow_estimator", "cond")[0].T
    conditioned = len(prompt.mel) * in_flow
    assert np.array_equal(cond[:conditioned], prompt.mel[:conditioned])
    assert not cond[conditioned:].any()
    assert utterance.mel.shape == (1, 80, 2 * len(tokens))
    assert len(speech.audio) == TOKEN * len(tokens)


def test_a_seed_gives_the_same_audio_again(subject: Subject) -> None:
    first, again, other = (subject.speak(seed=seed) for seed in (4, 4, 5))
    assert np.array_equal(first.audio, again.audio)
    assert not np.array_equal(first.audio, other.audio[: len(first.audio)])


def test_runtimes_say_the_same(subjects: dict[str, Subject]) -> None:
    ort, *others = (subjects[runtime].speak("你好，世界", seed=1) for runtime in RUNTIMES)
    for other in others:
        assert _tokens(other) == _tokens(ort)
        assert len(other.audio) == len(ort.audio)
        difference = np.linalg.norm(other.audio - ort.audio) / np.linalg.norm(ort.audio)
        assert 20 * np.log10(difference) < -60


def _tokens(speech: Speech) -> Sequence[int]:
    return speech.utterances[0].decoded.speech_tokens


def test_threads_do_not_change_what_is_said(folder: Path, ort: Subject) -> None:
    alone = Synthesizer.load(folder, "ort", threads=1)
    assert alone.loaded.host.threads == 1
    assert ort.synthesizer.loaded.host.threads == 2
    distortion = mel_cepstral_distortion(alone.speak(TEXT).audio, ort.speak().audio, 24000)
    assert distortion < 0.5


def test_speed_and_steps(subject: Subject) -> None:
    plain, fast = subject.speak(), subject.speak(speed=2.0, steps=3)
    calls = 3 if engine(subject.synthesizer.loaded.host.runtime).batches else 6
    assert subject.recorder.counts["flow_estimator"] == calls
    assert_heard(fast)
    assert fast.utterances[0].decoded == plain.utterances[0].decoded
    assert fast.utterances[0].mel.shape[2] == plain.utterances[0].mel.shape[2] // 2
    assert len(fast.audio) == pytest.approx(len(plain.audio) / 2, abs=480)


def test_voices_differ(ort: Subject) -> None:
    female, male = (ort.speak(voice=f"espeak_{which}") for which in ("female", "male"))
    assert female.utterances[0].decoded == male.utterances[0].decoded
    assert mel_cepstral_distortion(female.audio, male.audio, 24000) > 5


def test_time_is_accounted_for_by_stage(ort: Subject) -> None:
    ort.speak()
    speech = ort.speak()
    stages = ort.synthesizer.loaded.bundle.manifest.stages
    assert set(speech.stages) | {"flow_time"} == set(stages)  # which is embedded once
    assert 0 < sum(speech.stages.values()) <= speech.seconds
    assert 0 < speech.first_audio_seconds <= speech.seconds
    assert speech.real_time_factor == speech.seconds / speech.audio_seconds


def test_a_recording_is_said_again_by_another_voice(subject: Subject, tmp_path: Path) -> None:
    with np.load(GOLDEN / "demo-voice" / "sentences.npz") as recorded:
        original, tokens = recorded["en04_wav"][0], recorded["en04_tokens"]
    sound_file.write(tmp_path / "female.wav", original, 24000)
    settings = Settings(voice="espeak_male")
    speech = subject.synthesizer.convert(tmp_path / "female.wav", settings)
    assert_heard(speech)
    assert (speech.mode, speech.voice) == ("sft", "espeak_male")
    assert len(speech.audio) == len(original)
    heard = speech.utterances[0].decoded.speech_tokens
    assert np.mean(np.array(heard) == tokens) > 0.2
    aimed = subject.synthesizer.speak_tokens(tokens.tolist(), settings).audio
    other = subject.synthesizer.speak_tokens(tokens[::-1].tolist(), settings).audio
    near, far = (mel_cepstral_distortion(speech.audio, a, 24000) for a in (aimed, other))
    assert near < 0.6 * far


def test_excitation_noise_is_not_much_of_the_sound(subject: Subject) -> None:
    with np.load(GOLDEN / "demo-voice" / "sentences.npz") as recorded:
        silent, tokens = recorded["en03_wav"][0], recorded["en03_tokens"].tolist()
    first, second = (
        subject.synthesizer.speak_tokens(tokens, Settings(voice="espeak_male", seed=seed)).audio
        for seed in (1, 2)
    )
    assert not np.array_equal(first, second)
    assert mel_cepstral_distortion(first, silent, 24000) < 0.5
    assert mel_cepstral_distortion(second, silent, 24000) < 0.5


def test_one_token_is_speech_too(ort: Subject) -> None:
    speech = ort.synthesizer.speak_tokens([5], Settings(speed=4.0, strict=False))
    assert len(speech.audio) == TOKEN // 2


@pytest.mark.parametrize("tokens", [[], [-1], [3, 6561]])
def test_tokens_out_of_range_are_refused(ort: Subject, tokens: list[int]) -> None:
    with pytest.raises(UsageError, match="one or more numbers from 0 to 6560"):
        ort.synthesizer.speak_tokens(tokens)


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (" \n", {}, "nothing to speak"),
        (TEXT, {"voice": "espeak_mail"}, "unknown voice 'espeak_mail'; did you mean 'espeak_male'"),
        (TEXT, {"mode": "zeroshot"}, "unknown mode 'zeroshot'; did you mean 'zero-shot'"),
        (TEXT, {"voice": "espeak_male", "mode": "zero-shot"}, "'espeak_male' has none"),
        (TEXT, {"voice": "espeak_male", "mode": "cross-lingual"}, "'espeak_male' has none"),
        (TEXT, {"mode": "instruct"}, "mode instruct and an instruction go together"),
        (TEXT, {"mode": "sft", "instruction": "slow"}, "mode instruct and an instruction go"),
    ],
    ids=["no text", "voice", "mode", "no prompt", "no prompt 2", "no instruction", "other mode"],
)
def test_what_cannot_be_spoken_is_refused(
    ort: Subject, text: str, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ort.speak(text, **settings)
    assert not ort.recorder.calls
