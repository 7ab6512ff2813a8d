"""The parts of a measurement, and how long they are to each other."""

from typing import TYPE_CHECKING

from edgepack.bench.long_texts import SENTENCES

if TYPE_CHECKING:
    from edgepack.bench.measure import Request

LOADING, ROUND, ONCE = "loading", "round", "once"
_STREAMED = 0.5  # of a sentence is spoken until its first audio is there


def sizes(request: "Request") -> dict[tuple[str | int, ...], float]:
    """Parts in their order: sentences that are spoken in each."""
    subjects, count = range(len(request.subjects)), len(request.texts) or request.sentences
    once = 1 + SENTENCES * (request.long_texts + bool(request.long_texts)) + request.profile
    if request.concurrency > 1:
        once += 2 * request.rounds * count
    turn = (1 + _STREAMED) * count
    return {
        **{(LOADING, which): 1.0 + request.warm_up for which in subjects},
        **{(ROUND, n, which): turn for n in range(request.rounds) for which in subjects},
        **{(ONCE, which): float(once) for which in subjects},
    }
