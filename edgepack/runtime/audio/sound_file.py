"""Sound files to write, whole or while they grow. Waveforms are float32 in ±1."""

import io
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile

from edgepack import places, shortage
from edgepack.atomic import NewFile, naming
from edgepack.errors import UnsupportedError, UsageError

_INT16 = 32767
_ENDLESS = 0xFFFFFFFF  # the length in a header before it is known: readers go on to the end
_BLOCK = 24_000  # samples at a time: encoders of libsndfile have what they are given on the stack


class Format(NamedTuple):
    """Names of libsndfile."""

    format: str
    subtype: str


FORMATS = {
    ".wav": Format("WAV", "PCM_16"),
    ".flac": Format("FLAC", "PCM_16"),
    ".ogg": Format("OGG", "VORBIS"),
    ".opus": Format("OGG", "OPUS"),
    ".mp3": Format("MP3", "MPEG_LAYER_III"),
}


def format_of(path: Path, *, live: bool = False) -> Format:
    """The format that a file's name asks for, wav for a device or a pipe whose name asks for none.

    Raises UsageError for others, and for what a pipe cannot get `live`, while it is made.
    """
    into = places.keeps_its_name(path)
    found = FORMATS.get(path.suffix.lower() or ".wav" * into)
    if found is None:
        raise UsageError(
            f"{path}: end its name with {', '.join(FORMATS)}; for another format convert a file: "
            f"ffmpeg -i out.wav {path.name}"
        )
    if live and into and found != FORMATS[".wav"]:
        raise UsageError(
            f"{path}: a stream into a device or a pipe is wav; name it .wav, or leave out --stream"
        )
    return found


def _header(rate: int) -> bytes:
    """What a wav file of 16-bit mono begins with that nobody goes back in to say how long it is."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", _ENDLESS, b"WAVE") + form + b"data" + b"\xff" * 4


def write(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write mono sound in the format of the name; the file appears whole or not at all."""
    with Writer(path, rate) as writer:
        for start in range(0, len(samples), _BLOCK):
            writer.write(samples[start : start + _BLOCK])


class Writer:
    """A sound file that grows; whatever was written when it is closed becomes the file, whole.

    Until then it has a temporary name beside it, and if nothing was written when an interrupt came,
    it becomes no file. A device or a pipe gets a file that is whole, or `live` a wav file whose
    samples go there as they come. With `path` "-" raw 16-bit samples go to standard output so.

    Of sound that is spoken `live` what was heard is not lost if the disk is full: what is on it
    becomes the file, if that is a WAV (encoders cannot end theirs), and `kept` has its seconds.
    """

    def __init__(self, path: Path, rate: int, *, live: bool = False) -> None:
        """Begin the file; raises UsageError for a format that is not written, or no folder."""
        self.kept = 0.0
        self._live = live
        self._written = False
        self._path = path
        self._out: BinaryIO | None = None
        self._opened = ExitStack()
        if path == places.STDOUT:
            self._out = places.stdout()
            return
        kind = format_of(path, live=live)
        if live and places.keeps_its_name(path):
            with naming(path):
                self._out = self._opened.enter_context(places.opened(path))
                self._out.write(_header(rate))
            return
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent}: no such folder to write {path.name} to")
        self._new = NewFile(path)
        self._disk = _Disk(self._new.file)
        try:
            with self._told():
                self._file = soundfile.SoundFile(
                    self._disk, "w", rate, 1, kind.subtype, format=kind.format
                )
        except BaseException:
            self._new.discard()
            raise

    def write(self, samples: np.ndarray) -> None:
        """Add samples float32 [n]."""
        self._written = True
        clipped = np.clip(samples, -1.0, 1.0)
        if self._out:
            with naming(self._path):
                self._out.write((clipped * _INT16).astype("<i2").tobytes())
                self._out.flush()
            return
        with self._told():
            self._file.write(clipped)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Errors of libsndfile as what they are: the disk's, or a rate that a format has not."""
        try:
            yield
        except (soundfile.LibsndfileError, AssertionError) as error:
            if self._disk.error is None:
                raise UnsupportedError(f"{self._path}: cannot be written ({error})") from None
        if self._disk.error:
            with naming(self._path):
                raise self._disk.error

    def __enter__(self) -> "Writer":
        """The writer itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        """Close the file and give it its name, unless a fault (no interrupt) ended it."""
        if self._out:
            with naming(self._path):
                self._opened.__exit__(kind, *rest)
            return
        interrupted = kind is not None and not issubclass(kind, Exception)
        kept = kind is None or (interrupted and self._written)
        try:
            if kept and not self._disk.error:
                with self._told():
                    self._file.close()
                self._new.commit()
            else:
                with suppress(soundfile.LibsndfileError, AssertionError):
                    self._file.close()
        finally:
            full = self._disk.error is not None and shortage.of_disk(self._disk.error)
            if full and self._live and format_of(self._path) == FORMATS[".wav"]:
                self._keep()
            self._new.discard()

    def _keep(self) -> None:
        """Let what is on a full disk become the file, if there is sound in it."""
        self._new.file.seek(0)
        with suppress(soundfile.LibsndfileError), soundfile.SoundFile(self._new.file) as file:
            self.kept = file.frames / file.samplerate
        if self.kept:
            self._new.commit()


class _Disk:
    """A file for libsndfile, which does not know errors of Python: the first is kept in `error`.

    After it the file grows no more, also when libsndfile closes it; its header can still be
    written over.
    """

    def __init__(self, file: BinaryIO) -> None:
        # What was written has to be on the disk, and not in a buffer.
        self._raw = file.raw if isinstance(file, io.BufferedRandom) else file
        self._size = 0
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self._raw.closed:
            return 0
        whole, done = memoryview(data), 0
        try:
            if self.error and self._raw.tell() + len(whole) > self._size:
                return 0
            while done < len(whole):
                done += self._raw.write(whole[done:]) or 0
            self._size = max(self._size, self._raw.tell())
        except OSError as error:
            self.error = self.error or error
            self._size = self._raw.tell() // 2 * 2  # whole samples
            self._raw.truncate(self._size)
        return done

    def read(self, size: int = -1) -> bytes:
        return b"" if self._raw.closed else self._raw.read(size) or b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0 if self._raw.closed else self._raw.seek(offset, whence)

    def tell(self) -> int:
        return 0 if self._raw.closed else self._raw.tell()
