"""Reading with a WeTextProcessing grammar: two finite-state transducers, run by kaldifst.

Source: wetext/utils.py (`normalize`) and wetext/token_parser.py, as of 0.0.4, which the original
pins (0.1.8 escapes values twice, so that a backslash is spoken before each quote). A tagger turns
text into tokens such as `date { year: "2024" month: "5" }`, their fields are put into the order in
which they are spoken, and a verbaliser turns that into words.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from edgepack.errors import IntegrityError, ResourceError
from edgepack.process import shortage
from edgepack.runtime.text.normalization import Normalize, Refused

_Order = Mapping[str, Sequence[str]]
_Transducer = Callable[[str], str]

_CHINESE: _Order = {
    "date": ("year", "month", "day"),
    "fraction": ("denominator", "numerator"),
    "measure": ("denominator", "numerator", "value"),
    "money": ("value", "currency"),
    "time": ("noon", "hour", "minute", "second"),
}
_ENGLISH: _Order = {
    "date": ("preserve_order", "text", "day", "month", "year"),
    "money": ("integer_part", "fractional_part", "quantity", "currency_maj"),
}
# Fields that are not named here follow, in the tagger's order.
ORDERS: Mapping[str, _Order] = {"zh": _CHINESE, "ja": _CHINESE, "en": _ENGLISH}

_FIELD = re.compile(r'([A-Za-z_]+): "((?:[^"\\]|\\.)*)"', re.DOTALL)
_TOKEN = re.compile(rf" *([A-Za-z_]+) \{{((?: +{_FIELD.pattern})*) *\}}", re.DOTALL)

# A long text is read in pieces, as time and memory grow faster than its length and kaldifst blocks
# other threads meanwhile. It is not cut after "Sept." and the like, whose number may follow.
_LONGEST = 200
_BREAKS = tuple(
    re.compile(pattern)
    for pattern in (
        r"[。！？；\n]|[^\W\d_]{4}[.!?;]\s+(?!\d)",
        r"[.!?;]\s+(?!\d)",
        r"\s+(?!\d)|[，、]",
        r"\D(?=\D)",
    )
)
_WORD = re.compile(r"[^\s，。！？；、]+[\s，。！？；、]*|[\s，。！？；、]+")
_SIGNS_AROUND = re.compile(r"([^\w$€£¥￥]*)(.*?)([^\w%]*)", re.DOTALL)
# Long rows of signs (as rules across a page) and of digits, of which grammars would try every
# possible reading. The signs are not read, and the digits are read one by one.
_NOT_READ = re.compile(r"((?:[^\w\s] ?){8,}|(?:\d[^\w\s]?){40,})")


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces, cut after sentences, else after words or where there is no number."""
    start = 0
    while len(text) - start > _LONGEST:
        window = text[start : start + _LONGEST]
        ends = (max((m.end() for m in p.finditer(window)), default=0) for p in _BREAKS)
        end = start + next((end for end in ends if end), _LONGEST)
        yield text[start:end]
        start = end
    yield text[start:]


def _reordered(tagged: str, order: _Order) -> str | None:
    """The tokens with their fields as the verbaliser expects them; None if they are no tokens.

    Values stay as the tagger has escaped them, since the verbaliser removes the escapes.
    """
    tokens: list[str] = []
    end = 0
    while token := _TOKEN.match(tagged, end):
        end = token.end()
        fields: list[tuple[str, str]] = _FIELD.findall(token[2])
        values, names = dict(fields), [name for name, _ in fields]
        if token[1] in order and values.get("preserve_order") != "true":
            first = order[token[1]]
            names = [*first, *(name for name in names if name not in first)]
        spoken = "".join(f' {n}: "{values[n]}"' for n in names if n in values)
        tokens.append(f"{token[1]} {{{spoken} }}")
    return " ".join(tokens) if tokens and not tagged[end:].strip(" ") else None


@dataclass(frozen=True)
class Grammar:
    """A tagger, a verbaliser, and the order of fields between them.

    With `needs_digit` text without a digit is left as it is.
    """

    tagger: _Transducer
    verbalizer: _Transducer
    order: _Order
    needs_digit: bool

    def __call__(self, text: str, refused: Refused = lambda words: None) -> str:
        """The text as it is spoken."""
        parts = _NOT_READ.split(text.strip())  # every second part is a row of signs or digits
        return "".join(
            self._one_by_one(part)
            if number % 2
            else "".join(self._read(piece, refused) for piece in _pieces(part))
            for number, part in enumerate(parts)
        )

    def _one_by_one(self, row: str) -> str:
        """A run of digits and signs with each digit in words, the signs as they are."""
        digits = {digit: str(unicodedata.decimal(digit)) for digit in set(row) if digit.isdecimal()}
        blank = "" if self.needs_digit else " "  # between words of a language that has blanks
        words = {d: f"{blank}{self._spoken(plain) or plain}" for d, plain in digits.items()}
        return "".join(words.get(sign, sign) for sign in row) + (blank if digits else "")

    def _read(self, text: str, refused: Refused) -> str:
        """A piece in words; where the grammar has no path for all of it, word by word."""
        inner = text.strip()
        if not inner or (self.needs_digit and not re.search(r"\d", inner)):
            return text
        spoken = self._spoken(inner)
        if spoken is None:
            spoken = "".join(self._parts(inner, refused))
        before, _, after = text.partition(inner)
        return f"{before}{spoken}{after}"

    def _spoken(self, text: str) -> str | None:
        """The grammar's reading of a text, None if it has none."""
        try:
            reordered = _reordered(self.tagger(text).strip(), self.order)
            return (self.verbalizer(reordered).strip() or None) if reordered else None
        except (TypeError, UnicodeError):  # lone surrogates, or a part of a character
            return None

    def _parts(self, text: str, refused: Refused) -> Iterator[str]:
        """Runs of words that the grammar can read, in words, and between them those it cannot."""
        found = [(word, self._readable(word)) for word in _WORD.findall(text)]
        for readable, run in groupby(found, lambda pair: pair[1]):
            words = [word for word, _ in run]
            if readable and (spoken := self._spoken("".join(words).strip())):
                yield spoken + words[-1][len(words[-1].rstrip()) :]
            else:
                yield from (self._bare(word, refused) for word in words)

    def _readable(self, word: str) -> bool:
        return self._spoken(word.strip()) is not None

    def _bare(self, word: str, refused: Refused) -> str:
        """A word read without the signs around it; unchanged if that cannot be read either."""
        around = _SIGNS_AROUND.fullmatch(word)
        before, inner, after = around.groups() if around else ("", word, "")
        spoken = self._spoken(inner) if inner else None
        if spoken is None and any(map(str.isalnum, inner)):
            refused(inner)
        return f"{before}{spoken or inner}{after}"


def grammar(locale: str, files: Sequence[Path]) -> Normalize:
    """A grammar from its tagger and its verbaliser file, which are trusted.

    Raises IntegrityError for a file that kaldifst refuses; one that was changed may also crash it.
    ResourceError if there was no memory for it.
    """
    import kaldifst

    loaded: list[_Transducer] = []
    for file in files:
        try:
            loaded.append(kaldifst.TextNormalizer(str(file)))
        except (RuntimeError, MemoryError, ValueError) as error:
            if shortage.of_memory(error):
                raise ResourceError(
                    f"{file}: memory ran out while kaldifst read it; close other programs"
                ) from None
            raise IntegrityError(f"{file}: kaldifst cannot read it: {error}") from None
    return Grammar(loaded[0], loaded[1], ORDERS[locale], needs_digit=locale != "en")
