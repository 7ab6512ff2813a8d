"""What a player hears that begins with the first chunk of a stream."""

import pytest

from edgepack.runtime.audio.underruns import Underruns, underruns


@pytest.mark.parametrize(
    ("arrivals", "heard"),
    [
        ([], Underruns(None, 0.0, 0, 0.0)),
        ([(0.5, 1.0), (9.0, 0.0)], Underruns(0.5, 1.0, 0, 0.0)),  # nothing to wait for
        ([(0.5, 1.0), (1.4, 1.0), (2.5, 1.0)], Underruns(0.5, 3.0, 0, 0.0)),  # in time
        ([(0.5, 1.0), (2.0, 1.0), (2.9, 1.0)], Underruns(0.5, 3.0, 1, 0.5)),  # late once
        ([(0.5, 1.0), (2.0, 0.5), (3.0, 0.5)], Underruns(0.5, 2.0, 2, 1.0)),
    ],
)
def test_a_player_waits_for_what_comes_late(
    arrivals: list[tuple[float, float]], heard: Underruns
) -> None:
    assert underruns(arrivals) == heard


def test_a_player_that_begins_so_much_later_waits_never_and_a_little_earlier_does() -> None:
    arrivals = [(0.5, 1.0), (2.0, 0.5), (2.1, 1.0), (4.25, 2.0), (5.0, 0.5)]
    found = underruns(arrivals)
    assert (found.count, found.seconds) == (2, 1.25)

    def gaps(later: float) -> int:
        """With a chunk of silence first, as long as the player is held back."""
        return underruns([(0.5, later), *arrivals]).count

    assert gaps(found.seconds) == 0
    assert gaps(found.seconds - 0.01) == 1
