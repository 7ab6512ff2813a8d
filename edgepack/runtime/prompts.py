"""What the language model keeps of a voice's prompt text: computed once, then mapped from a file.

The decoder reads start, prompt text, text, task, prompt speech. Its cache for the first two is the
same for every text; what comes after the text depends on it and cannot be kept.
"""

import hashlib
import io
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgepack.atomic import write_atomically
from edgepack.bundle import Bundle
from edgepack.runtime.cpu import isa
from edgepack.runtime.decode import SpeechDecoder
from edgepack.runtime.session import engine

_STAGES = ("speech_lm", "text_embedding", "speech_embedding")

Caches = Mapping[str, np.ndarray]


def place(bundle: Path) -> Path:
    """Where the files of a bundle's voices are: beside it, since bundles are not changed."""
    folder = bundle.resolve()
    return folder.with_name(f"{folder.name}.prompts")


@dataclass
class Prompts:
    """Caches of a bundle's language model after the start and a prompt's text, by the text's ids.

    They are of one runtime and its version, and of the very files of the networks.
    """

    bundle: Bundle
    runtime: str
    _known: dict[tuple[int, ...], Caches] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begun(self, decoder: SpeechDecoder, text: Sequence[int]) -> Caches:
        """Caches by the name of their output; `decoder` computes them if nobody has before."""
        ids = tuple(text)
        with self._lock:
            if ids not in self._known:
                self._known[ids] = self._read(ids) or self._computed(decoder, ids)
            return self._known[ids]

    def _path(self, ids: Sequence[int]) -> Path:
        """The file of a text: its name changes with everything that decides what is in it."""
        manifest = self.bundle.manifest
        digest = hashlib.sha256(f"{self.runtime} {isa.model()} {list(ids)}".encode())
        for stage in _STAGES:
            variant = manifest.stages[stage].variants[self.runtime]
            digest.update(engine(variant.engine or self.runtime).version().encode())
            for file in variant.files:
                digest.update(manifest.files[file].sha256.encode())
        return place(self.bundle.folder) / f"{digest.hexdigest()[:24]}.npy"

    def _read(self, ids: Sequence[int]) -> Caches | None:
        """Caches of a file, mapped and not read before they are needed; None if it is no use."""
        states = self.bundle.manifest.stages["speech_lm"].states
        try:
            rows = np.load(self._path(ids), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        filled = tuple(n or 1 + len(ids) for n in states[0].shape)
        if rows.shape != (len(states), *filled) or rows.dtype != np.float32:
            return None
        return {state.output: row for state, row in zip(states, rows, strict=True)}

    def _computed(self, decoder: SpeechDecoder, ids: Sequence[int]) -> Caches:
        """The caches, computed, and kept in a file where the folder of the bundle lets us."""
        decoder.decoder.reset()
        start, rest = decoder.embed_speech([decoder.settings.start]), decoder.embed_text(ids)
        decoder.decoder.run({"embeddings": np.concatenate([start, rest], 1)})
        found = decoder.decoder.caches()
        states = self.bundle.manifest.stages["speech_lm"].states
        rows = np.stack([found[state.output] for state in states]).astype(np.float32)
        path = self._path(ids)
        with suppress(OSError):  # a read-only disk: they are computed again by the next process
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, _npy(rows))
        return {state.output: row for state, row in zip(states, rows, strict=True)}


def _npy(rows: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, rows, allow_pickle=False)
    return file.getvalue()
