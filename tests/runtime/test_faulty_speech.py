"""Speech that goes wrong, and texts in pieces: the demo voice with some networks replaced."""

import json
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from fakes import Fake, language_model, prefer
from support import Build

from edgepack.cli import main
from edgepack.errors import GateError
from edgepack.runtime.engines.session import Feeds
from edgepack.runtime.engines.watch import Clock
from edgepack.runtime.loading import Loaded, load
from edgepack.runtime.stages.decode import SpeechDecoder
from edgepack.runtime.synthesizer import Settings, Speech, Synthesizer

TEXT = "Good morning."
TWO_SENTENCES = (
    f"{'I have had a cup of tea and ' * 9}milk. {'There is more of it now and ' * 9}then."
)
FRAME = 480
SPEECH_TOKENS = 6561
STOP = SPEECH_TOKENS + 1  # which is not masked before the least length


@pytest.fixture(scope="module")
def demo(bundle: Build) -> Loaded:
    return load(bundle("demo"), "ort", 2)


def saying(demo: Loaded, *texts: Sequence[int], stop: int = STOP, min_ratio: float = 0.0) -> Loaded:
    """The demo voice with a language model that says these tokens, one text after the other."""
    choices = [token for spoken in texts for token in (*spoken, stop)]
    logits = [prefer(SPEECH_TOKENS + 3, token) for token in choices]
    settings = msgspec.structs.replace(demo.decoder.settings, min_ratio=min_ratio)
    decoder = replace(demo.decoder, language_model=language_model(logits), settings=settings)
    return replace(demo, decoder=decoder)


def sounding(demo: Loaded, sample: float) -> Loaded:
    """The demo voice with a vocoder whose samples are all the same."""

    def generate(feeds: Feeds) -> dict[str, np.ndarray]:
        return {"audio": np.full((1, FRAME * feeds["mel"].shape[2]), sample, np.float32)}

    return replace(saying(demo, [1, 2]), vocoder=replace(demo.vocoder, vocoder=Fake(generate)))


def speak(loaded: Loaded, text: str = TEXT, *, strict: bool = False, seed: int = 0) -> Speech:
    return Synthesizer(loaded, Clock()).speak(text, Settings(strict=strict, seed=seed))


def tokens(speech: Speech) -> list[list[int]]:
    return [utterance.decoded.speech_tokens for utterance in speech.utterances]


@pytest.mark.parametrize(
    ("sample", "fault"), [(0.0, "silence: no sample above"), (np.nan, "the vocoder gave NaN")]
)
def test_faulty_audio_is_an_error_unless_it_is_wanted(
    demo: Loaded, sample: float, fault: str
) -> None:
    with pytest.raises(GateError, match=fault):
        speak(sounding(demo, sample), strict=True)
    (found,) = speak(sounding(demo, sample)).faults
    assert found.startswith(fault)


@pytest.mark.parametrize("streamed", [False, True])
def test_an_end_before_the_least_length_is_told(demo: Loaded, streamed: bool) -> None:
    early = saying(demo, [1, 2], min_ratio=2.0)
    synthesizer = Synthesizer(early, Clock())
    settings = Settings(strict=False)
    if streamed:
        with synthesizer.stream(TEXT, settings) as stream:
            list(stream)
        speech = stream.speech
    else:
        speech = synthesizer.speak(TEXT, settings)
    least = 2 * len(speech.utterances[0].decoded.text_ids)
    assert speech.utterances[0].decoded.speech_tokens == [1, 2]
    assert f"ended early: 2 of at least {least} tokens" in speech.faults[0]
    with pytest.raises(GateError, match="ended early"):
        speak(saying(demo, [1, 2], min_ratio=2.0), strict=True)


def test_fine_audio_passes_the_guard(demo: Loaded) -> None:
    assert speak(sounding(demo, 0.5), strict=True).faults == []


def test_a_language_model_without_an_end_is_stopped(demo: Loaded) -> None:
    with pytest.raises(GateError, match=r"runaway: .* without an end"):
        speak(saying(demo, [], stop=7), strict=True)
    speech = speak(saying(demo, [], stop=7))
    (utterance,) = speech.utterances
    assert not utterance.decoded.ended
    assert len(utterance.decoded.speech_tokens) == 20 * len(utterance.decoded.text_ids)
    assert len(speech.audio) == 2 * FRAME * len(utterance.decoded.speech_tokens)


def test_no_token_is_no_audio(demo: Loaded) -> None:
    loaded = saying(demo, [])
    with pytest.raises(GateError, match="no speech: the language model ended at once"):
        speak(loaded, strict=True)
    speech = speak(loaded)
    assert tokens(speech) == [[]]
    assert speech.audio.shape == (0,)
    assert speech.utterances[0].mel.shape == (1, 80, 0)
    assert speech.audio_seconds == 0
    assert speech.real_time_factor == speech.seconds * speech.sample_rate


def test_no_audio_is_reported_in_valid_json(
    bundle: Build,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def nothing(*arguments: object, **options: object) -> Generator[int, None, bool]:
        yield from ()
        return True

    monkeypatch.setattr(SpeechDecoder, "generate", nothing)
    output = tmp_path / "a.wav"
    arguments = ["run", str(bundle("demo")), TEXT, "-o", str(output), "--guard", "warn"]
    assert main([*arguments, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["audio_seconds"] == 0
    assert record["rtf"] > 1
    assert [warning.split(":")[0] for warning in record["warnings"]] == ["no speech"]
    assert main(arguments) == 0
    assert "0.00 s of audio" in capsys.readouterr().out


def test_a_long_text_is_spoken_in_pieces(demo: Loaded) -> None:
    speech = speak(saying(demo, [1, 2, 3], [4, 5]), TWO_SENTENCES)
    first, second = speech.utterances
    assert tokens(speech) == [[1, 2, 3], [4, 5]]
    assert f"{first.decoded.text}{second.decoded.text}" == TWO_SENTENCES
    assert np.array_equal(speech.audio, np.concatenate([first.audio, second.audio]))
    assert (len(first.audio), len(second.audio)) == (6 * FRAME, 4 * FRAME)
    assert 0 < speech.first_audio_seconds == first.ready < second.ready <= speech.seconds


def test_a_piece_without_speech_does_not_hide_the_others(demo: Loaded) -> None:
    speech = speak(saying(demo, [], [4, 5]), TWO_SENTENCES)
    assert tokens(speech) == [[], [4, 5]]
    assert len(speech.audio) == 4 * FRAME
    assert speech.faults[0].startswith("no speech")


def test_each_piece_has_noise_of_its_own(demo: Loaded) -> None:
    first, second = speak(saying(demo, [1, 2], [1, 2]), TWO_SENTENCES).utterances
    assert np.array_equal(first.mel, second.mel)
    assert not np.array_equal(first.audio, second.audio)


def test_each_piece_has_draws_of_its_own(demo: Loaded) -> None:
    size = SPEECH_TOKENS + 3
    logits = [*[np.zeros(size, np.float32)] * 8, prefer(size, STOP)] * 2

    def spoken(seed: int) -> list[list[int]]:
        decoder = replace(demo.decoder, language_model=language_model(logits))
        return tokens(speak(replace(demo, decoder=decoder), TWO_SENTENCES, seed=seed))

    first, second = spoken(0)
    assert len(first) == len(second) == 8
    assert first != second
    assert spoken(0) == [first, second]
    assert spoken(1)[0] != first
