"""Speech of the server, heard by OpenAI's client: formats, streams, events, the same samples."""

import base64
import io
import json
from pathlib import Path

import adts
import numpy as np
import pytest
import soundfile
from served import MODEL, Serve, Served

from edgepack.cli import main
from edgepack.runtime.audio.sound_file import sixteen_bits, wav_header
from edgepack.runtime.synthesizer import Settings, Synthesizer

TEXT = "Good morning. How are you?"


@pytest.fixture(scope="module")
def streamed(synthesizer: Synthesizer) -> np.ndarray:
    """The samples of the text as `run --stream` has them."""
    with synthesizer.stream(TEXT) as stream:
        return sixteen_bits(np.concatenate(list(stream)))


@pytest.mark.parametrize("kind", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
@pytest.mark.parametrize("stream", [True, False])
def test_the_client_gets_every_format(
    served: Served, streamed: np.ndarray, kind: str, stream: bool
) -> None:
    with served.client.audio.speech.with_streaming_response.create(
        model=MODEL,
        input=TEXT,
        voice="espeak_female",
        response_format=kind,  # type: ignore[arg-type]
        extra_body={"stream": stream},
    ) as response:
        data = response.read()
        assert response.headers["content-type"].startswith("audio/")
        assert ("content-length" in response.headers) is not stream
    if kind == "pcm":
        found = np.frombuffer(data, "<i2")
    elif kind == "aac":
        assert response.headers["content-type"] == "audio/aac"
        found = adts.decoded(data, 24_000)
    elif kind == "flac" and stream:  # libsndfile refuses one without a length
        assert data.startswith(b"fLaC")
        return
    else:
        found, rate = soundfile.read(io.BytesIO(data), dtype="int16")
        assert rate == 24_000
    seconds = len(found) / 24_000
    assert seconds == pytest.approx(len(streamed) / 24_000, abs=0.3 if stream else 0.5)
    assert np.abs(found.astype(float)).max() > 1000


def test_mp3_is_what_comes_if_no_format_is_asked_for(served: Served) -> None:
    data = served.client.audio.speech.create(model=MODEL, input=TEXT, voice="espeak_female").content
    assert soundfile.info(io.BytesIO(data)).format == "MP3"


def test_a_stream_has_the_samples_of_run(
    served: Served, streamed: np.ndarray, synthesizer: Synthesizer
) -> None:
    assert np.array_equal(_samples(served.speak(TEXT, response_format="pcm").body), streamed)
    again = served.speak(TEXT, response_format="pcm", seed=7, voice={"id": "espeak_male"})
    with synthesizer.stream(TEXT, Settings(voice="espeak_male", seed=7)) as stream:
        wanted = sixteen_bits(np.concatenate(list(stream)))
    assert np.array_equal(_samples(again.body), wanted)
    assert not np.array_equal(wanted, streamed)


def test_whole_audio_is_the_file_of_run(
    served: Served, synthesizer: Synthesizer, tmp_path: Path
) -> None:
    out = f"{tmp_path}/out.wav"
    folder = str(synthesizer.loaded.bundle.folder)
    options = ["--format", "ort", "--threads", "2", "--quiet", "--seed", "3"]
    assert main(["run", folder, TEXT, "-o", out, *options]) == 0
    found = served.speak(TEXT, response_format="wav", stream=False, seed=3).body
    wanted = soundfile.read(out, dtype="int16")[0]
    assert np.array_equal(soundfile.read(io.BytesIO(found), dtype="int16")[0], wanted)
    assert found == wav_header(24_000, len(wanted)) + wanted.tobytes()


def test_another_speed_is_whole_audio_of_another_length(served: Served) -> None:
    usual = served.speak(TEXT, response_format="wav", stream=False)
    fast = served.speak(TEXT, response_format="wav", speed=1.5)
    assert int(fast.headers["content-length"]) == len(fast.body)
    assert len(fast.body) / len(usual.body) == pytest.approx(1 / 1.5, rel=0.05)


def test_a_wav_stream_begins_before_its_length_is_known(
    served: Served, streamed: np.ndarray
) -> None:
    answer = served.speak(TEXT, response_format="wav")
    assert answer.body == wav_header(24_000) + streamed.tobytes()
    assert "content-length" not in answer.headers


@pytest.mark.parametrize("stream", [True, False])
def test_events_carry_the_audio_and_what_it_cost(
    served: Served, streamed: np.ndarray, stream: bool
) -> None:
    with served.client.audio.speech.with_streaming_response.create(
        model=MODEL,
        input=TEXT,
        voice="espeak_female",
        response_format="pcm",
        stream_format="sse",
        extra_body={"stream": stream},
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    *deltas, done = events
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    assert len(deltas) > 1
    audio = _samples(b"".join(base64.b64decode(event["audio"]) for event in deltas))
    assert np.array_equal(audio, streamed) is stream
    assert done["type"] == "speech.audio.done"
    usage = done["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert 0 < usage["input_tokens"] < usage["output_tokens"]
    synthesis = done["synthesis"]
    assert 0 <= synthesis["queued_seconds"] < synthesis["seconds"] < 60
    assert len(synthesis["stages"]) > 3
    assert all(0 < seconds < synthesis["seconds"] for seconds in synthesis["stages"].values())


def test_a_lead_of_silence_comes_first(serve: Serve, streamed: np.ndarray) -> None:
    found = serve(lead_seconds=0.25)
    for _ in ("made", "kept"):
        audio = _samples(found.speak(TEXT, response_format="pcm").body)
        assert not audio[:6000].any()
        assert np.array_equal(audio[6000:], streamed)


def test_instructions_are_another_way_to_speak(served: Served, streamed: np.ndarray) -> None:
    answer = served.speak(TEXT, response_format="pcm", instructions="Whisper.")
    assert answer.status == 200
    assert not np.array_equal(_samples(answer.body), streamed)


def _samples(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<i2")
