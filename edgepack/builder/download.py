"""A checkpoint from a model hub: the files that a build reads, in the hub's own cache."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edgepack import discovery
from edgepack.builder.model_hub import PACKAGE, Listing, ModelHub, Reference, UnreachableError
from edgepack.builder.planning import DOCUMENTS
from edgepack.bundle.manifest import Origin
from edgepack.errors import ResourceError, UsageError
from edgepack.model.checkpoint.folder import CONFIGS, Checkpoint, config_name, open_checkpoint
from edgepack.model.family import recognise
from edgepack.process.isolation import isolated
from edgepack.report import Step, size

_GRACE = 5.0  # seconds for a library to clear away the half of a file that it cannot go on with
_TOLD = 1_000_000  # bytes; less is there at once


@dataclass(frozen=True)
class Downloaded:
    """A checkpoint in a hub's cache; `notes` are lines for the user about its origin."""

    folder: Path
    origin: Origin
    notes: Sequence[str] = ()


def download(reference: Reference, llm: str | None, step: Step) -> Downloaded:
    """What a build needs of a repository, `llm` in place of the language model's usual file.

    This runs in a process of its own, as the hubs' libraries log to stderr. If the hub does not
    answer, the files in its cache are used, and `notes` say so. Raises UsageError for a repository
    that is no checkpoint, does not exist or may not be read; UnsupportedError for another family,
    before weights are downloaded; and ResourceError without network and cache.
    """
    return isolated(_download, reference, llm, step=step, grace=_GRACE)


def _download(reference: Reference, llm: str | None, step: Step) -> Downloaded:
    hub = cast(ModelHub, discovery.load(PACKAGE, reference.hub, "HUB"))
    step(f"looking up {reference}")
    try:
        listing = hub.listing(reference.repository, reference.revision)
    except UnreachableError as error:
        return _cached(hub, reference, llm, str(error))
    name = config_name(listing.sizes, reference)
    loader = _Loader(hub, reference, listing, step)
    folder = loader.load([name])
    checkpoint = Checkpoint(folder, name, listed=frozenset(listing.sizes))
    loader.load(_needed(reference, checkpoint, llm))
    return Downloaded(folder, _origin(reference, listing.revision))


def _needed(reference: Reference, checkpoint: Checkpoint, llm: str | None) -> list[str]:
    """Names of the files that a build reads, as the family of the checkpoint knows them."""
    if llm is not None:
        checkpoint = checkpoint.with_part("llm", llm)
    _, family = recognise(checkpoint)
    for name in map(checkpoint.container, family.networks):
        if not checkpoint.has(name):
            raise UsageError(f"{reference}: has no {name}")
    documents = [name for name in DOCUMENTS if checkpoint.has(name)]
    return [*family.sources(checkpoint), *documents]


def _cached(hub: ModelHub, reference: Reference, llm: str | None, reason: str) -> Downloaded:
    """What is there without the hub, if that is a whole checkpoint."""
    found = hub.cached(reference.repository, reference.revision, CONFIGS)
    if found is None:
        raise ResourceError(f"{reference}: {reason}, and it is not in the cache")
    folder, revision = found
    try:
        _needed(reference, open_checkpoint(folder), llm)
    except UsageError as error:
        raise ResourceError(f"{reason}, and what is in the cache is not enough: {error}") from None
    note = f"{reference}: {reason}; taken from the cache, at {revision}"
    return Downloaded(folder, _origin(reference, revision), (note,))


def _origin(reference: Reference, revision: str) -> Origin:
    return Origin(hub=reference.hub, repository=reference.repository, revision=revision)


class _Loader:
    """Downloads files one after the other, and reports the progress in bytes."""

    def __init__(self, hub: ModelHub, reference: Reference, listing: Listing, step: Step) -> None:
        self._hub, self._reference, self._listing, self._step = hub, reference, listing, step
        self._lock = threading.Lock()  # libraries tell from threads of theirs
        self._total = self._before = self._came = 0
        self._told = 0

    def load(self, names: Sequence[str]) -> Path:
        """The folder of the snapshot that has these files now."""
        sizes = self._listing.sizes
        self._total = sum(sizes[name] for name in names)
        self._before, self._told = 0, 0
        folder = Path()
        for name in names:
            self._came = 0
            folder = self._file(name).parents[name.count("/")]
            self._before += sizes[name]
        return folder

    def _file(self, name: str) -> Path:
        try:
            return self._hub.fetch(self._reference.repository, self._listing, name, self._tell)
        except UnreachableError as error:
            raise ResourceError(
                f"{self._reference}: {name} broke off ({error}); the same command goes on with it"
            ) from None

    def _tell(self, count: int) -> None:
        with self._lock:
            self._came += count
            done = 100 * (self._before + self._came) // max(self._total, 1)
            if done > self._told and self._total >= _TOLD:
                self._told = done
                self._step(f"downloading {self._reference}: {done} % of {size(self._total)}")
