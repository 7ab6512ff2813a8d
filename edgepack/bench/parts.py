"""The parts of a measurement with their relative durations, for the progress display."""

from edgepack.bench.long_texts import SENTENCES
from edgepack.bench.request import MeasureRequest

LOADING, ROUND, ONCE = "loading", "round", "once"
_STREAMED = 0.5  # of a sentence: the work until its first audio


def sizes(request: MeasureRequest) -> dict[tuple[str | int, ...], float]:
    """Parts in their order, with the number of sentences spoken in each as its duration."""
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
