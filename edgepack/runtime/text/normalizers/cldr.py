"""Numbers, dates, times, units and money in words: num2words, with the locale data of Babel.

Each kind of expression has one pass over the text, specific ones first, so that no pass changes the
words of an earlier one.
"""

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property, partial
from pathlib import Path

from edgepack.errors import UnsupportedError
from edgepack.runtime.text.normalization import Normalize, Refused
from edgepack.runtime.text.normalizers import _cldr_fractions
from edgepack.runtime.text.normalizers._cldr_rules import (
    CURRENCIES,
    RULES,
    RUSSIAN_ORDINALS,
    RUSSIAN_YEARS,
    UNITS,
)
from edgepack.runtime.text.normalizers._cldr_words import Words, WrittenNumber

_Match = re.Match[str]
_Read = Callable[[_Match], str | None]

_ISO_DATE = r"(?<![\w-])(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)(?![\w-])"
_DATES = {
    "d": r"(?<![\w.,/-])(?P<day>\d\d?)(?P<s>[./-])(?P<month>\d\d?)(?P=s)(?P<year>\d{4}|\d\d)"
    r"(?![\d/-])(?:\s(?:г\.|года\b))?",
    "y": r"(?<![\w.,/-])(?P<year>\d{4})(?P<s>\.\s?|[/-])(?P<month>\d\d?)(?P=s)(?P<day>\d\d?)"
    r"(?![\d/-])(?:\.(?!\d))?",
}
_GERMAN_DAY = r"(?<![\w.,])(?P<day>\d\d?)\.(?P<month>\d\d?)\.(?=\s[a-zäöü]|\s?[–,)-])"
_TIME = (
    r"(?<![\w:.,])(?P<hour>[01]?\d|2[0-4])(?:\s?[h:]\s?(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?"
    r"(?!\s?min\b|[:.,]?\d)(?:\s?(?:Uhr|Stunden|h)\b)?|[.](?P<minute_2>[0-5]\d)\s?Uhr\b)"
)
_PHONE = (
    r"(?<![\w.,+])(?<!\d[ \u00a0\u2009\u202f])(?:"
    r"(?:\+(?=(?:[ ()/-]{0,2}\d){7})\d+|0\d{2,}|0\d(?=[ /-]\d\d)|0(?= \d{3}))"
    r"(?:[ /-]?\(?\d{2,}\)?)*|(?:\+?\d{1,3} ?\(?\d{3}\)? )?\d{2,}(?:-\d{2,}){2,}|\d{2,}-0\d+)(?!\d)"
)
_FAILURES = (ArithmeticError, LookupError, NotImplementedError, ValueError)


def _placed(read: _Read, match: _Match) -> str:
    """The reading of a match, with blanks between it and letters; unchanged if it has none."""
    try:
        words = read(match)
    except _FAILURES:
        words = None
    if words is None:
        return match[0]
    around = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    before, after = (" " if c.isalpha() and not "가" <= c <= "힣" else "" for c in around)
    return f"{before}{words}{after}"


@dataclass(frozen=True)
class _Reader:
    words: Words

    def __call__(self, text: str, refused: Refused = lambda words: None) -> str:
        text = _cldr_fractions.spelled_out(text)
        for pattern, read in self._passes if re.search(r"\d", text) else ():
            text = pattern.sub(read, text)
        return text

    @cached_property
    def _passes(self) -> Sequence[tuple[re.Pattern[str], Callable[[_Match], str]]]:
        from babel import Locale

        locale = Locale.parse(self.words.locale)
        symbols = locale.number_symbols["latn"]
        group, comma = str(symbols["group"]), re.escape(str(symbols["decimal"]))
        space = " " if group.isspace() else ""
        groups = rf"[1-9]\d{{0,2}}(?:[{re.escape(group)}{space}\u00a0\u2009\u202f]\d{{3}})+(?!\d)"
        # A point is read as the decimal sign too, unless it separates groups.
        point = {".": r"|\.(?!\d{3}(?!\d))", ",": ""}.get(group, r"|\.")
        number = rf"(?>{groups}|\d+)(?>(?:{comma}{point})\d+(?![.,]?\d))?"
        money = "|".join(map(re.escape, CURRENCIES))
        units = "|".join(
            map(re.escape, sorted([*self.words.units, *self.words.names], key=len)[::-1])
        )
        quantity = (
            rf"(?:(?<![\w.,)])(?P<sign>[-−–+]))?(?:(?P<before>{money})\s?)?"
            rf"(?<!\d)(?<!\d[.,])(?P<last>{number})"
            rf"(?:(?:\s?[–—~]\s?(?P<end_sign>[-−+])?|-)(?P<end>{number}))?"
            rf"(?:\s?(?P<after>{money})(?!\w)|\s?(?P<unit>{units})(?![^\W가-힣]|['’²³]))?"
        )
        wide = locale.months["format"]["wide"]
        months = "|".join(map(re.escape, wide.values()))
        own: Mapping[str, tuple[str, _Read]] = {
            "de": (
                rf"\b(?P<lead>(?:Jahr(?:es|e)?|{months})\s)(?P<year>1[1-9]\d\d)\b",
                self._in_year,
            ),
            "ru": (
                r"(?<!\d)(?P<year>[12]\d{3})\s(?P<form>год(?:ом|у|а)?\b|г\.)",
                self._russian_year,
            ),
            "ko": (r"(?<!\d)(?P<n>6|10)월", lambda m: {"6": "유월", "10": "시월"}[m["n"]]),
        }
        day = (
            rf"(?<![\w.,:])(?P<day>\d\d?)(?:\.|er|º)?(?P<link>\s(?:de\s)?(?i:{months}))\b"
            r"(?:(?P<to_year>\s(?:de\s)?)(?P<year>\d{4})\b(?!\s?(?:Uhr|h\b))(?P<word>\s(?:г\.|года\b))?)?"
        )
        dates = _DATES["y" if locale.date_formats["short"].pattern.startswith("y") else "d"]
        passes: list[tuple[str, _Read]] = [
            (_ISO_DATE, partial(self._date, wide)),
            (dates, partial(self._date, wide)),
            (day, self._named_day),
            (_GERMAN_DAY if self.words.locale == "de" else "(?!)", partial(self._short_date, wide)),
            *([own[self.words.locale]] if self.words.locale in own else []),
            (_TIME, self._time),
            (_cldr_fractions.matched(units), partial(_cldr_fractions.read, self.words)),
            (self.words.rules.ordinal, self._ordinal),
            (_PHONE, self._phone),
            (
                rf"(?!(?:{groups})(?!\.\d))(?<![\w.])\d+(?:\.\d+){{2,}}",
                partial(self._list, ".", self.words.rules.point),
            ),
            (r"(?<![\d:])\d+(?::\d+)+", partial(self._list, ":", self.words.rules.ratio)),
            (r"(?<![\d/])\d+(?:/\d+)+", partial(self._list, "/", "")),
            (quantity, partial(self._quantity, re.compile(rf"({groups}|\d+)(?:\D(\d+))?"))),
            (r"\d+", lambda m: self.words.whole(m[0])),
        ]
        return [(re.compile(pattern), partial(_placed, read)) for pattern, read in passes]

    def _phone(self, m: _Match) -> str:
        """A telephone number digit by digit, or in pairs if that is usual and it is written so."""
        groups = re.findall(r"\d+", m[0])
        pairs = self.words.rules.pairs and all(len(group) == 2 for group in groups)
        read = self.words.whole if pairs else self.words.digits
        words = ", ".join(map(read, groups))
        return words.replace(*self.words.rules.phone)

    def _quantity(self, number: re.Pattern[str], m: _Match) -> str | None:
        def parsed(text: str) -> WrittenNumber:
            found = number.fullmatch(text)
            if not found:
                raise ValueError(text)
            fraction = found[2] or ""
            if self.words.locale == "ru":  # 2,50 is two and five tenths
                fraction = fraction.rstrip("0")
            return WrittenNumber(re.sub(r"\D", "", found[1]), fraction)

        last, first = parsed(m["end"] or m["last"]), parsed(m["last"]) if m["end"] else None
        money, unit = m["before"] or m["after"], m["unit"]
        noun, before = self.words.noun(unit), self.words.sign(m["sign"])
        if first:
            low, high = (
                -number.value if sign and sign != "+" else number.value
                for number, sign in ((first, m["sign"]), (last, m["end_sign"]))
            )
            before += self.words.decimal(first, "" if money else noun)
            before += (
                f"{self.words.rules.to if low < high else ' '}{self.words.sign(m['end_sign'])}"
            )
        if money:
            after = f" {unit}" if m["before"] and unit else ""
            return f"{before}{self.words.money(last, CURRENCIES[money])}{after}"
        if unit and unit not in self.words.names:
            return self.words.measured(last, self.words.units[unit], before)
        return f"{before}{self.words.decimal(last, noun)}{f' {unit}' if unit else ''}"

    def _list(self, separator: str, word: str, m: _Match) -> str:
        between = f" {word} " if word else " "
        return between.join(self.words.whole(part) for part in m[0].split(separator))

    def _time(self, m: _Match) -> str:
        hour, minute = str(int(m["hour"])), m["minute"] or m["minute_2"]
        parts = [WrittenNumber(hour), WrittenNumber(minute), WrittenNumber(m["second"] or "")]
        hours, minutes = (
            self.words.measured(n, self.words.units[u])
            for n, u in zip(parts, ("h", "min"), strict=False)
        )
        if m["second"]:
            return f"{hours} {minutes} {self.words.measured(parts[2], self.words.units['s'])}"
        spoken = self._hour(hour)
        if not int(minute):
            return self.words.rules.full_hour.format(hour=spoken, hours=hours)
        keep_zero = self.words.locale == "ru"
        after = self.words.whole(minute if keep_zero else str(int(minute)))
        return self.words.rules.clock.format(hour=spoken, hours=hours, minute=after)

    def _hour(self, hour: str) -> str:
        """The hour of a clock, which Korean counts with its own numerals up to twelve."""
        if self.words.locale == "ko" and 1 <= int(hour) <= 12:
            return self.words.native(int(hour))
        noun = "Uhr" if self.words.locale == "de" else self.words.singular(UNITS["h"])
        return self.words.whole(hour, noun)

    def _date(self, months: Mapping[int, str], m: _Match) -> str:
        year, month, day = m["year"], int(m["month"]), int(m["day"])
        date(int(year) + (2000 if len(year) == 2 else 0), month, day)  # raises for no such day
        return self.words.rules.date.format(
            day=self._day(day, m), month=months[month], year=self._year(year)
        )

    def _short_date(self, months: Mapping[int, str], m: _Match) -> str:
        return f"{self._day(int(m['day']), m)} {months[int(m['month'])]}"

    def _named_day(self, m: _Match) -> str:
        words = self._day(int(m["day"]), m) + m["link"]
        if m["year"]:
            words += m["to_year"] + self._year(m["year"])
            words += " года" if self.words.locale == "ru" else ""
        return words

    def _day(self, day: int, m: _Match) -> str:
        """A day of a month: which languages count with ordinals, and in which case."""
        if self.words.locale == "de":
            words = re.findall(r"\w+|[^\w\s]", m.string[max(0, m.start() - 20) : m.start()])
            last = words[-1].lower() if words else ""
            ending = "" if last in ("der", "die", "das") else "n" if last.isalpha() else "r"
            return self.words.spoken(day, to="ordinal") + ending
        if self.words.locale == "ru":
            return self.words.spoken(day, to="ordinal", case="g", gender="n")
        if day == 1 and self.words.locale in ("fr", "it"):
            return self.words.spoken(day, to="ordinal")
        return self.words.spoken(day)

    def _year(self, year: str) -> str:
        if self.words.locale == "ru":
            return self.words.spoken(int(year), to="ordinal", case="g", gender="m")
        return (
            self.words.spoken(int(year), to="year")
            if self.words.locale == "de"
            else self.words.whole(year)
        )

    def _in_year(self, m: _Match) -> str:
        return m["lead"] + self._year(m["year"])

    def _russian_year(self, m: _Match) -> str:
        case, word = RUSSIAN_YEARS[m["form"]]
        year = self.words.spoken(int(m["year"]), to="ordinal", case=case, gender="m")
        return f"{year} {word}"

    def _ordinal(self, m: _Match) -> str | None:
        number, form = int(m["n"]), m["form"]
        if self.words.locale == "ko":
            return self._counted(number, form)
        if self.words.locale == "ru":
            return self.words.spoken(number, to="ordinal", **RUSSIAN_ORDINALS[form])
        words = self.words.spoken(number, to="ordinal")
        if self.words.locale == "de":
            if not form and not m.string[m.end() :].lstrip()[:1].islower():
                return None  # it may be the end of a sentence
            ending = "" if form and form.strip().lower() in ("der", "die", "das") else "n"
            return f"{form or ''}{words}{ending}"
        pattern, ending = self.words.rules.endings.get(form, ("$", ""))
        return re.sub(pattern, ending, words, count=1 if pattern == ".*" else 0)

    def _counted(self, number: int, counter: str) -> str | None:
        if number == 0 or (counter == "시" and number > 12):
            return None
        numeral = "첫" if (number, counter) == (1, "번째") else self.words.native(number)
        return f"{numeral} {counter}"


@dataclass(frozen=True)
class _Cldr:
    def open(self, locale: str, files: Sequence[Path]) -> Normalize:
        """A reader of a locale; there are no files."""
        try:
            importlib.import_module("num2words")
            importlib.import_module("babel")
        except ModuleNotFoundError:
            raise UnsupportedError(
                "num2words or Babel is not installed; pip install num2words Babel"
            ) from None
        if locale not in RULES:
            raise UnsupportedError(f"no rules for {locale!r}; known: {', '.join(RULES)}")
        reader = _Reader(Words(locale, RULES[locale]))
        reader("0")  # loads the locale's data
        return reader


NORMALIZER = _Cldr()
