"""What the language model keeps of a voice's prompt text: computed once, then mapped from a file.

The cache after the beginning (`SpeechDecoder.beginning`) is the same for every text; what comes
after the text depends on it and cannot be kept.
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

from edgepack.bundle import beside
from edgepack.bundle.bundle import Bundle
from edgepack.bundle.manifest import State
from edgepack.bundle.stages import Role
from edgepack.machine.cpu import isa
from edgepack.runtime import cancellation
from edgepack.runtime.engines.session import engine
from edgepack.runtime.stages.decode import Context, SpeechDecoder

# Their files decide what the caches are.
_ROLES: tuple[Role, ...] = ("language_model", "text_table", "speech_table")
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

    def begun(self, decoder: SpeechDecoder, context: Context) -> Caches | None:
        """Caches by the name of their output; `decoder` computes them if nobody has before.

        None if its first input has no part that is the same for every text.
        """
        ids = (*context.opening, *context.text)
        with cancellation.holding(self._lock):
            found = self._known.pop(ids, None) or self._made(decoder, context)
            if found is None:
                return None
            self._known[ids] = found  # at the end: the first was used longest ago
            if len(self._known) > _MOST:
                del self._known[next(iter(self._known))]
            return found

    def _name(self, ids: Sequence[int]) -> str:
        """The file of a text: it changes with everything that decides what is in it."""
        manifest = self.bundle.manifest
        digest = hashlib.sha256(f"{self.runtime} {isa.model()} {list(ids)}".encode())
        for role in _ROLES:
            variant = manifest.stages[manifest.stage_of(role)].variants[self.runtime]
            digest.update(engine(variant.engine or self.runtime).version().encode())
            for file in variant.files:
                digest.update(manifest.files[file].sha256.encode())
        return f"{digest.hexdigest()[:24]}{_SUFFIX}"

    def _made(self, decoder: SpeechDecoder, context: Context) -> Caches | None:
        """The caches, of a file or computed."""
        block = decoder.beginning(context)
        if block is None:
            return None
        ids = (*context.opening, *context.text)
        return self._read(ids, block.shape[1]) or self._computed(decoder, ids, block)

    def _states(self) -> tuple[State, ...]:
        """The caches of the language model."""
        manifest = self.bundle.manifest
        return manifest.stages[manifest.stage_of("language_model")].states

    def _read(self, ids: Sequence[int], length: int) -> Caches | None:
        """Caches of `length` positions, mapped from a file and not read before they are needed.

        None if the file is not there or no use.
        """
        states = self._states()
        path = beside.found(self.bundle.folder, _ENDING, self._name(ids))
        shape = (len(states), *(n or length for n in states[0].shape))
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

    def _computed(self, decoder: SpeechDecoder, ids: Sequence[int], block: np.ndarray) -> Caches:
        """The caches, computed, and kept in a file where the folder of the bundle lets us."""
        decoder.language_model.reset()
        decoder.language_model.run({"embeddings": block})
        found = decoder.language_model.caches()
        states = self._states()
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
