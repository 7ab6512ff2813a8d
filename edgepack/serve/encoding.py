"""Audio in the formats of the API, piece by piece while it is made, or as a whole.

libsndfile writes headers again when it knows the length. Of a stream only what is appended can be
sent: its headers tell no length. Whole audio has exact ones.
"""

import io
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import soundfile

from edgepack.errors import UnsupportedError
from edgepack.runtime.audio.sound_file import BLOCK, FORMATS, wav_header

MEDIA_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
# Which version of an encoder's settings made bytes that are kept; part of their key.
SETTINGS = "1"

_PAGE_LATENCY = 0x1302  # SFC_SET_OGG_PAGE_LATENCY_MS of sndfile.h, which python-soundfile lacks
_PAGE_MS = 100.0


def media_type(kind: str, rate: int) -> str:
    """The MIME type of a format; that of samples without a header tells their rate."""
    return f"audio/pcm;rate={rate};channels=1" if kind == "pcm" else MEDIA_TYPES[kind]


def supported(rate: int) -> list[str]:
    """The formats that audio of a sample rate can be written in."""
    return [kind for kind in MEDIA_TYPES if _writes(kind, rate)]


def _writes(kind: str, rate: int) -> bool:
    try:
        require(kind, rate)
    except UnsupportedError:
        return False
    return True


def require(kind: str, rate: int) -> None:
    """Raise UnsupportedError if audio of a sample rate cannot be written in a format here."""
    whole(kind, rate, np.zeros(1, np.int16))


def whole(kind: str, rate: int, samples: np.ndarray) -> bytes:
    """All of an utterance, int16 [n], in a format, with its length in the header if it has one."""
    if kind == "pcm":
        return samples.tobytes()
    if kind == "wav":
        return wav_header(rate, len(samples)) + samples.tobytes()
    file = io.BytesIO()
    writer = _opened(kind, rate, file)
    writer.add(samples)
    writer.finish()
    return file.getvalue()


class Encoder:
    """Encodes audio of unknown length; one thread at a time may use it."""

    def __init__(self, kind: str, rate: int) -> None:
        """Begin; raises UnsupportedError for a format that is not here, or lacks the rate."""
        self._sink = _Appended()
        self._sound = None if kind in ("wav", "pcm") else _opened(kind, rate, self._sink)
        if kind == "wav":
            self._sink.write(wav_header(rate))

    def add(self, samples: np.ndarray) -> bytes:
        """What can be sent after samples int16 [n] more; may be nothing yet."""
        if self._sound:
            self._sound.add(samples)
        else:
            self._sink.write(samples.tobytes())
        return self._sink.taken()

    def finish(self) -> bytes:
        """The end, with every sample that was added."""
        if self._sound:
            self._sound.finish()
        return self._sink.taken()


class _Writer(Protocol):
    """Encoded audio that is being written to a file object."""

    def add(self, samples: np.ndarray) -> None: ...

    def finish(self) -> None: ...


def _opened(kind: str, rate: int, file: "io.BytesIO | _Appended") -> _Writer:
    if kind != "aac":
        return _Sound(kind, rate, file)
    try:
        from edgepack.serve.aac import AdtsSound
    except ImportError:
        raise UnsupportedError(
            "aac needs PyAV on the server: pip install 'edgepack[aac]'"
        ) from None
    return AdtsSound(rate, file)


class _Sound:
    """A sound file of libsndfile that is being written to a file object."""

    def __init__(self, kind: str, rate: int, file: "io.BytesIO | _Appended") -> None:
        form = FORMATS[f".{kind}"]
        # A variable bit rate is told in the first frame, which only a finished file can have. The
        # package passes the mode on only together with a level.
        mode = {"bitrate_mode": "CONSTANT", "compression_level": 0.5} if kind == "mp3" else {}
        try:
            self._file = soundfile.SoundFile(
                file, "w", rate, 1, form.subtype, format=form.format, **mode
            )
        except soundfile.LibsndfileError as error:
            raise UnsupportedError(f"{kind} with {rate} samples a second: {error}") from None
        if kind == "opus":
            latency = soundfile._ffi.new("double *", _PAGE_MS)
            soundfile._snd.sf_command(self._file._file, _PAGE_LATENCY, latency, 8)

    def add(self, samples: np.ndarray) -> None:
        for start in range(0, len(samples), BLOCK):
            self._file.write(samples[start : start + BLOCK])

    def finish(self) -> None:
        self._file.close()


@dataclass
class _Appended:
    """A file object that keeps what is appended until it is taken; other writes are lost."""

    _at: int = 0
    _size: int = 0
    _new: bytes = b""

    def write(self, data: bytes) -> int:
        data = bytes(data)
        known = max(0, self._size - self._at)  # a header that is written again
        self._new += data[known:]
        self._at += len(data)
        self._size = max(self._size, self._at)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        return b""

    def taken(self) -> bytes:
        taken, self._new = self._new, b""
        return taken
