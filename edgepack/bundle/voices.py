"""Voices of a bundle: a speaker embedding, with or without a prompt to continue."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import save

from edgepack import arrays, discovery, links, locks
from edgepack.atomic import require_writable, write_atomically
from edgepack.bundle import MANIFEST, Bundle, open_bundle, stored
from edgepack.errors import IntegrityError, UsageError
from edgepack.manifest import Manifest

_PROMPT = ("prompt_text", "prompt_tokens", "prompt_mel")
_FOLDER = "voices"
_NAME = re.compile(r"[\w][\w .-]{0,63}")
_LONGEST_PLAIN = 48  # characters of another name that are kept


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


def default(manifest: Manifest) -> str:
    """The voice that speaks where none is asked for; "" if there is none."""
    return manifest.default_voice or min(manifest.voices, default="")


def read(bundle: Bundle, name: str | None) -> tuple[str, Voice]:
    """The voice called `name`, or the bundle's default, with its name."""
    voices = bundle.manifest.voices
    if not voices:
        raise UsageError(
            f"{bundle.folder}: no voices in it; add one with 'edgepack voice add' from a recording"
        )
    name = _known(bundle.manifest, name or default(bundle.manifest))
    path = bundle.path(voices[name])
    parts = arrays.parse(bundle.read(voices[name]), path, "a voice file")
    try:
        return name, fitting(from_arrays(parts), bundle.manifest)
    except (KeyError, ValueError) as error:
        raise IntegrityError(f"{path}: not a voice file ({error})") from None


def fitting(voice: Voice, manifest: Manifest) -> Voice:
    """The voice, if it is one for the host loops of a bundle; raises ValueError if not."""
    parts = {"speaker": voice.speaker}
    shapes: dict[str, tuple[str, arrays.Shape]] = {"speaker": ("f", (None,))}
    if prompt := voice.prompt:
        parts |= {"text": prompt.text, "tokens": prompt.tokens, "mel": prompt.mel}
        frames = manifest.flow.ratio * prompt.tokens.size
        shapes |= {"text": ("i", (None,)), "tokens": ("i", (None,))}
        shapes |= {"mel": ("f", (frames, manifest.flow.mels))}
    if problem := arrays.mismatch(parts, shapes):
        raise ValueError(problem)
    if prompt and not arrays.within(prompt.tokens, manifest.language_model.speech_tokens):
        raise ValueError("its prompt has ids that are no speech tokens")
    return voice


def file_name(name: str, data: bytes) -> str:
    """Where a voice is kept in a bundle; the name changes with the content."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"voice name {name!r}: use up to 64 letters, digits, blanks, dots, dashes, underscores"
        )
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"{_FOLDER}/{plain}-{hashlib.sha256(name.encode() + data).hexdigest()[:12]}.safetensors"


def safe_name(name: str) -> str:
    """The name in a bundle of a voice that is called `name` elsewhere; its own if it can be.

    Other names lose what cannot be in one, and end with six digits of their hash: each has always
    the same, and no two the same.
    """
    if _NAME.fullmatch(name):
        return name
    plain = re.sub(r"[^\w .-]+", "_", name).strip(" ._-")[:_LONGEST_PLAIN] or "voice"
    return f"{plain}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"


def require_free(bundle: Bundle, name: str, *, replace: bool) -> None:
    """Raise UsageError for a name that cannot be, or that a voice has which is not to go."""
    file_name(name, b"")
    if name in bundle.manifest.voices and not replace:
        raise UsageError(f"voice {name!r} exists already; give another name or --force")


def add(bundle: Bundle, name: str, voice: Voice, *, replace: bool = False) -> Bundle:
    """The bundle with one more voice, on disk too: first the new file, then the manifest.

    It is the default only if it is the first. Voices that others add at the same time stay. Files
    of voices that no manifest names were left by processes that were killed, and are removed.
    """
    data = voice.to_bytes()
    relative = file_name(name, data)
    with _alone(bundle):
        latest = open_bundle(bundle.folder)
        require_free(latest, name, replace=replace)
        known = latest.manifest.voices.get(name)
        path = bundle.folder / relative
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, data)
        files = latest.manifest.files | {relative: stored(path)}
        if known != relative:
            files.pop(known or "", None)
        return _changed(
            latest,
            voices=latest.manifest.voices | {name: relative},
            default_voice=default(latest.manifest) or name,
            files=files,
        )


def remove(bundle: Bundle, name: str) -> Bundle:
    """The bundle without a voice, on disk too; if it was the default, the first by name is.

    Raises UsageError for an unknown voice, and for the last of a bundle that can make no other.
    """
    with _alone(bundle):
        latest = open_bundle(bundle.folder)
        manifest = latest.manifest
        name = _known(manifest, name)
        kept = {other: file for other, file in manifest.voices.items() if other != name}
        if not kept and not manifest.enrolment:
            raise UsageError(
                f"{bundle.folder}: {name!r} is its last voice, and it has no networks to make "
                "another with"
            )
        files = {k: v for k, v in manifest.files.items() if k != manifest.voices[name]}
        own = default(manifest)
        chosen = own if own != name else min(kept, default="")
        return _changed(latest, voices=kept, default_voice=chosen, files=files)


def make_default(bundle: Bundle, name: str) -> Bundle:
    """The bundle with another default voice, on disk too; raises UsageError for an unknown one."""
    with _alone(bundle):
        latest = open_bundle(bundle.folder)
        return _changed(latest, default_voice=_known(latest.manifest, name))


def require_changeable(bundle: Bundle) -> None:
    """Raise UsageError or OSError if the voices of a bundle cannot be changed."""
    if links.of_hub(bundle.folder):
        raise UsageError(
            f"{bundle.folder}: in the cache of a hub, which shares its files; change a copy: "
            f"cp -rL {bundle.folder} mine"
        )
    require_writable(bundle.folder / MANIFEST)


@contextmanager
def _alone(bundle: Bundle) -> Iterator[None]:
    """No other process changes the bundle meanwhile, or replaces it."""
    require_changeable(bundle)
    with locks.alone(bundle.folder / MANIFEST):
        yield


def _known(manifest: Manifest, name: str) -> str:
    """The name of a voice in a bundle, given that or the one it has in its checkpoint."""
    found = name if name in manifest.voices else safe_name(name)
    if found not in manifest.voices:
        raise UsageError(discovery.unknown("voice", name, manifest.voices))
    return found


def _changed(bundle: Bundle, **fields: Any) -> Bundle:
    """A bundle with other fields in its manifest, and no files of voices that are not listed."""
    changed = bundle.with_manifest(msgspec.structs.replace(bundle.manifest, **fields))
    for file in (bundle.folder / _FOLDER).iterdir():
        if f"{_FOLDER}/{file.name}" not in changed.manifest.files and not file.is_dir():
            file.unlink(missing_ok=True)
    return changed
