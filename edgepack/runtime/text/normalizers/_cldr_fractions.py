"""Common fractions in words: 1/2, 2 3/4, ½."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from edgepack.runtime.text.normalizers._cldr_words import Words

# Denominators that have a name people say; other numbers with a slash between are no fraction.
_DENOMINATORS = frozenset((*range(2, 21), 100, 1000))
_PARTIAL = Decimal("1.5")  # a count whose plural form a unit has after a fraction
_ARTICLE = 5  # characters before a fraction that an article and a blank take, and one more
_CHARACTERS = re.compile("[¼-¾⅐-⅞]")


@dataclass(frozen=True)
class _Forms:
    """How a language says fractions.

    `half` is one half of a masculine and of a feminine noun, `and_half` the same after a whole
    number, with what joins the two. `parts` has the names of denominators, for one and for more;
    `ordinal` makes both of an ordinal number, for those that are not named.
    """

    half: tuple[str, str]
    and_half: tuple[str, str]
    joint: str
    ordinal: Callable[[str], tuple[str, str]]
    parts: Mapping[int, tuple[str, str]] = field(default_factory=dict)
    of: str = " "  # between a fraction and a unit
    last: bool = False  # whether "and a half" comes after the unit
    article: str = "(?!)"  # singular: what follows is a date, unless the numerator is 1
    feminine: tuple[str, str] = ("(?!)", "(?!)")  # of nouns that are no units: after 1/2, 2 1/2


def _spanish(numeral: str) -> tuple[str, str]:
    """The names of a denominator above ten, for one and for more: dieciséis, dieciseisavo."""
    part = numeral.replace("é", "e").replace("ó", "o") + "avo"
    return part, f"{part}s"


_FORMS: Mapping[str, _Forms] = {
    "de": _Forms(
        half=("ein halb", "eine halbe"), and_half=("einhalb", "einhalb"), joint=" ",
        ordinal=lambda ordinal: (ordinal[:-1].capitalize() + "el",) * 2, feminine=("e$", "(?!)"),
    ),
    "fr": _Forms(
        half=("un demi", "une demi"), and_half=(" et demi", " et demie"), joint=" et ",
        ordinal=lambda ordinal: (ordinal, f"{ordinal}s"),
        parts={3: ("tiers", "tiers"), 4: ("quart", "quarts")},
        of=" de ", last=True, article=r"\b(?:le|du|au)\s$",
    ),
    "es": _Forms(
        half=("medio", "media"), and_half=(" y medio", " y media"), joint=" y ",
        ordinal=lambda ordinal: (ordinal, f"{ordinal}s"), parts={3: ("tercio", "tercios")},
        of=" de ", last=True, article=r"\b(?:el|del|al)\s$", feminine=("a$", "as$"),
    ),
    "it": _Forms(
        half=("mezzo", "mezza"), and_half=(" e mezzo", " e mezza"), joint=" e ",
        ordinal=lambda ordinal: (ordinal, f"{ordinal[:-1]}i"),
        of=" di ", last=True, article=r"\b(?:il|del|dal|al)\s$", feminine=("a$", "e$"),
    ),
    "ru": _Forms(
        half=("половина", "половина"), and_half=(" с половиной", " с половиной"), joint=" и ",
        ordinal=lambda ordinal: (ordinal, ordinal),
        parts={3: ("треть", "трети"), 4: ("четверть", "четверти")}, feminine=("(?!)", "[ыи]$"),
    ),
    "ko": _Forms(
        half=("", ""), and_half=("", ""), joint="", ordinal=lambda ordinal: (ordinal, ordinal)
    ),
}  # fmt: skip


def spelled_out(text: str) -> str:
    """The text with fractions that are one character (½) written with a slash."""

    def written(m: re.Match[str]) -> str:
        beside = m.string[max(0, m.start() - 1) : m.start()], m.string[m.end() : m.end() + 1]
        before, after = (" " if c.isdecimal() else "" for c in beside)
        return before + unicodedata.normalize("NFKC", m[0]).replace("\u2044", "/") + after

    return _CHARACTERS.sub(written, text)


def matched(units: str) -> str:
    """A fraction with the sign and the whole number before it and the unit or noun after it."""
    return (
        r"(?:(?<![\w.,)])(?P<sign>[-−+]))?(?<![\w.,/:⁄])(?:(?P<whole>[1-9]\d{0,3})\s)?"
        r"(?P<numerator>[1-9]\d{0,2})[/⁄](?P<denominator>[1-9]\d{0,3})(?![\d/⁄]|[.,:]\d)"
        rf"(?:\s?(?P<unit>{units})(?![^\W가-힣]|['’²³])|(?=\s(?P<noun>[^\W\d_]+)))?"
    )


def read(words: Words, m: re.Match[str]) -> str | None:
    """What a match of `matched` says; None if it is no fraction."""
    part, whole = (int(m["numerator"]), int(m["denominator"])), m["whole"]
    forms = _FORMS[words.locale]
    if part[0] >= part[1] or part[1] not in _DENOMINATORS:
        return None
    lead = m.string[max(0, m.start() - _ARTICLE) : m.start()]
    if part[0] > 1 and not whole and re.search(forms.article, lead, re.IGNORECASE):
        return None
    singular = words.noun(m["unit"])
    guess = forms.feminine[whole is not None]
    pattern, noun = (words.rules.feminine, singular) if singular else (guess, m["noun"])
    feminine = re.search(pattern, noun) is not None if noun else None
    fraction = _Fraction(words, whole, *part, feminine)
    return words.sign(m["sign"]) + _with_unit(words, fraction, m["unit"])


@dataclass(frozen=True)
class _Fraction:
    """A fraction and the whole number before it; `feminine` is the noun's, if one follows."""

    words: Words
    whole: str | None
    numerator: int
    denominator: int
    feminine: bool | None

    @property
    def forms(self) -> _Forms:
        return _FORMS[self.words.locale]

    @property
    def half(self) -> bool:
        return (self.numerator, self.denominator) == (1, 2)

    def count(self) -> str:
        """The whole number."""
        if self.feminine is None and self.words.locale != "de":
            return self.words.whole(self.whole or "")
        agrees = bool(self.feminine) and self.words.locale != "de"  # eineinhalb Stunden
        return self.words.agreeing(self.whole or "", feminine=agrees)

    def __str__(self) -> str:
        if self.words.locale == "ko":
            return self._korean()
        if not self.whole:
            return self.forms.half[bool(self.feminine)] if self.half else self._part()
        if self.words.locale == "ru" and self.half and int(self.whole) == 1:
            return "полторы" if self.feminine else "полтора"
        return self.count() + (
            self.forms.and_half[bool(self.feminine)]
            if self.half
            else self.forms.joint + self._part()
        )

    def _part(self) -> str:
        several, options = self.numerator > 1, {}
        if self.words.locale == "ru":
            options = {"case": "g", "plural": "1"} if several else {"gender": "f"}
        count = self.words.agreeing(str(self.numerator), feminine=self.words.locale == "ru")
        if self.denominator in self.forms.parts:
            names = self.forms.parts[self.denominator]
        elif self.words.locale == "es" and 10 < self.denominator <= 20:
            names = _spanish(self.words.spoken(self.denominator))
        else:
            ordinal = self.words.spoken(self.denominator, to="ordinal", **options)
            names = self.forms.ordinal(ordinal)
        return f"{count} {names[several]}"

    def _korean(self) -> str:
        part = f"{self.words.spoken(self.denominator)}분의 {self.words.spoken(self.numerator)}"
        if not self.whole:
            return part
        count = self.words.spoken(int(self.whole))
        closed = (ord(count[-1]) - ord("가")) % 28 != 0  # ends in a consonant
        return f"{count}{'과' if closed else '와'} {part}"


def _with_unit(words: Words, fraction: _Fraction, unit: str | None) -> str:
    """A fraction and its unit, which is in its form already where it is written out."""
    if not unit:
        return str(fraction)
    written = unit in words.names
    if words.locale in ("ru", "ko") and not written:
        return words.counted(words.units[unit], _PARTIAL, str(fraction))
    several = fraction.whole is not None and int(fraction.whole) > 1
    name = unit if written else words.counted(words.units[unit], Decimal(1 + several), "").strip()
    if fraction.whole and fraction.half and fraction.forms.last:
        name = name if several else words.noun(unit)
        return f"{fraction.count()} {name}{fraction.forms.and_half[bool(fraction.feminine)]}"
    direct = written or fraction.whole or fraction.denominator == 2
    return f"{fraction}{' ' if direct else fraction.forms.of}{name}"
