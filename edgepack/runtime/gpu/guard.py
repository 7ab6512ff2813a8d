"""Calls that float16 does not serve are repeated in float32, once, and counted."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgepack.errors import UnsupportedError
from edgepack.runtime.session import Feeds, Rewindable, Session, run_kept


@dataclass(frozen=True)
class Reruns:
    """Calls that were repeated in float32, by stage.

    Outputs were `not_finite`, or the GPU `refused` the call, such as cuDNN does with some
    convolutions of some lengths.
    """

    not_finite: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def total(self) -> int:
        """All of them."""
        return self.not_finite.total() + self.refused.total()


@dataclass
class Guarded:
    """A network in float16 with its float32 twin, which is loaded when it is first needed.

    A network with caches goes on in the twin until its caches are emptied.
    """

    stage: str
    session: Session
    opened: Callable[[], Session]
    reruns: Reruns
    twin: Session | None = None
    in_twin: bool = False

    @property
    def batches(self) -> bool:
        """Whether the network takes several rows."""
        return self.session.batches

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Outputs, of the twin if those of the network are not finite."""
        return {name: np.asarray(value) for name, value in self.run_kept(feeds, ()).items()}

    def run_kept(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        """The same; outputs of `keep` stay on the device."""
        if self.in_twin and self.twin:
            return run_kept(self.twin, feeds, keep)
        try:
            outputs = run_kept(self.session, feeds, keep)
        except UnsupportedError:
            self.reruns.refused[self.stage] += 1
            return self._again(self.session.caches(), feeds, keep)
        if _finite(outputs):
            return outputs
        self.reruns.not_finite[self.stage] += 1
        before = self.session.before() if isinstance(self.session, Rewindable) else {}
        return self._again(before, feeds, keep)

    def _again(
        self, caches: Mapping[str, np.ndarray], feeds: Feeds, keep: Collection[str]
    ) -> dict[str, Any]:
        """The call in the twin, from the caches that it began with."""
        self.twin = self.twin or self.opened()
        self.twin.reset()
        if caches and isinstance(self.twin, Rewindable):
            self.twin.restore(caches)
            self.in_twin = True
        return run_kept(self.twin, feeds, keep)

    def reset(self) -> None:
        """Empty the caches, and go back to float16."""
        self.session.reset()
        self.in_twin = False

    def caches(self) -> dict[str, np.ndarray]:
        """The caches of the network that computes at present."""
        return self.twin.caches() if self.in_twin and self.twin else self.session.caches()


def _finite(outputs: Mapping[str, Any]) -> bool:
    arrays = (np.asarray(value) for value in outputs.values())
    return all(np.isfinite(array).all() for array in arrays if array.dtype.kind == "f")
