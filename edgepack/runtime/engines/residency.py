"""Networks that are in memory only while they are needed."""

from collections.abc import Callable
from dataclasses import dataclass, field

from edgepack.bundle.stages import Use
from edgepack.runtime.engines.session import Session
from edgepack.runtime.engines.wrapper import Wrapper

_DECODING = "decoding"


def group(stage: str, use: Use) -> str:
    """Stages of one group are called in turn and stay in memory together."""
    return _DECODING if use.called == "token" else stage


@dataclass
class Residency:
    """Sees to it that only one group of networks is in memory at a time."""

    sessions: list["OnDemand"] = field(default_factory=list)

    def session(self, group: str, opened: Callable[[], Session]) -> "OnDemand":
        """A network that `opened` loads when it is first called, and again after a release."""
        made = OnDemand(group, opened, self)
        self.sessions.append(made)
        return made

    def enter(self, wanted: str) -> None:
        """Release every network of another group."""
        for session in self.sessions:
            if session.group != wanted:
                session.release()


@dataclass
class OnDemand(Wrapper):
    """A session that is loaded by its first call; a release loses its caches."""

    group: str
    opened: Callable[[], Session]
    residency: Residency
    loaded: Session | None = None

    @property
    def inner(self) -> Session:
        """The network; it is loaded if it is not there, and those of other groups released."""
        if self.loaded is None:
            self.residency.enter(self.group)
            self.loaded = self.opened()
        return self.loaded

    def fork(self) -> "OnDemand":
        """Another one over the weights of this one, which come and go together."""
        return self.residency.session(self.group, lambda: self.inner.fork())

    def reset(self) -> None:
        """Empty the caches; what is not loaded has none."""
        if self.loaded is not None:
            self.loaded.reset()

    def release(self) -> None:
        """Give the network's memory back."""
        self.loaded = None
