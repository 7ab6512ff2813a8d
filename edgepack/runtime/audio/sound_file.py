"""Sound files to write, whole or while they grow. Waveforms are float32 in ±1."""

import io
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile

from edgepack.errors import UnsupportedError, UsageError
from edgepack.files import places
from edgepack.files.atomic import NewFile, naming
from edgepack.process import shortage

_FULL = 1 << 31  # 1.0 in 32 bits, of which libsndfile takes the upper half
_ENDLESS = 0xFFFFFFFF  # an unknown length in a header: readers read to the end
BLOCK = 24_000  # samples at a time, since libsndfile's encoders copy them to the stack


class Format(NamedTuple):
    """A format and its subtype, by libsndfile's names."""

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

    Raises UsageError for an unknown format, and for one that cannot be written to a pipe `live`,
    which means while the sound is made.
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


def wav_header(rate: int, samples: int | None = None) -> bytes:
    """The header of a 16-bit mono wav file of so many samples; None if that is not known yet."""
    data = _ENDLESS if samples is None else 2 * samples
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    whole = min(len(b"WAVE") + len(form) + 8 + data, _ENDLESS)
    return (
        struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + form + struct.pack("<4sI", b"data", data)
    )


def sixteen_bits(samples: np.ndarray) -> np.ndarray:
    """Samples float32 [n] as int16 [n], with the values that libsndfile writes to a wav file."""
    whole = np.rint(np.clip(samples, -1.0, 1.0) * np.float64(_FULL))
    return (np.minimum(whole, _FULL - 1).astype(np.int32) >> 16).astype("<i2")


def write(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write mono sound in the format of the name; the file appears whole or not at all."""
    with Writer(path, rate) as writer:
        for start in range(0, len(samples), BLOCK):
            writer.write(samples[start : start + BLOCK])


class Writer:
    """A sound file that is written piece by piece, and gets its name when it is closed.

    Until then it has a temporary name beside its place. An interrupt leaves a file with all samples
    so far, or no file if there are none. To a device or a pipe a finished file is copied, or with
    `live` a wav file is written sample by sample. With `path` "-" raw 16-bit samples go to standard
    output.

    If the disk gets full while sound is written `live`, the part on it becomes the file if it is a
    WAV (other formats cannot be finished then), and `kept` is its length in seconds.
    """

    def __init__(self, path: Path, rate: int, *, live: bool = False) -> None:
        """Begin the file; raises UsageError for an unknown format or a missing folder."""
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
                self._out.write(wav_header(rate))
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
        if self._out:
            with naming(self._path):
                self._out.write(sixteen_bits(samples).tobytes())
                self._out.flush()
            return
        with self._told():
            self._file.write(np.clip(samples, -1.0, 1.0))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn an error of libsndfile into the disk's error, or into one about the sample rate."""
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
        """Close the file and give it its name, unless an error (other than an interrupt) came."""
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
        """Make the part that is on a full disk the file, if there is sound in it."""
        self._new.file.seek(0)
        with suppress(soundfile.LibsndfileError), soundfile.SoundFile(self._new.file) as file:
            self.kept = file.frames / file.samplerate
        if self.kept:
            self._new.commit()


class _Disk:
    """A file object for libsndfile, which loses Python's exceptions: the first is kept in `error`.

    After an error the file cannot grow, even when libsndfile closes it; its header can still be
    overwritten.
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
