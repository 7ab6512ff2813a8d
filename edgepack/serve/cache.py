"""Finished speech that is kept, so that a hot text is spoken once.

Values are bytes under keys that are SHA-256 in hexadecimal. Whatever goes wrong with the disk is a
miss: nothing that is kept is needed.
"""

import hashlib
import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

from edgepack.files.atomic import made_folder, write_atomically

_SUFFIX = ".speech"
_HASH_BYTES = 32


class Spoken(msgspec.Struct, frozen=True, array_like=True):
    """A whole utterance without a fault: samples int16 as bytes, and what OpenAI counts."""

    samples: bytes
    input_tokens: int
    output_tokens: int

    @property
    def audio(self) -> np.ndarray:
        """The samples, int16 [n]."""
        return np.frombuffer(self.samples, "<i2")


class Store(Protocol):
    """Where values are kept. Several threads may use it at once."""

    @property
    def size(self) -> float:
        """Bytes of all values; not a number where that is unknown."""

    def get(self, key: str) -> bytes | None:
        """A value, or None."""

    def put(self, key: str, value: bytes) -> None:
        """Keep a value; those that were not used for longest make room for it."""


class MemoryStore:
    """Values in memory, `limit` bytes of them at most."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        self.size = 0

    def get(self, key: str) -> bytes | None:
        """A value, which is the latest used then."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: str, value: bytes) -> None:
        """Keep a value unless it is larger than all that may be kept."""
        if len(value) > self._limit:
            return
        with self._lock:
            self.size += len(value) - len(self._kept.pop(key, b""))
            self._kept[key] = value
            while self.size > self._limit:
                self.size -= len(self._kept.popitem(last=False)[1])


class FolderStore:
    """Values as files of a folder, `limit` bytes of them at most; they are there after a restart.

    A file begins with the SHA-256 of the rest, so that a damaged one is a miss. The folder may be
    shared by several servers: each removes what is over the limit of those files that it knows.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        """Make the folder if it is missing; raises OSError if that is impossible."""
        with made_folder(folder):
            self._folder, self._limit = folder, limit
            files = []
            for path in folder.glob(f"*{_SUFFIX}"):
                with suppress(FileNotFoundError):  # another server removed it
                    files.append((path, path.stat()))
        files.sort(key=lambda file: file[1].st_mtime)
        self._sizes = OrderedDict((path.stem, state.st_size) for path, state in files)
        self._lock = threading.Lock()
        self.size = sum(self._sizes.values())
        self._shrink()

    def get(self, key: str) -> bytes | None:
        """A value, which is the latest used then."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            self._forget(key)
            return None
        value = data[_HASH_BYTES:]
        if hashlib.sha256(value).digest() != data[:_HASH_BYTES]:
            self._unlink(key)
            self._forget(key)
            return None
        with self._lock:
            self.size += len(data) - self._sizes.pop(key, 0)
            self._sizes[key] = len(data)
        with suppress(OSError):
            path.touch()
        return value

    def put(self, key: str, value: bytes) -> None:
        """Keep a value unless it is larger than all that may be kept, or the disk is full."""
        data = hashlib.sha256(value).digest() + value
        if len(data) > self._limit:
            return
        try:
            write_atomically(self._path(key), data)
        except OSError:
            return
        with self._lock:
            self.size += len(data) - self._sizes.pop(key, 0)
            self._sizes[key] = len(data)
            self._shrink()

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}{_SUFFIX}"

    def _shrink(self) -> None:
        """Remove what is over the limit, the oldest first; `_lock` is held."""
        while self.size > self._limit:
            oldest, size = self._sizes.popitem(last=False)
            self.size -= size
            self._unlink(oldest)

    def _unlink(self, key: str) -> None:
        with suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def _forget(self, key: str) -> None:
        with self._lock:
            self.size -= self._sizes.pop(key, 0)


class Cache:
    """Whole utterances by their key, and their encoded forms, in one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def size(self) -> float:
        """Bytes that are kept; not a number where that is unknown."""
        return self._store.size

    def spoken(self, key: str) -> Spoken | None:
        """An utterance, if it is kept."""
        data = self._store.get(key)
        try:
            return msgspec.msgpack.decode(data, type=Spoken) if data is not None else None
        except msgspec.DecodeError:  # somebody else wrote it
            return None

    def keep(self, key: str, spoken: Spoken) -> None:
        """Keep an utterance, which has to be whole and without a fault."""
        self._store.put(key, msgspec.msgpack.encode(spoken))

    def encoded(self, key: str, form: str) -> bytes | None:
        """An utterance in a format, whose settings are part of its name `form`."""
        return self._store.get(_form_key(key, form))

    def keep_encoded(self, key: str, form: str, data: bytes) -> None:
        """Keep an utterance in a format."""
        self._store.put(_form_key(key, form), data)


def _form_key(key: str, form: str) -> str:
    return hashlib.sha256(f"{key} {form}".encode()).hexdigest()
