"""Voices of a bundle: a speaker embedding, with or without a prompt to continue."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edgepack import discovery
from edgepack.bundle import Bundle, stored, write_atomically
from edgepack.errors import IntegrityError, UsageError

_NAME = re.compile(r"[\w][\w .-]{0,63}")


@dataclass(frozen=True)
class Prompt:
    """Speech to continue: token ids `text` [n] of what is said, speech `tokens` [m], `mel`.

    `mel` is [frames, mels], a whole number of frames a token.
    """

    text: np.ndarray
    tokens: np.ndarray
    mel: np.ndarray


@dataclass(frozen=True)
class Voice:
    """What the networks know of a speaker: the speaker embedding [d], perhaps a prompt."""

    speaker: np.ndarray
    prompt: Prompt | None = None

    def to_bytes(self) -> bytes:
        """The voice as a safetensors file; the same voice gives the same bytes."""
        parts = {"speaker": self.speaker.astype(np.float32)}
        if self.prompt:
            parts["text"] = self.prompt.text.astype(np.int64)
            parts["tokens"] = self.prompt.tokens.astype(np.int64)
            parts["mel"] = self.prompt.mel.astype(np.float32)
        return save({name: np.ascontiguousarray(value) for name, value in parts.items()})


def read(bundle: Bundle, name: str | None) -> tuple[str, Voice]:
    """The voice called `name`, or the bundle's only or first one, with its name."""
    voices = bundle.manifest.voices
    if not voices:
        raise UsageError(
            f"{bundle.folder}: no voices in it; add one with 'edgepack voice add' from a recording"
        )
    name = name or sorted(voices)[0]
    if name not in voices:
        raise UsageError(discovery.unknown("voice", name, voices))
    path = bundle.path(voices[name])
    bundle.check([voices[name]])
    try:
        parts = load(path.read_bytes())
        speaker = parts.pop("speaker")
        return name, Voice(speaker, Prompt(**parts) if parts else None)
    except (SafetensorError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path}: not a voice file ({error})") from None


def file_name(name: str, data: bytes) -> str:
    """Where a voice is kept in a bundle; the name changes with the content."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"voice name {name!r}: use up to 64 letters, digits, blanks, dots, dashes, underscores"
        )
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"voices/{plain}-{hashlib.sha256(name.encode() + data).hexdigest()[:12]}.safetensors"


def add(bundle: Bundle, name: str, voice: Voice, *, replace: bool = False) -> Bundle:
    """The bundle with one more voice, on disk too: first the new file, then the manifest."""
    manifest = bundle.manifest
    known = manifest.voices.get(name)
    if known and not replace:
        raise UsageError(f"voice {name!r} exists already; give another name or --force")
    data = voice.to_bytes()
    relative = file_name(name, data)
    path = bundle.folder / relative
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, data)
    files = {k: v for k, v in manifest.files.items() if k != known} | {relative: stored(path)}
    changed = msgspec.structs.replace(
        manifest, voices=manifest.voices | {name: relative}, files=files
    )
    updated = bundle.with_manifest(changed)
    if known and known != relative:
        Path(bundle.folder, known).unlink(missing_ok=True)
    return updated
