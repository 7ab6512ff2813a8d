"""The fp32 networks speak sentences while their inputs are recorded."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.calibration.cache import recorded
from edgepack.calibration.samples import Reservoir
from edgepack.hub import REFEREE
from edgepack.report import Step
from edgepack.runtime.loading import Loaded, load, session_of, with_session
from edgepack.runtime.session import Feeds, Session
from edgepack.runtime.wrapper import Wrapper
from edgepack.verification.exam import speak

# Calls kept of each network; large inputs are few.
_LIMITS: Mapping[str, int] = {
    "text_embedding": 64,
    "speech_embedding": 64,
    "speech_lm": 64,
    "flow_encoder": 16,
    "flow_time": 8,
    "flow_estimator": 32,
    "hift_source": 8,
    "hift": 8,
}
_TOKENS, _LONGEST = 800, 100  # speech tokens in all, and of one sentence
_KIND = "calibration"


@dataclass(frozen=True)
class Observed(Wrapper):
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

    def fork(self) -> "Observed":
        """A fork of the session, whose inputs the same reservoir is offered."""
        return Observed(self.session.fork(), self.reservoir)


def observe(reference: Path, sentences: Sequence[str], key: str, step: Step) -> Path:
    """Record what the bundle `reference` gives its networks when it speaks.

    Voices take turns. It stops after 800 speech tokens. Recordings of the same key are used
    again. Returns their folder.
    """

    def record(folder: Path) -> None:
        loaded = load(reference, REFEREE)
        for stage, limit in _LIMITS.items():
            kept = Reservoir(folder, stage, limit)
            loaded = with_session(loaded, stage, Observed(session_of(loaded, stage), kept))
        _speak(loaded, sentences, step)

    return recorded(_KIND, key, record)


def _speak(loaded: Loaded, sentences: Sequence[str], step: Step) -> None:
    budget = _TOKENS
    for spoken in speak(loaded, sentences, _LONGEST):
        budget -= len(spoken.tokens)
        step(f"speaking for calibration: {_TOKENS - budget} of {_TOKENS} tokens")
        if budget <= 0:
            return
