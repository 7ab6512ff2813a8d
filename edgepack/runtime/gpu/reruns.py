"""Repeating calls in float32 that fail in float16, and counting them."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgepack.runtime.engines.session import Feeds, RefusedError, Session
from edgepack.runtime.engines.wrapper import Wrapper


@dataclass(frozen=True)
class Reruns:
    """Counts of calls that were repeated in float32, by stage.

    Either outputs were `not_finite`, or the GPU's libraries `refused` the call, as cuDNN does for
    some convolutions at some lengths.
    """

    not_finite: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def total(self) -> int:
        """The number of all repeated calls."""
        return self.not_finite.total() + self.refused.total()


@dataclass
class Guarded(Wrapper):
    """A network in float16 with its float32 twin, which is loaded when it is first needed.

    A network with caches stays in the twin until its caches are emptied.
    """

    stage: str
    session: Session
    opened: Callable[[], Session]
    reruns: Reruns
    twin: Session | None = None
    in_twin: bool = False

    @property
    def inner(self) -> Session:
        """The network that computes at present."""
        return self.twin if self.in_twin and self.twin else self.session

    def run_kept(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        """Outputs, of the twin if those of the network are not finite."""
        if self.in_twin:
            return self.inner.run_kept(feeds, keep)
        try:
            outputs = self.session.run_kept(feeds, keep)
        except RefusedError:
            self.reruns.refused[self.stage] += 1
            return self._again(self.session.caches(), feeds, keep)
        if _finite(outputs):
            return outputs
        self.reruns.not_finite[self.stage] += 1
        return self._again(self.session.before(), feeds, keep)

    def _again(
        self, caches: Mapping[str, np.ndarray], feeds: Feeds, keep: Collection[str]
    ) -> dict[str, Any]:
        """Repeat the call in the twin, starting from the caches that the call began with."""
        self.twin = self.twin or self.opened()
        self.twin.reset()
        if caches:
            self.twin.restore(caches)
            self.in_twin = True
        return self.twin.run_kept(feeds, keep)

    def fork(self) -> "Guarded":
        """The same around a fork of the network, with a twin of its own."""
        return Guarded(self.stage, self.session.fork(), self.opened, self.reruns)

    def reset(self) -> None:
        """Empty the caches, and go back to float16."""
        self.session.reset()
        self.in_twin = False


def _finite(outputs: Mapping[str, Any]) -> bool:
    arrays = (np.asarray(value) for value in outputs.values())
    return all(np.isfinite(array).all() for array in arrays if array.dtype.kind == "f")
