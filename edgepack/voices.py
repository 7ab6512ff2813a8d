"""Voices of a bundle: a speaker embedding, with or without a prompt to continue."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edgepack import discovery
from edgepack.bundle import Bundle, stored, write_atomically
from edgepack.errors import IntegrityError, UsageError

_PROMPT = ("prompt_text", "prompt_tokens", "prompt_mel")
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
        return save({k: np.ascontiguousarray(v) for k, v in to_arrays(self).items()})


def to_arrays(voice: Voice) -> dict[str, np.ndarray]:
    """A voice as named arrays."""
    parts = {"speaker": voice.speaker.astype(np.float32)}
    if voice.prompt:
        parts["prompt_text"] = voice.prompt.text.astype(np.int64)
        parts["prompt_tokens"] = voice.prompt.tokens.astype(np.int64)
        parts["prompt_mel"] = voice.prompt.mel.astype(np.float32)
    return parts


def from_arrays(parts: Mapping[str, np.ndarray]) -> Voice:
    """What `to_arrays` gave; raises KeyError if a part is missing, ValueError for others."""
    if extra := parts.keys() - {"speaker", *_PROMPT}:
        raise ValueError(f"unknown arrays {sorted(extra)}")
    if not parts.keys() & set(_PROMPT):
        return Voice(parts["speaker"])
    return Voice(parts["speaker"], Prompt(*(parts[name] for name in _PROMPT)))


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
        return name, from_arrays(load(path.read_bytes()))
    except (SafetensorError, KeyError, ValueError) as error:
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
