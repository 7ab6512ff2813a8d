"""Rules that rewrite a text before a grammar reads it, where the grammar is wrong."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from edgepack.runtime.text.normalization import Normalize, Refused

Replacement = str | Callable[[re.Match[str]], str]
Rule = tuple[re.Pattern[str], Replacement]

_DIGITS = re.compile("[0-9]")
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}


def rules(*pairs: tuple[str, Replacement]) -> list[Rule]:
    """Compiled rules from pairs of a pattern and its replacement.

    Digits, letters and word boundaries in patterns are those of ASCII. Repetitions have an upper
    bound, so that a rule takes time in proportion to the length of the text.
    """
    return [(re.compile(pattern, re.ASCII), spoken) for pattern, spoken in pairs]


def roman(numeral: str) -> int:
    """The value of a Roman numeral in capital letters."""
    values = [_VALUES[letter] for letter in numeral]
    return sum(
        -value if value < after else value
        for value, after in zip(values, [*values[1:], 0], strict=True)
    )


def one_by_one(digits: str, names: Sequence[str], between: str = "") -> str:
    """The name of each digit; other characters are left out."""
    return between.join(names[int(digit)] for digit in _DIGITS.findall(digits))


@dataclass(frozen=True)
class Ruled:
    """A grammar with rules in front of it, which are applied in their order."""

    rules: Iterable[Rule]
    read: Normalize

    def __call__(self, text: str, refused: Refused = lambda words: None) -> str:
        """The text as it is spoken."""
        for pattern, spoken in self.rules:
            text = pattern.sub(spoken, text)
        return self.read(text, refused)
