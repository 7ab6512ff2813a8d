"""The fp32 networks speak sentences while their inputs are recorded."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.builder.calibration.recordings import recorded
from edgepack.builder.calibration.samples import Reservoir
from edgepack.builder.hub import REFEREE
from edgepack.report import Step
from edgepack.runtime.engines.session import Feeds, Session
from edgepack.runtime.engines.wrapper import Wrapper
from edgepack.runtime.loading import Loaded, load, session_of, with_session
from edgepack.verification.speaking import speak

_TOKENS, _LONGEST = 400, 50  # speech tokens in all, and of one sentence
_KIND = "calibration"


@dataclass(frozen=True)
class ObservedSession(Wrapper):
    """A session whose inputs, the cache included, are offered to a reservoir before it runs."""

    session: Session
    reservoir: Reservoir

    @property
    def inner(self) -> Session:
        """The session that is observed."""
        return self.session

    def run_kept(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        """Offer the inputs, then run the session."""
        self.reservoir.offer(lambda: {**feeds, **self.session.caches()})
        return self.session.run_kept(feeds, keep)

    def fork(self) -> "ObservedSession":
        """A fork of the session, whose inputs the same reservoir is offered."""
        return ObservedSession(self.session.fork(), self.reservoir)


def observe(reference: Path, sentences: Sequence[str], key: str, step: Step) -> Path:
    """Record what the bundle `reference` gives its networks when it speaks.

    Voices take turns. It stops after 400 speech tokens. Recordings of the same key are used
    again. Returns their folder.
    """

    def record(folder: Path) -> None:
        loaded = load(reference, REFEREE)
        for stage, use in loaded.bundle.manifest.uses.items():
            kept = Reservoir(folder, stage, use.samples)
            loaded = with_session(loaded, stage, ObservedSession(session_of(loaded, stage), kept))
        _speak(loaded, sentences, step)

    return recorded(_KIND, key, record)


def _speak(loaded: Loaded, sentences: Sequence[str], step: Step) -> None:
    budget = _TOKENS
    for spoken in speak(loaded, sentences, _LONGEST):
        budget -= len(spoken.tokens)
        step(f"speaking for calibration: {_TOKENS - budget} of {_TOKENS} tokens")
        if budget <= 0:
            return
