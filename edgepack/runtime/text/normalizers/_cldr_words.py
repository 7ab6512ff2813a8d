"""Numbers, units and money in words, for what reads a text in a locale."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

from edgepack.runtime.normalizers._cldr_rules import CURRENCIES, UNITS, Rules

_LONGEST = 15  # digits; what is longer is read digit by digit
_COUNTS = (Decimal(1), Decimal(2), Decimal(5), Decimal("1.5"))  # one for each plural form


class Number(NamedTuple):
    """A number as it is written, without group separators."""

    whole: str
    fraction: str = ""

    @property
    def value(self) -> Decimal:
        return Decimal(f"{self.whole}.{self.fraction}" if self.fraction else self.whole)


@dataclass(frozen=True)
class Words:
    """What num2words and Babel say, put together as the language does."""

    locale: str
    rules: Rules

    @cached_property
    def units(self) -> dict[str, str]:
        """Babel's units by the signs that are written."""
        own = {sign: UNITS[known] for sign, known in self.rules.signs.items()}
        return {**UNITS, **own}

    @cached_property
    def names(self) -> dict[str, str]:
        """Written-out units and currencies that a number agrees with, and their singular."""
        return dict(self._nouns()) if self.rules.one or self.locale == "ru" else {}

    def _nouns(self) -> Iterator[tuple[str, str]]:
        from num2words import CONVERTER_CLASSES

        for unit in set(UNITS.values()):
            for count in _COUNTS:
                yield self._unit(unit, count, "").strip(), self.singular(unit)
        for code in set(CURRENCIES.values()):
            singular, *others = CONVERTER_CLASSES[self.locale].CURRENCY_FORMS.get(code, [[""]])[0]
            yield from ((name, singular) for name in (singular, *others) if name)
        for singular, *others in self.rules.nouns:
            yield from ((name, singular) for name in (singular, *others))

    def spoken(self, number: int | Decimal, **options: str) -> str:
        """What num2words makes of a number, its known mistakes repaired."""
        from num2words import num2words

        words = num2words(number, lang=self.locale, **options)
        for wrong, right in self.rules.repairs.items():
            words = words.replace(wrong, right)
        return words

    def digits(self, text: str) -> str:
        """Digit by digit."""
        return self.rules.apart.join(self.spoken(int(digit)) for digit in text)

    def whole(self, text: str, noun: str = "") -> str:
        """A whole number, agreeing with the singular of a noun that follows, if there is one."""
        if len(text) > _LONGEST or (text.startswith("0") and len(text) > 1 and not noun):
            return self.digits(text)
        feminine = re.search(self.rules.feminine, noun) is not None
        if self.locale == "ru":
            return self.spoken(int(text), gender="f" if feminine else "m")
        words = self.spoken(int(text))
        for pattern, *forms in self.rules.one if noun else ():
            words = re.sub(pattern, forms[feminine], words)
        return words

    def decimal(self, number: Number, noun: str = "") -> str:
        """A number with its decimal places, if there are any."""
        whole, fraction = number
        if not fraction:
            return self.whole(whole, noun)
        if self.locale == "ru" and len(whole) <= _LONGEST and len(fraction) <= 3:
            return self.spoken(number.value)
        single = not self.rules.pairs or len(fraction) > 2 or fraction.startswith("0")
        places = self.digits(fraction) if single else self.spoken(int(fraction))
        return f"{self.whole(whole.lstrip('0') or '0')} {self.rules.comma} {places}"

    def _unit(self, unit: str, count: Decimal, words: str) -> str:
        """A unit in the plural form of a count, which is given in words."""
        from babel.units import format_unit

        for length in ("long", "short"):
            text = format_unit(count, unit, length, locale=self.locale)
            if unit not in text:  # the name of the unit stands for a missing one
                break
        if unit in self.rules.units or unit in text:
            return f"{words}{self.rules.units[unit]}"
        return re.sub(r"\d(?:.*\d)?", lambda _: words, text).replace("\u00a0", " ")

    def singular(self, unit: str) -> str:
        """The name of one unit."""
        return self._unit(unit, _COUNTS[0], "").strip()

    def measured(self, number: Number, unit: str) -> str:
        """A number of units."""
        return self._unit(unit, number.value, self.decimal(number, self.singular(unit)))

    def money(self, number: Number, code: str) -> str:
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
