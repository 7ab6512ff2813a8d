"""Whether speech comes fast enough for a player that begins with the first audio."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Underruns:
    """How often such a player has nothing left to play before the end, and for how long in all.

    `first` is when the first audio came, None before that; `audio` is seconds of audio so far. The
    player has no buffer of its own (a real one has some 10 ms). If it began `seconds` later it
    would have no gap, because each gap puts off all that follows.
    """

    first: float | None = None
    audio: float = 0.0
    count: int = 0
    seconds: float = 0.0

    def add(self, arrived: float, audio: float) -> None:
        """Note a chunk: when it came, on one clock for all, and its seconds of audio."""
        if audio <= 0:  # nothing to wait for
            return
        if self.first is None:
            self.first = arrived
        late = arrived - self.first - self.audio - self.seconds
        if late > 0:
            self.count += 1
            self.seconds += late
        self.audio += audio


def underruns(arrivals: Iterable[tuple[float, float]]) -> Underruns:
    """Those of whole speech, of pairs of arrival time and audio in seconds."""
    found = Underruns()
    for arrived, audio in arrivals:
        found.add(arrived, audio)
    return found
