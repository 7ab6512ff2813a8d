"""Voices of a bundle: a speaker embedding, with or without a prompt to continue."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import save

from edgepack import discovery
from edgepack.bundle import arrays
from edgepack.bundle.bundle import MANIFEST, Bundle, open_bundle, stored
from edgepack.bundle.manifest import Manifest
from edgepack.errors import IntegrityError, UsageError
from edgepack.files import links, locks
from edgepack.files.atomic import require_writable, write_atomically

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
    """A voice as the networks get it: a speaker embedding [d], and a prompt or None."""

    speaker: np.ndarray
    prompt: Prompt | None = None

    def to_bytes(self) -> bytes:
        """The voice as a safetensors file; the same voice gives the same bytes."""
        return save({k: np.ascontiguousarray(v) for k, v in to_arrays(self).items()})

    @cached_property
    def digest(self) -> bytes:
        """The SHA-256 of its content."""
        return hashlib.sha256(self.to_bytes()).digest()


def to_arrays(voice: Voice) -> dict[str, np.ndarray]:
    """A voice as named arrays."""
    parts = {"speaker": voice.speaker.astype(np.float32)}
    if voice.prompt:
        parts["prompt_text"] = voice.prompt.text.astype(np.int64)
        parts["prompt_tokens"] = voice.prompt.tokens.astype(np.int64)
        parts["prompt_mel"] = voice.prompt.mel.astype(np.float32)
    return parts


def from_arrays(parts: Mapping[str, np.ndarray]) -> Voice:
    """The voice of `to_arrays`; raises KeyError for a missing part, ValueError for other parts."""
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
    """The voice itself; raises ValueError if it does not fit the manifest's host settings."""
    parts = {"speaker": voice.speaker}
    shapes: dict[str, tuple[str, arrays.AnyShape]] = {"speaker": ("f", (None,))}
    if prompt := voice.prompt:
        parts |= {"text": prompt.text, "tokens": prompt.tokens, "mel": prompt.mel}
        flow, count = manifest.host.flow, prompt.tokens.size
        shapes |= {"text": ("i", (None,)), "tokens": ("i", (None,))}
        shapes |= {"mel": ("f", (flow.prompt_lengths(count, prompt.mel.shape[0])[1], flow.mels))}
    if problem := arrays.mismatch(parts, shapes):
        raise ValueError(problem)
    if prompt and not arrays.within(prompt.tokens, manifest.host.language_model.speech_tokens):
        raise ValueError("its prompt has ids that are no speech tokens")
    return voice


def file_name(name: str, data: bytes) -> str:
    """The file name of a voice in a bundle, which includes a hash of its content."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"voice name {name!r}: use up to 64 letters, digits, blanks, dots, dashes, underscores"
        )
    plain = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"{_FOLDER}/{plain}-{hashlib.sha256(name.encode() + data).hexdigest()[:12]}.safetensors"


def safe_name(name: str) -> str:
    """The name in a bundle for a voice that is called `name` elsewhere: the same if it is allowed.

    From other names characters that are not allowed are removed, and six digits of their hash are
    appended, so that a name always gives the same result and two names give different ones.
    """
    if _NAME.fullmatch(name):
        return name
    plain = re.sub(r"[^\w .-]+", "_", name).strip(" ._-")[:_LONGEST_PLAIN] or "voice"
    return f"{plain}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"


def require_free(bundle: Bundle, name: str, *, replace: bool) -> None:
    """Raise UsageError for a name that is not allowed, or is taken and not to be replaced."""
    file_name(name, b"")
    if name in bundle.manifest.voices and not replace:
        raise UsageError(f"voice {name!r} exists already; give another name or --force")


def add(bundle: Bundle, name: str, voice: Voice, *, replace: bool = False) -> Bundle:
    """Add a voice to a bundle on disk, first its file, then the manifest; returns the bundle.

    It becomes the default only if it is the first voice. Voices that other processes add at the
    same time stay. Files of voices that the manifest does not name, left by killed processes, are
    removed.
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
        try:
            return _changed(
                latest,
                voices=latest.manifest.voices | {name: relative},
                default_voice=default(latest.manifest) or name,
                files=files,
            )
        except BaseException:
            if relative not in open_bundle(bundle.folder).manifest.files:
                path.unlink(missing_ok=True)
            raise


def remove(bundle: Bundle, name: str) -> Bundle:
    """Remove a voice of a bundle on disk; if it was the default, the first by name becomes it.

    Raises UsageError for an unknown voice, and for the last voice of a bundle without enrolment.
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
    """Change the default voice of a bundle on disk; raises UsageError for an unknown voice."""
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
    """Keep other processes from changing or replacing the bundle during the block."""
    require_changeable(bundle)
    with locks.alone(bundle.folder / MANIFEST):
        yield


def _known(manifest: Manifest, name: str) -> str:
    """The bundle's name of a voice, given that name or the one in the checkpoint."""
    found = name if name in manifest.voices else safe_name(name)
    if found not in manifest.voices:
        raise UsageError(discovery.unknown("voice", name, manifest.voices))
    return found


def _changed(bundle: Bundle, **fields: Any) -> Bundle:
    """Write changed fields of the manifest and remove files of voices that it does not list."""
    changed = bundle.with_manifest(msgspec.structs.replace(bundle.manifest, **fields))
    for file in (bundle.folder / _FOLDER).iterdir():
        if f"{_FOLDER}/{file.name}" not in changed.manifest.files and not file.is_dir():
            file.unlink(missing_ok=True)
    return changed
