"""Names of checkpoints, and the interface of model hubs, which are modules in `model_hubs`."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgepack import discovery
from edgepack.discovery import unknown
from edgepack.errors import ResourceError, UsageError

PACKAGE = "edgepack.builder.model_hubs"
DEFAULT = "huggingface"  # of names that do not say which
_PART = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(
    rf"((?P<hub>\w+):)?(?P<repository>{_PART}/{_PART})(@(?P<revision>.*))?", re.ASCII
)
_PREFIX = re.compile(r"(\w+):", re.ASCII)
_REVISION = re.compile(rf"{_PART}(/{_PART})*", re.ASCII)

Told = Callable[[int], None]  # is called with bytes that came, fewer than zero if they are lost


class UnreachableError(ResourceError):
    """A hub cannot be asked: no network, the hub is down, or the user works offline."""


@dataclass(frozen=True)
class Reference:
    """A repository of a hub; `revision` is a branch, tag or commit, None for the hub's default."""

    hub: str
    repository: str
    revision: str | None

    @property
    def name(self) -> str:
        """The repository without its owner."""
        return self.repository.rpartition("/")[2]

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.hub}:{self.repository}{at}"


@dataclass(frozen=True)
class Listing:
    """What a repository holds: `revision` as a manifest records it, bytes of each file by name.

    `hashes` are the SHA-256 of files, as far as the hub knows them.
    """

    revision: str
    sizes: Mapping[str, int]
    hashes: Mapping[str, str] = field(default_factory=dict)


class ModelHub(Protocol):
    """A module of `model_hubs`: `HUB = ...`, which imports its library inside its methods.

    Files are downloaded to the library's own cache. Methods raise UsageError for a repository or
    revision that does not exist or may not be read, and UnreachableError if the hub does not
    answer.
    """

    def listing(self, repository: str, revision: str | None) -> Listing:
        """The files of a repository."""
        ...

    def fetch(self, repository: str, listing: Listing, name: str, told: Told) -> Path:
        """Download a file unless it is in the cache; returns its path there."""
        ...

    def cached(
        self, repository: str, revision: str | None, names: Sequence[str]
    ) -> tuple[Path, str] | None:
        """The folder that has one of these files, and its revision, without asking the hub."""
        ...


def parse(model: str) -> Reference | None:
    """The repository that a name stands for; None for the path of a folder.

    A path that exists is a folder, and so is a name like `./x`, `/x`, `x` or `x/y/z`. Raises
    UsageError for an unknown hub and an impossible revision.
    """
    try:
        if Path(model).exists():
            return None
    except (OSError, ValueError):  # no path at all
        return None
    found = _NAME.fullmatch(model)
    if not found:
        prefix = _PREFIX.match(model)
        if prefix and prefix[1] in discovery.names(PACKAGE):
            raise UsageError(f"{model}: give {prefix[1]}:OWNER/NAME, or {prefix[1]}:OWNER/NAME@REV")
        return None
    hub, repository, revision = found["hub"] or DEFAULT, found["repository"], found["revision"]
    if hub not in discovery.names(PACKAGE):
        raise UsageError(f"{model}: {unknown('hub', hub, discovery.names(PACKAGE))}")
    # They become names of folders in a cache.
    if ".." in model or (revision is not None and not _REVISION.fullmatch(revision)):
        raise UsageError(f"{model}: not the name of a repository, or not a revision after the @")
    return Reference(hub, repository, revision)
