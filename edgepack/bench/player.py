"""What a listener hears of a stream: a simulated player that starts with the first chunk."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Heard:
    """Seconds until the first audio, seconds of audio, and how often and long the player waited.

    `start_delay_seconds` is how much later it would have had to begin to wait never. That is as
    long as it waited in all, because each wait puts off the rest. The simulated player has no
    buffer of its own (a real one has some 10 ms).
    """

    first_audio_seconds: float
    audio_seconds: float
    waits: int
    waited_seconds: float
    start_delay_seconds: float


def played(arrivals: Sequence[tuple[float, float]]) -> Heard:
    """Play chunks, given as pairs of arrival time in seconds and seconds of audio.

    Chunks without audio are nothing to wait for.
    """
    arrivals = [(arrived, seconds) for arrived, seconds in arrivals if seconds > 0]
    if not arrivals:
        return Heard(0.0, 0.0, 0, 0.0, 0.0)
    first = arrivals[0][0]
    end = first  # of what has arrived, when it is played
    waits, waited = 0, 0.0
    for arrived, seconds in arrivals:
        if arrived > end:
            waits += 1
            waited += arrived - end
            end = arrived
        end += seconds
    return Heard(first, sum(seconds for _, seconds in arrivals), waits, waited, waited)
