"""Which characters and words a trimmed tokenizer splits exactly as the whole one does."""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import groupby

Ranges = list[tuple[int, int]]


def ranges(characters: Iterable[str]) -> Ranges:
    """Characters as ranges of code points, first and last inclusive, ascending."""
    found: Ranges = []
    for point in sorted(map(ord, characters)):
        if found and point == found[-1][1] + 1:
            found[-1] = found[-1][0], point
        else:
            found.append((point, point))
    return found


def to_text(found: Ranges) -> str:
    """Ranges in the notation of manifests, hexadecimal: "20-7e a0 4e00-9fff"."""
    return " ".join(f"{a:x}" if a == b else f"{a:x}-{b:x}" for a, b in found)


def from_text(text: str) -> Ranges:
    """What `to_text` wrote; raises ValueError for anything else."""
    parts = [[int(end, 16) for end in part.split("-")] for part in text.split()]
    return [(part[0], part[-1]) for part in parts]


def foreign_runs(text: str, known: Callable[[str], bool]) -> list[str]:
    """The longest runs of characters that are not known, in order."""
    grouped = groupby(text, known)
    return ["".join(run) for is_known, run in grouped if not is_known]


@dataclass(frozen=True)
class Coverage:
    """The characters and words of some languages, and the special tokens of the tokenizer."""

    alphabet: Ranges
    words: Collection[str] = ()
    special: Collection[str] = ()

    def contains(self, character: str) -> bool:
        """Whether the character is in the alphabet."""
        at = bisect_right(self.alphabet, (ord(character), 0x110000)) - 1
        return at >= 0 and ord(character) <= self.alphabet[at][1]

    def foreign(self, text: str) -> list[str]:
        """Runs of characters that only the trimmed tokenizer has to spell byte by byte."""
        runs = foreign_runs(self._plain(text), self.contains)
        return [run for run in runs if run not in self.words]

    def share(self, texts: Iterable[str]) -> float:
        """Share of foreign characters in some texts, 0 to 1."""
        foreign = total = 0
        for text in texts:
            foreign += sum(map(len, self.foreign(text)))
            total += len(self._plain(text))
        return foreign / total if total else 0.0

    def _plain(self, text: str) -> str:
        """The text as the tokenizer sees it, with a blank for each special token."""
        if self.special:
            longest = sorted(self.special, key=len, reverse=True)
            text = re.sub("|".join(map(re.escape, longest)), " ", text)
        return unicodedata.normalize("NFC", text)
