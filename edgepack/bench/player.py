"""What somebody hears of a stream: a player that starts with the first audio that comes."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heard:
    """Seconds until the first audio and of audio, and how often and long there was nothing to play.

    A player's own buffer, of some 10 ms, is not counted: there is none.
    """

    first_audio_seconds: float
    audio_seconds: float
    waits: int
    waited_seconds: float


def played(arrivals: Sequence[tuple[float, float]]) -> Heard:
    """What chunks come to that arrived at a time, in seconds of a clock, with seconds of audio."""
    if not arrivals:
        return Heard(0.0, 0.0, 0, 0.0)
    first = arrivals[0][0]
    end = first  # of what has arrived, when it is played
    waits, waited = 0, 0.0
    for arrived, seconds in arrivals:
        if arrived > end:
            waits += 1
            waited += arrived - end
            end = arrived
        end += seconds
    return Heard(first, sum(seconds for _, seconds in arrivals), waits, waited)
