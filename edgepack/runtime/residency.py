"""Networks that are in memory only while they are needed."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgepack.runtime.session import Feeds, Session, run_kept

_TOGETHER = ("speech_lm", "text_embedding", "speech_embedding")


def group(stage: str) -> str:
    """Stages of one group are called in turn and stay in memory together."""
    return _TOGETHER[0] if stage in _TOGETHER else stage


@dataclass
class Residency:
    """Sees to it that only one group of networks is in memory at a time."""

    sessions: list["OnDemand"] = field(default_factory=list)

    def session(self, stage: str, opened: Callable[[], Session]) -> "OnDemand":
        """A network that `opened` loads when it is first called, and again after a release."""
        made = OnDemand(group(stage), opened, self)
        self.sessions.append(made)
        return made

    def enter(self, wanted: str) -> None:
        """Release every network of another group."""
        for session in self.sessions:
            if session.group != wanted:
                session.release()


@dataclass
class OnDemand:
    """A session that is loaded by its first call; a release loses its caches."""

    group: str
    opened: Callable[[], Session]
    residency: Residency
    loaded: Session | None = None

    @property
    def batches(self) -> bool:
        """Whether the network takes several rows; loads it if it is not there."""
        return self._session().batches

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Load the network if it is not there, release those of other groups, and run it."""
        return self._session().run(feeds)

    def run_kept(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        """The same; outputs of `keep` may stay on a device."""
        return run_kept(self._session(), feeds, keep)

    def reset(self) -> None:
        """Empty the caches; what is not loaded has none."""
        if self.loaded is not None:
            self.loaded.reset()

    def caches(self) -> dict[str, np.ndarray]:
        """The caches, of a freshly loaded network if it was not there."""
        return self._session().caches()

    def release(self) -> None:
        """Give the network's memory back."""
        self.loaded = None

    def _session(self) -> Session:
        if self.loaded is None:
            self.residency.enter(self.group)
            self.loaded = self.opened()
        return self.loaded
