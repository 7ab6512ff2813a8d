"""Looking at network calls from outside: who is called, with what, for how long."""

import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.runtime.session import Feeds, Session
from edgepack.runtime.wrapper import Wrapper

Watcher = Callable[[str, float, Feeds, dict[str, np.ndarray]], None]


@dataclass(frozen=True)
class Watched(Wrapper):
    """A session that tells its watchers of every call: stage, seconds, feeds, outputs."""

    stage: str
    session: Session
    watchers: list[Watcher]

    @property
    def inner(self) -> Session:
        """The session that is watched."""
        return self.session

    def run_kept(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        """Run the session and tell of it; watchers see outputs of `keep` as they are."""
        start = time.perf_counter()
        outputs = self.session.run_kept(feeds, keep)
        seconds = time.perf_counter() - start
        for watcher in self.watchers:
            watcher(self.stage, seconds, feeds, outputs)
        return outputs

    def fork(self) -> "Watched":
        """A fork of the session, with the same watchers."""
        return Watched(self.stage, self.session.fork(), list(self.watchers))


@dataclass
class Clock:
    """Seconds and calls by stage; a watcher."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    def __call__(
        self, stage: str, seconds: float, feeds: Feeds, outputs: dict[str, np.ndarray]
    ) -> None:
        """Add one call."""
        self.seconds[stage] += seconds


@dataclass
class Recorder:
    """Keeps every feed and output in memory until `save`; a watcher."""

    calls: dict[str, dict[str, np.ndarray]] = field(default_factory=lambda: defaultdict(dict))
    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __call__(
        self, stage: str, seconds: float, feeds: Feeds, outputs: dict[str, np.ndarray]
    ) -> None:
        """Keep one call as `<number>.<name>` arrays."""
        number = self.counts[stage]
        self.counts[stage] += 1
        for name, value in {**feeds, **outputs}.items():
            self.calls[stage][f"{number:04d}.{name}"] = np.array(value)

    def save(self, folder: Path) -> None:
        """Write `<stage>.npz` for every stage that was called."""
        folder.mkdir(parents=True, exist_ok=True)
        for stage, arrays in self.calls.items():
            np.savez(folder / f"{stage}.npz", allow_pickle=False, **arrays)
