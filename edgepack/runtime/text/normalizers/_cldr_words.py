"""Numbers, units and money in the words of a locale."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

from edgepack.runtime.text.normalizers._cldr_rules import CURRENCIES, UNITS, Rules

_LONGEST = 15  # digits; what is longer is read digit by digit
_COUNTS = (Decimal(1), Decimal(2), Decimal(5), Decimal("1.5"))  # one for each plural form


class WrittenNumber(NamedTuple):
    """A number as it is written, without group separators."""

    whole: str
    fraction: str = ""

    @property
    def value(self) -> Decimal:
        return Decimal(f"{self.whole}.{self.fraction}" if self.fraction else self.whole)


@dataclass(frozen=True)
class Words:
    """Words for numbers, units and money: those of num2words and Babel, by a language's rules."""

    locale: str
    rules: Rules

    @cached_property
    def units(self) -> dict[str, str]:
        """Babel's units by the signs that are written."""
        own = {sign: UNITS[known] for sign, known in self.rules.signs.items()}
        return {**UNITS, **own}

    @cached_property
    def names(self) -> dict[str, str]:
        """Units and currencies written as words, by which a number is inflected; their singular."""
        return dict(self._nouns()) if self.rules.one or self.locale == "ru" else {}

    def noun(self, unit: str | None) -> str:
        """The singular of a unit, by its sign or written out; empty if there is none."""
        if not unit:
            return ""
        return self.names[unit] if unit in self.names else self.singular(self.units[unit])

    def _nouns(self) -> Iterator[tuple[str, str]]:
        from num2words import CONVERTER_CLASSES

        for unit in set(UNITS.values()):
            for count in _COUNTS:
                yield self.counted(unit, count, "").strip(), self.singular(unit)
        for code in set(CURRENCIES.values()):
            singular, *others = CONVERTER_CLASSES[self.locale].CURRENCY_FORMS.get(code, [[""]])[0]
            yield from ((name, singular) for name in (singular, *others) if name)
        for singular, *others in self.rules.nouns:
            yield from ((name, singular) for name in (singular, *others))

    def spoken(self, number: int | Decimal, **options: str) -> str:
        """A number in words by num2words, with its known mistakes repaired."""
        from num2words import num2words

        words = num2words(number, lang=self.locale, **options)
        for wrong, right in self.rules.repairs.items():
            words = re.sub(wrong, right, words)
        return words

    def sign(self, mark: str | None) -> str:
        """The word for a sign, with the blank behind it; empty if there is none."""
        if not mark:
            return ""
        minus = self.spoken(-1).removesuffix(self.spoken(1)).strip()
        return f"{self.rules.plus if mark == '+' else minus} "

    def digits(self, text: str) -> str:
        """The digits of a text one by one, in words."""
        return self.rules.apart.join(self.spoken(int(digit)) for digit in text)

    def whole(self, text: str, noun: str = "") -> str:
        """A whole number, agreeing with the singular of a noun that follows, if there is one."""
        if len(text) > _LONGEST or (text.startswith("0") and len(text) > 1 and not noun):
            return self.digits(text)
        if not noun and self.locale != "ru":
            return self.spoken(int(text))
        return self.agreeing(text, feminine=re.search(self.rules.feminine, noun) is not None)

    def agreeing(self, text: str, *, feminine: bool) -> str:
        """A whole number before a noun of a gender."""
        if self.locale == "ru":
            return self.spoken(int(text), gender="f" if feminine else "m")
        words = self.spoken(int(text))
        for pattern, *forms in self.rules.one:
            words = re.sub(pattern, forms[feminine], words)
        return words

    def decimal(self, number: WrittenNumber, noun: str = "") -> str:
        """A number with its decimal places, if there are any."""
        whole, fraction = number
        if not fraction:
            return self.whole(whole, noun)
        if self.locale == "ru" and len(whole) <= _LONGEST and len(fraction) <= 3:
            return self.spoken(number.value)
        single = not self.rules.pairs or len(fraction) > 2 or fraction.startswith("0")
        places = self.digits(fraction) if single else self.spoken(int(fraction))
        return f"{self.whole(whole.lstrip('0') or '0')} {self.rules.comma} {places}"

    def counted(self, unit: str, count: Decimal, words: str) -> str:
        """A unit in the plural form of a count, which is given in words."""
        from babel.units import format_unit

        for length in ("long", "short"):
            text = format_unit(count, unit, length, locale=self.locale)
            if unit not in text:  # Babel gives the unit's code where it has no name
                break
        if unit in self.rules.units or unit in text:
            return f"{words}{self.rules.units[unit]}"
        return re.sub(r"\d(?:.*\d)?", lambda _: words, text).replace("\u00a0", " ")

    def singular(self, unit: str) -> str:
        """The name of one unit."""
        return self.counted(unit, _COUNTS[0], "").strip()

    def measured(self, number: WrittenNumber, unit: str, before: str = "") -> str:
        """A number of units; `before` are words that belong to the number, such as its sign.

        They are not put before the whole: some units begin before their number (섭씨 오도).
        """
        words = before + self.decimal(number, self.singular(unit))
        return self.counted(unit, number.value, words)

    def money(self, number: WrittenNumber, code: str) -> str:
        """An amount of a currency."""
        from babel.numbers import get_currency_name

        value, options = number.value, {"to": "currency", "currency": code}
        known = self.locale != "ko" or code == "KRW"
        if known and len(number.whole) <= _LONGEST and len(number.fraction) <= 2:
            try:
                if value != int(value):
                    return self.spoken(value, **options)
                cents = value.quantize(Decimal("1.00"))  # num2words takes an integer for cents
                return self.spoken(cents, separator="\n", **options).partition("\n")[0]
            except (NotImplementedError, ValueError):
                pass  # num2words has no such currency, or no hundredths of it
        singular = get_currency_name(code, 1, locale=self.locale)
        name = get_currency_name(code, value, locale=self.locale)
        return f"{self.decimal(number, singular)} {name}"

    def native(self, number: int) -> str:
        """A Korean numeral before a counter, from the ordinal of num2words."""
        irregular = {1: "한", 20: "스무"}
        return irregular.get(number) or self.spoken(number, to="ordinal").removesuffix(" 번째")
