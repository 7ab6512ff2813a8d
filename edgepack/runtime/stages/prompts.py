"""What the language model keeps of a voice's prompt text: computed once, then mapped from a file.

The decoder reads start, prompt text, text, task, prompt speech. Its cache for the first two is the
same for every text; what comes after the text depends on it and cannot be kept.
"""

import hashlib
import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

import numpy as np

from edgepack import beside
from edgepack.bundle import Bundle
from edgepack.runtime.cpu import isa
from edgepack.runtime.decode import SpeechDecoder
from edgepack.runtime.session import engine

_STAGES = ("speech_lm", "text_embedding", "speech_embedding")
_MOST, _MOST_BYTES = 64, 256 << 20  # files, and prompts in memory
_STALE_SECONDS = 3600  # after which nobody is still writing a temporary file
_DIGEST_BYTES = hashlib.sha256().digest_size
_ENDING = "prompts"
_SUFFIX = ".f32"  # numbers alone: what shape they have is known

Caches = Mapping[str, np.ndarray]


def place(bundle: Path) -> Path:
    """The folder where files of a bundle's voices are written."""
    return beside.place(bundle, _ENDING)


@dataclass
class Prompts:
    """Caches of a bundle's language model after the start and a prompt's text, by the text's ids.

    They are of one runtime and its version, and of the very files of the networks. A file ends with
    the SHA-256 of its numbers; one that is damaged is computed again. Of the files those used last
    stay, up to a number and a size; of what is in memory, up to the same number.
    """

    bundle: Bundle
    runtime: str
    _known: dict[tuple[int, ...], Caches] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begun(self, decoder: SpeechDecoder, text: Sequence[int]) -> Caches:
        """Caches by the name of their output; `decoder` computes them if nobody has before."""
        ids = tuple(text)
        with self._lock:
            found = self._known.pop(ids, None) or self._read(ids) or self._computed(decoder, ids)
            self._known[ids] = found  # at the end: the first was used longest ago
            if len(self._known) > _MOST:
                del self._known[next(iter(self._known))]
            return found

    def _name(self, ids: Sequence[int]) -> str:
        """The file of a text: it changes with everything that decides what is in it."""
        manifest = self.bundle.manifest
        digest = hashlib.sha256(f"{self.runtime} {isa.model()} {list(ids)}".encode())
        for stage in _STAGES:
            variant = manifest.stages[stage].variants[self.runtime]
            digest.update(engine(variant.engine or self.runtime).version().encode())
            for file in variant.files:
                digest.update(manifest.files[file].sha256.encode())
        return f"{digest.hexdigest()[:24]}{_SUFFIX}"

    def _read(self, ids: Sequence[int]) -> Caches | None:
        """Caches of a file, mapped and not read before they are needed; None if it is no use."""
        states = self.bundle.manifest.stages["speech_lm"].states
        path = beside.found(self.bundle.folder, _ENDING, self._name(ids))
        shape = (len(states), *(n or 1 + len(ids) for n in states[0].shape))
        size = prod(shape) * np.dtype(np.float32).itemsize
        try:
            if path.stat().st_size != size + _DIGEST_BYTES:
                return None
            rows = np.memmap(path, np.float32, "r", 0, shape)
            with path.open("rb") as file:
                file.seek(size)
                digest = file.read()
        except OSError:
            return None
        if hashlib.sha256(rows.data).digest() != digest:
            return None
        with suppress(OSError):
            os.utime(path)  # used now
        return {state.output: row for state, row in zip(states, rows, strict=True)}

    def _computed(self, decoder: SpeechDecoder, ids: Sequence[int]) -> Caches:
        """The caches, computed, and kept in a file where the folder of the bundle lets us."""
        decoder.decoder.reset()
        start, rest = decoder.embed_speech([decoder.settings.start]), decoder.embed_text(ids)
        decoder.decoder.run({"embeddings": np.concatenate([start, rest], 1)})
        found = decoder.decoder.caches()
        states = self.bundle.manifest.stages["speech_lm"].states
        rows = np.stack([found[state.output] for state in states]).astype(np.float32)
        with suppress(OSError):  # a read-only disk: they are computed again by the next process
            _write(place(self.bundle.folder) / self._name(ids), rows)
        return {state.output: row for state, row in zip(states, rows, strict=True)}


def _write(path: Path, rows: np.ndarray) -> None:
    """Write a file whole, whoever else does the same, and remove those that are too many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.ascontiguousarray(rows)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(rows.data)
            file.write(hashlib.sha256(rows.data).digest())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _prune(path.parent)


def _prune(folder: Path) -> None:
    """Remove what was used longest ago, and what processes left that were killed."""
    found = sorted(_ages(folder, f"*{_SUFFIX}"), reverse=True)
    total = 0
    for number, (_, size, path) in enumerate(found):
        total += size
        if number >= _MOST or total > _MOST_BYTES:
            path.unlink(missing_ok=True)
    for changed, _, path in _ages(folder, ".*.tmp"):
        if time.time() - changed > _STALE_SECONDS:
            path.unlink(missing_ok=True)


def _ages(folder: Path, pattern: str) -> list[tuple[float, int, Path]]:
    """When files were changed, their sizes and paths; others may be removing them."""
    found = []
    for path in folder.glob(pattern):
        with suppress(OSError):
            state = path.stat()
            found.append((state.st_mtime, state.st_size, path))
    return found
