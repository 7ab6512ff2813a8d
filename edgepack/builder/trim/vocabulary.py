"""Which tokens of a byte-level BPE vocabulary text in an alphabet can ever need.

Text is seen as a sequence of units: characters of the alphabet, and words to keep. A token is
needed if its bytes can lie inside such a sequence, cut anywhere, also inside a character. Every
token that BPE passes through on the way to another lies inside it, so the kept merges are those
whose result is kept, and they happen in the same order as before.
"""

from collections.abc import Iterable
from functools import cache

_ASCII, _TWO, _THREE, _FOUR = 0x80, 0xE0, 0xF0, 0xF8


@cache
def byte_of() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for.

    Printable Latin-1 stands for itself; the other 68 bytes are U+0100 and up (Radford et al.,
    GPT-2, `bytes_to_unicode`).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}


def token_bytes(token: str) -> bytes:
    """The bytes of a token; raises KeyError if it is none of a byte-level vocabulary."""
    table = byte_of()
    return bytes(table[character] for character in token)


class Units:
    """What text is made of: characters, and words of other characters that stand as a whole."""

    def __init__(self, characters: Iterable[str], words: Iterable[str] = ()) -> None:
        self._characters = {c.encode() for c in characters}
        self._words = {word.encode() for word in words}
        self._lengths = sorted({len(word) for word in self._words})
        units = self._characters | self._words
        self._starts = {unit[:end] for unit in units for end in range(1, len(unit))}
        self._ends = {unit[start:] for unit in units for start in range(1, len(unit))}
        self._insides = {
            unit[start:end]
            for unit in units
            for start in range(1, len(unit))
            for end in range(start + 1, len(unit))
        }

    def contain(self, token: bytes) -> bool:
        """Whether the bytes can lie inside a sequence of units."""
        if token in self._insides:
            return True
        # Positions where a unit begins, if the bytes before it are the end of another.
        reached = {0} | {i for i in range(1, len(token) + 1) if token[:i] in self._ends}
        for position in range(len(token)):
            if position in reached:
                if token[position:] in self._starts:
                    return True
                reached |= self._next(token, position)
        return len(token) in reached

    def _next(self, token: bytes, position: int) -> set[int]:
        """Where units that begin at a position end."""
        end = position + _width(token[position])
        found = {end} if token[position:end] in self._characters else set()
        for length in self._lengths:
            if token[position : position + length] in self._words:
                found.add(position + length)
        return found


def _width(first: int) -> int:
    """Bytes of the UTF-8 character that starts with this byte."""
    return 1 if first < _ASCII else 2 if first < _TWO else 3 if first < _THREE else 4
