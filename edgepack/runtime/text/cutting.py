"""An upper bound on the length of utterances, where the original's rules find no place to cut.

A language model that was trained on sentences ends early, or never, on a text far longer than
those, and the memory of everything after it grows with the length.
"""

import math
import re
from collections.abc import Callable, Sequence

LONGEST = 150  # in the units of `split`: the original's own utterances seldom reach 140
_USUAL = 80

TokenCounter = Callable[[str], int]

_WIDE = "\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\uff01-\uffdc"
# Where to cut, the best places first; last come places between ideographs, which are words.
_PLACES: Sequence[re.Pattern[str]] = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<=[。？！；])(?![\"'”’])|(?<=[.?!;])(?=\s)",
        r"(?<=[，、：])|(?<=[,:…—–])(?=\s)",
        r"(?<=\s)(?=\S)",
        rf"(?<=[{_WIDE}])(?=[{_WIDE}])",
        rf"(?<=[{_WIDE}])(?=[^{_WIDE}])|(?<=[^{_WIDE}])(?=[{_WIDE}])",
        r"(?<=\W)(?=\w)",
    )
)


def bounded(utterance: str, length: TokenCounter, comma: str) -> list[str]:
    """The utterance, in parts of at most about 80 units if it has more than LONGEST.

    A part that ends without a punctuation mark gets a comma, as its sentence goes on.
    """
    whole = length(utterance)
    if whole <= LONGEST:
        return [utterance]
    usual = math.ceil(whole / math.ceil(whole / _USUAL)) + _USUAL // 8
    parts = [part.strip() for part in _cut(utterance, length, min(usual, _USUAL), _PLACES)]
    spoken = [part for part in parts if part]
    return [part + comma if part[-1].isalnum() else part for part in spoken[:-1]] + spoken[-1:]


def _cut(
    text: str, length: TokenCounter, most: int, places: Sequence[re.Pattern[str]]
) -> list[str]:
    """Parts of at most `most` units, cut at the best places that are close enough."""
    if length(text) <= most:
        return [text]
    if not places:
        half = len(text) // 2
        halves = (text[:half], text[half:]) if half else ()
        return [part for side in halves for part in _cut(side, length, most, places)] or [text]
    parts: list[str] = []
    for piece in places[0].split(text):
        for part in _cut(piece, length, most, places[1:]):
            if parts and length(parts[-1] + part) <= most:
                parts[-1] += part
            else:
                parts.append(part)
    return parts
