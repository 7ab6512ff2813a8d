"""Observing network calls: which network, with what inputs and outputs, for how long."""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.runtime.engines.session import Feeds, Rows, Session
from edgepack.runtime.engines.wrapper import Wrapper

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
        """Run the session and tell the watchers; they get outputs of `keep` without a copy."""
        start = time.perf_counter()
        outputs = self.session.run_kept(feeds, keep)
        seconds = time.perf_counter() - start
        for watcher in self.watchers:
            watcher(self.stage, seconds, feeds, outputs)
        return outputs

    def fork(self) -> "Watched":
        """A fork of the session, with the same watchers."""
        return Watched(self.stage, self.session.fork(), list(self.watchers))

    def rows(self) -> Rows | None:
        """Rows of the session, whose calls the watchers are told of as well."""
        rows = self.session.rows()
        return None if rows is None else WatchedRows(self.stage, rows, self.watchers)


@dataclass(frozen=True)
class WatchedRows(Rows):
    """Rows that tell watchers of every call, which is one for all of them."""

    stage: str
    inner: Rows
    watchers: list[Watcher]

    def join(self, caches: Mapping[str, np.ndarray]) -> None:
        """Add a row."""
        self.inner.join(caches)

    def leave(self, row: int) -> None:
        """Remove a row."""
        self.inner.leave(row)

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Run all rows and tell the watchers."""
        start = time.perf_counter()
        outputs = self.inner.run(feeds)
        seconds = time.perf_counter() - start
        for watcher in self.watchers:
            watcher(self.stage, seconds, feeds, outputs)
        return outputs


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
        """Keep the arrays of one call, which `save` names `<number>.<name>`."""
        number = self.counts[stage]
        self.counts[stage] += 1
        for name, value in {**feeds, **outputs}.items():
            self.calls[stage][f"{number:04d}.{name}"] = np.array(value)

    def save(self, folder: Path) -> None:
        """Write `<stage>.npz` for every stage that was called."""
        folder.mkdir(parents=True, exist_ok=True)
        for stage, arrays in self.calls.items():
            np.savez(folder / f"{stage}.npz", allow_pickle=False, **arrays)
