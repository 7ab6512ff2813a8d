"""Calls that are not finite in float16 are repeated in float32, once, and counted."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgepack.runtime.session import Feeds, Rewindable, Session, run_kept


@dataclass
class Guarded:
    """A network in float16 with its float32 twin, which is loaded when it is first needed.

    A network with caches goes on in the twin until its caches are emptied.
    """

    stage: str
    session: Session
    opened: Callable[[], Session]
    reruns: Counter[str]
    twin: Session | None = None
    in_twin: bool = False

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Outputs, of the twin if those of the network are not finite."""
        return {name: np.asarray(value) for name, value in self.run_kept(feeds, ()).items()}

    def run_kept(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        """The same; outputs of `keep` stay on the device."""
        if self.in_twin and self.twin:
            return run_kept(self.twin, feeds, keep)
        outputs = run_kept(self.session, feeds, keep)
        if _finite(outputs):
            return outputs
        self.reruns[self.stage] += 1
        self.twin = self.twin or self.opened()
        self.twin.reset()
        if isinstance(self.session, Rewindable) and isinstance(self.twin, Rewindable):
            before = self.session.before()
            self.twin.restore(before)
            self.in_twin = bool(before)
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
