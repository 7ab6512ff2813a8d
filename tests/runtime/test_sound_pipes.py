"""Sound into pipes and devices: what their readers hear is a file that others read."""

import io
import os
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from outputs import Pipe, device

from edgepack.errors import UsageError
from edgepack.runtime.audio.sound_file import FORMATS, Writer, format_of, write

RATE = 24000
TONE = (0.5 * np.sin(np.arange(2 * RATE) / 20)).astype(np.float32)


@pytest.mark.parametrize("name", ["pipe", *(f"pipe{ending}" for ending in FORMATS)])
def test_a_pipe_gets_a_whole_file(tmp_path: Path, name: str) -> None:
    with Pipe(tmp_path / name) as pipe:
        write(pipe.path, TONE, RATE)
    write(tmp_path / f"file{pipe.path.suffix or '.wav'}", TONE, RATE)
    file = tmp_path / f"file{pipe.path.suffix or '.wav'}"
    heard, rate = soundfile.read(io.BytesIO(pipe.heard))
    wanted, _ = soundfile.read(file)
    assert rate == soundfile.info(file).samplerate
    np.testing.assert_allclose(heard, wanted, atol=1e-3)
    if pipe.path.suffix in ("", ".wav"):
        with wave.open(io.BytesIO(pipe.heard)) as read:
            assert read.getnframes() == len(TONE)


def test_a_stream_goes_into_a_pipe_as_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with Writer(path, RATE, live=True) as writer:
        writer.write(TONE[:1000])
        heard = os.read(reader, 1 << 16)
        assert len(heard) == 44 + 2 * 1000
        writer.write(TONE[1000:2000])
        heard += os.read(reader, 1 << 16)
    assert os.read(reader, 1) == b""
    os.close(reader)
    samples, rate = soundfile.read(io.BytesIO(heard))
    assert rate == RATE
    np.testing.assert_allclose(samples, TONE[:2000], atol=1e-4)
    with wave.open(io.BytesIO(heard)) as read:
        assert (read.getnchannels(), read.getsampwidth(), read.getframerate()) == (1, 2, RATE)
        assert len(read.readframes(3000)) == 2 * 2000  # until the end, whatever its header says


@pytest.mark.parametrize("live", [False, True])
def test_a_device(tmp_path: Path, live: bool) -> None:
    null = device(tmp_path / "null", 3)
    with Writer(null, RATE, live=live) as writer:
        writer.write(TONE)
    assert null.is_char_device()
    assert list(tmp_path.iterdir()) == [null]


def test_names_of_pipes(tmp_path: Path) -> None:
    for name in ("pipe", "pipe.mp3", "pipe.aac"):
        os.mkfifo(tmp_path / name)
    assert format_of(tmp_path / "pipe", live=True) == FORMATS[".wav"]
    assert format_of(tmp_path / "pipe.mp3") == FORMATS[".mp3"]
    with pytest.raises(UsageError, match="is wav"):
        format_of(tmp_path / "pipe.mp3", live=True)
    with pytest.raises(UsageError, match="end its name"):
        format_of(tmp_path / "pipe.aac")
