"""Voices that clients added to a bundle: enrolled, written, and recorded so that they may go again.

Which voices those are is in a file beside the bundle, as files of their content: a voice that is
replaced by other means is the owner's from then on.
"""

import threading
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import msgspec
import soundfile

from edgepack.bundle import beside, voices
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.bundle.ranges import Line
from edgepack.bundle.voices import Voice
from edgepack.errors import IntegrityError, UsageError
from edgepack.files import locks
from edgepack.files.atomic import write_atomically
from edgepack.runtime.audio import prompting, waveform
from edgepack.runtime.audio.waveform import LONGEST_SECONDS, Recording
from edgepack.runtime.synthesizer import Synthesizer
from edgepack.serve.refusal import RefusalError

_ENDING = "uploads.json"
_MAX_BYTES = 1 << 20
_MOST_VOICES = 200
_MOST_SAMPLES = 6_000_000  # in all channels: 30 s of two at 96 kHz
# How files of WAV, FLAC, Ogg and MP3 begin. libsndfile reads more formats, which nobody needs.
_MP3 = (b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xfa")
_BEGINNINGS = (b"RIFF", b"fLaC", b"OggS", *_MP3)


def heard(file: BinaryIO, name: str) -> Recording:
    """The recording in an uploaded file; raises UsageError for one that no voice is made of.

    Its header is checked before anything is decoded: a small file can hold hours.
    """
    file.seek(0)
    if not file.read(4).startswith(_BEGINNINGS):
        raise UsageError(f"{name}: not a WAV, FLAC, Ogg or MP3 file")
    file.seek(0)
    try:
        info = soundfile.info(file)
    except (soundfile.LibsndfileError, TypeError) as error:
        raise UsageError(f"{name}: not a readable sound file ({error})") from None
    if info.frames > LONGEST_SECONDS * info.samplerate:
        raise waveform.wrong_length(name, info.frames / info.samplerate)
    if info.frames * info.channels > _MOST_SAMPLES:
        raise UsageError(f"{name}: {info.channels} channels of {info.samplerate} Hz; use one")
    file.seek(0)
    return waveform.read_file(file, name)


class UploadedVoices:
    """The voices that clients added to one bundle. Its methods are called in threads."""

    def __init__(self, synthesizer: Synthesizer) -> None:
        self._synthesizer = synthesizer
        self._folder = synthesizer.loaded.bundle.folder
        self._lock = threading.Lock()

    def require_free(self, name: str) -> None:
        """Raise UsageError if no voice of this name can be added, RefusalError if there is one."""
        bundle = open_bundle(self._folder)
        if not bundle.manifest.enrolment:
            raise UsageError(f"{self._folder.name} has no networks to make a voice with")
        if name in bundle.manifest.voices:
            raise RefusalError(
                HTTPStatus.CONFLICT,
                f"there is a voice {name!r} already; give another name, or remove it first",
                param="name",
                code="voice_exists",
            )
        voices.require_free(bundle, name, replace=False)
        if len(_known(bundle)) >= _MOST_VOICES:
            raise UsageError(f"{_MOST_VOICES} voices were uploaded already; remove some")

    def add(self, name: str, file: BinaryIO, text: str) -> list[str]:
        """Make a voice of a recording and keep it; returns warnings about the recording."""
        recording = heard(file, "audio_sample")
        warnings = prompting.problems(recording, text)
        made = self._synthesizer.enrol(recording, text)
        with self._lock, locks.alone(_place(self._folder)):
            self._keep(name, made)
        return warnings

    def _keep(self, name: str, made: Voice) -> None:
        """Record the voice first: without the record nobody could remove it."""
        self.require_free(name)
        bundle = open_bundle(self._folder)
        before = _known(bundle)
        _write(self._folder, before | {name: voices.file_name(name, made.to_bytes())})
        try:
            voices.add(bundle, name, made)
        except BaseException:
            _write(self._folder, before)
            raise

    def remove(self, name: str) -> None:
        """Remove a voice; raises RefusalError for an unknown one, and one that was not uploaded."""
        with self._lock, locks.alone(_place(self._folder)):
            bundle = open_bundle(self._folder)
            if name not in bundle.manifest.voices:
                raise RefusalError(
                    HTTPStatus.NOT_FOUND, f"there is no voice {name!r}", code="voice_not_found"
                )
            if name not in _known(bundle):
                message = f"voice {name!r} was not uploaded, so it is not removed here"
                raise RefusalError(HTTPStatus.FORBIDDEN, message, code="not_uploaded")
            changed = voices.remove(bundle, name)
            _write(self._folder, _known(changed))
        self._synthesizer.loaded.voices.forget(name)


def _place(folder: Path) -> Path:
    return beside.place(folder, _ENDING)


def _known(bundle: Bundle) -> dict[str, str]:
    """The uploaded voices that the bundle still has, with their files."""
    path = _place(bundle.folder)
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES >> 20} MiB")
        found = msgspec.json.decode(path.read_bytes(), type=dict[Line, Line])
    except (ValueError, RecursionError) as error:
        problem = f"not a list of uploaded voices ({error}); delete it"
        raise IntegrityError(f"{path}: {problem}") from None
    return {name: file for name, file in found.items() if bundle.manifest.voices.get(name) == file}


def _write(folder: Path, known: dict[str, str]) -> None:
    path = _place(folder)
    if not known:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, msgspec.json.format(msgspec.json.encode(known), indent=2))
