"""Formats of the served audio, by decoding what was sent."""

import io

import adts
import numpy as np
import pytest
import soundfile

from edgepack.errors import UnsupportedError
from edgepack.runtime.audio import sound_file
from edgepack.serve import encoding

RATE = 24_000
LOSSLESS = ("flac", "wav")


@pytest.fixture(scope="module")
def tone() -> np.ndarray:
    """Four seconds of a tone that grows, int16."""
    time = np.arange(4 * RATE) / RATE
    return (20_000 * np.sin(2 * np.pi * 220 * time) * time / 4).astype(np.int16)


def streamed(kind: str, samples: np.ndarray) -> list[bytes]:
    encoder = encoding.Encoder(kind, RATE)
    pieces = [encoder.add(piece) for piece in np.split(samples, 16)]
    return [*pieces, encoder.finish()]


def decoded(data: bytes) -> np.ndarray:
    found, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate == RATE
    return found


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_formats_keep_every_sample(kind: str, tone: np.ndarray) -> None:
    data = encoding.whole(kind, RATE, tone)
    assert np.array_equal(decoded(data), tone)
    assert soundfile.info(io.BytesIO(data)).frames == len(tone)


def test_pcm_is_the_samples(tone: np.ndarray) -> None:
    assert b"".join(streamed("pcm", tone)) == tone.tobytes() == encoding.whole("pcm", RATE, tone)


def test_a_wav_stream_is_one_header_without_a_length_and_the_samples(tone: np.ndarray) -> None:
    data = b"".join(streamed("wav", tone))
    assert data == sound_file.wav_header(RATE) + tone.tobytes()
    assert data[4:8] == data[40:44] == b"\xff" * 4


def test_the_header_of_whole_wav_is_exact(tone: np.ndarray) -> None:
    data = encoding.whole("wav", RATE, tone)
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    assert int.from_bytes(data[40:44], "little") == len(data) - 44


@pytest.mark.parametrize("kind", ["mp3", "opus", "aac"])
def test_a_stream_of_a_lossy_format_is_complete_and_comes_early(
    kind: str, tone: np.ndarray
) -> None:
    pieces = streamed(kind, tone)
    sent = np.cumsum([len(piece) for piece in pieces])
    assert sent[8] > sent[-1] / 5  # half of the audio was given
    data = b"".join(pieces)
    found = adts.decoded(data, RATE) if kind == "aac" else decoded(data)
    late = len(found) - len(tone)
    most = {"mp3": 2400, "opus": 0, "aac": 2048}  # mp3 and aac have whole frames and a delay
    assert 0 <= late <= most[kind]
    end = found[len(tone) - 4800 : len(tone) - 1200]  # not where the tone breaks off
    assert np.abs(end.astype(float)).max() == pytest.approx(20_000, rel=0.1)


def test_opus_pages_are_a_tenth_of_a_second(tone: np.ndarray) -> None:
    data = b"".join(streamed("opus", tone))
    assert 35 <= data.count(b"OggS") <= 60  # for four seconds, with two of headers


def test_a_flac_stream_has_every_sample(tone: np.ndarray) -> None:
    data = b"".join(streamed("flac", tone))
    held = encoding.whole("flac", RATE, tone)
    begin = data.index(b"\xff\xf8")  # the sync code of the first frame
    assert data[begin:] == held[held.index(b"\xff\xf8") :]
    assert data.startswith(b"fLaC")


def test_a_rate_that_a_format_lacks_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="opus with 22050 samples"):
        encoding.Encoder("opus", 22_050)
    with pytest.raises(UnsupportedError, match="aac with 12345 samples"):
        encoding.Encoder("aac", 12_345)
    assert encoding.supported(22_050) == ["mp3", "aac", "flac", "wav", "pcm"]
    assert encoding.supported(RATE) == ["mp3", "opus", "aac", "flac", "wav", "pcm"]


def test_whole_aac_is_what_a_stream_of_it_is(tone: np.ndarray) -> None:
    assert encoding.whole("aac", RATE, tone) == b"".join(streamed("aac", tone))


def test_samples_are_those_that_libsndfile_writes() -> None:
    given = np.random.default_rng(0).uniform(-1.1, 1.1, 10_000).astype(np.float32)
    given[:4] = 1, -1, 0, 4.9999924 / 32768  # just below a value of 16 bits
    file = io.BytesIO()
    soundfile.write(file, given, RATE, format="WAV", subtype="PCM_16")
    assert np.array_equal(decoded(file.getvalue()), sound_file.sixteen_bits(given))
