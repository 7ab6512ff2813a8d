"""A base class for sessions around other sessions, so that every one forwards everything."""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from edgepack.runtime.engines.session import Feeds, Placed, Rows, Session


class Wrapper(Session):
    """Forwards every call to the session inside; a subclass overrides what it changes.

    Override `run_kept` to change calls: `run` uses it.
    """

    @property
    @abstractmethod
    def inner(self) -> Session:
        """The session that answers at present."""

    @abstractmethod
    def fork(self) -> Session:
        """The same around a fork of what is inside."""

    @property
    def batches(self) -> bool:
        """Whether the session takes several rows."""
        return self.inner.batches

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """`run_kept` with nothing kept."""
        return {name: np.asarray(value) for name, value in self.run_kept(feeds, ()).items()}

    def run_kept(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        """A call of the session."""
        return self.inner.run_kept(feeds, keep)

    def reset(self) -> None:
        """Empty its caches."""
        self.inner.reset()

    def caches(self) -> dict[str, np.ndarray]:
        """Its caches."""
        return self.inner.caches()

    def turn(self) -> AbstractContextManager[object]:
        """A turn of it."""
        return self.inner.turn()

    def rows(self) -> Rows | None:
        """None: their calls would pass by the wrapper, unless it has a way to see them."""
        return None

    @property
    def restorable(self) -> bool:
        """Whether it can go on from given caches."""
        return self.inner.restorable

    def restore(self, caches: Mapping[str, np.ndarray]) -> None:
        """Have it go on from given caches."""
        self.inner.restore(caches)

    def before(self) -> dict[str, np.ndarray]:
        """Its caches before the last call."""
        return self.inner.before()

    def operators(self) -> dict[str, float] | None:
        """Its seconds by type of operator."""
        return self.inner.operators()

    def shapes(self) -> Mapping[str, tuple[int | None, ...]] | None:
        """The lengths of its inputs' axes."""
        return self.inner.shapes()

    def types(self) -> Mapping[str, type[np.generic]] | None:
        """The types of its inputs."""
        return self.inner.types()

    @property
    def placed(self) -> Placed | None:
        """Where it runs."""
        return self.inner.placed
