"""Rules that correct the English grammar."""

import re
import unicodedata
from functools import lru_cache
from typing import Any

from edgepack.runtime.text.normalizers._rules import one_by_one, roman, rules

_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DECADES = (
    "hundreds", "tens", "twenties", "thirties", "forties", "fifties", "sixties", "seventies",
    "eighties", "nineties",
)  # fmt: skip
_MONEY = {"$": ("dollar", "cent", "cents"), "€": ("euro", "cent", "cents"),
          "£": ("pound", "penny", "pence")}  # fmt: skip
# Names that rulers and popes have had with a number.
_RULERS = (
    "Albert|Alexander|Alexios|Alfonso|Baldwin|Benedict|Boniface|Carl|Carlos|Catherine|Charles|"
    "Christian|Clement|Cleopatra|Constantine|Cyrus|Darius|Edward|Elizabeth|Felipe|Ferdinand|"
    "Francis|Franz|Frederick|George|Gregory|Gustav|Haakon|Harald|Henry|Innocent|Isabella|Ivan|"
    "James|John|John Paul|Joseph|Julius|Karl|Leo|Leopold|Louis|Ludwig|Margrethe|Mary|Mehmed|"
    "Murad|Napoleon|Nicholas|Olav|Otto|Paul|Pedro|Peter|Philip|Pius|Ptolemy|Ramses|Richard|"
    "Robert|Rudolf|Selim|Sixtus|Suleiman|Theodosius|Thutmose|Umberto|Urban|Victor|Wilhelm|"
    "Willem|William|Xerxes"
)
_ROMAN = "(?=[IVXL])(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
# Of two letters or more, none of which is an English word.
_ROMAN_2 = "(?:X{1,3}(?:IX|IV|V?I{1,3}|V)|XX|XXX|IX|IV|VI{1,3}|I{2,3})"
_PARTS = (
    "Chapter|Part|Volume|Vol\\.|Act|Scene|Section|Book|Phase|Type|Class|Stage|Level|Grade|Title|"
    "Bowl|Article|Appendix|Figure|Table|Mark|Episode|War|"
    "Unit|Lesson|Category|Step|Factor|Tier|Schedule"
)
_GROUPED = r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,4}(?![0-9])|[0-9]{1,15})"
_SCALE = r" ?(?:[mbtMBTkK]\b|[mbt]r?illion)"
_YEAR = "(?:1[1-9]|20)[0-9]{2}"
_UNITS = {
    "m": "meter", "m/s": "meter# per second", "m/s²": "meter# per second squared",
    "m²": "square meter", "m2": "square meter", "m³": "cubic meter", "m3": "cubic meter",
    "km²": "square kilometer", "km2": "square kilometer", "mmHg": "millimeter# of mercury",
    "kWh": "kilowatt hour", "mAh": "milliamp hour", "fps": "frame# per second",
    "rpm": "revolution# per minute", "t": "ton", "L": "liter", "cl": "centiliter", "gal": "gallon",
    "tsp": "teaspoon", "tbsp": "tablespoon", "V": "volt",
    "kV": "kilovolt",
    "W": "watt", "mW": "milliwatt", "kHz": "kilohertz", "J": "joule", "kJ": "kilojoule",
    "kPa": "kilopascal", "dB": "decibel", "kB": "kilobyte", "hr": "hour", "hrs": "hour",
    "mins": "minute", "sec": "second", "secs": "second", "kph": "kilometer# per hour",
    "mcg": "microgram", "µg": "microgram", "mg/dL": "milligram# per deciliter", "px": "pixel",
    "ppm": "part# per million", "MP": "megapixel", "kbps": "kilobit# per second", "‰": "per mille",
    "km/s": "kilometer# per second", "mg/L": "milligram# per liter", "ft/s": "feet per second",
    "Mbps": "megabit# per second", "Gbps": "gigabit# per second",
    "MB/s": "megabyte# per second", "GB/s": "gigabyte# per second", "g/L": "gram# per liter",
}  # fmt: skip
_KNOWN_UNITS = (
    "kg|km|cm|mm|nm|g|mg|lbs?|oz|ft|yd|mi|mph|km/h|KB|MB|GB|TB|Hz|MHz|GHz|ha|kW|MW|kcal|ml|h|min|"
    "s|ms"
)
_SINGULAR = {"kilohertz", "per mille", "feet per second"}
_DOLLARS = {
    "US": "US", "CA": "Canadian", "C": "Canadian", "A": "Australian", "AU": "Australian",
    "HK": "Hong Kong", "NZ": "New Zealand", "S": "Singapore", "NT": "Taiwan",
}  # fmt: skip
_CODES = {"USD": "US dollars", "EUR": "euros", "GBP": "pounds", "JPY": "yen", "CNY": "yuan"}
_BEFORE_NUMBERS = {
    "fig": "figure", "p": "page", "pp": "pages", "ch": "chapter", "sec": "section", "vol": "volume",
    "approx": "approximately",
}  # fmt: skip
_ABBREVIATIONS = {
    "vs.": "versus", "e.g.": "for example", "i.e.": "that is", "approx.": "approximately",
    "Prof.": "Professor", "dept.": "department", "Dept.": "Department", "Gov.": "Governor",
}  # fmt: skip
_STREETS = {
    "St": "Street", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Ln": "Lane",
}  # fmt: skip
_SIGNS = {
    "=": "equals", "<": "is less than", ">": "is greater than", "≤": "is at most",
    "≥": "is at least", "≈": "is about", "÷": "divided by", "±": "plus or minus",
}  # fmt: skip


@lru_cache(1)
def _speller() -> Any:
    import inflect

    return inflect.engine()


def _number(value: int | str) -> str:
    """A whole number in words, such as "two hundred and five"."""
    words = str(_speller().number_to_words(int(value), comma=""))
    return words.replace("-", " ")


def _ordinal(value: int) -> str:
    return str(_speller().number_to_words(_speller().ordinal(value), comma="")).replace("-", " ")


def _one_by_one(digits: str) -> str:
    return one_by_one(digits, _NAMES, " ")


def _phone(found: re.Match[str]) -> str:
    digits = ", ".join(_one_by_one(group) for group in found.groups()[1:] if group)
    return f"plus {digits}" if found[1] else digits


def _pair(digits: str) -> str:
    return f"oh {_NAMES[int(digits)]}" if digits[0] == "0" else _number(digits)


def _in_pairs(digits: str) -> str:
    """Three or four digits as in names of rooms and roads: three oh two, twelve oh eight."""
    head, tail = digits[:-2], digits[-2:]
    return f"{_number(head)} {'hundred' if tail == '00' else _pair(tail)}"


def _year(digits: str) -> str:
    if digits[:3] == "200" or digits == "2000":
        return _number(digits)
    return _in_pairs(digits)


def _decade(found: re.Match[str]) -> str:
    century, tens = found[1], int(found[2])
    if century == "20" and tens == 0:
        return "two thousands"
    return f"{_number(century)} {_DECADES[tens]}"


def _version(found: re.Match[str]) -> str:
    parts = " point ".join(_number(part) for part in found[2].split("."))
    return f"version {parts}" if found[1] else parts


def _abbreviated(found: re.Match[str]) -> str:
    word = _BEFORE_NUMBERS[found[1].lower()]
    return f"{word.capitalize() if found[1][0].isupper() else word} "


def _short_year(found: re.Match[str]) -> str:
    """A date with a year of two digits, rewritten with four."""
    century = "20" if int(found[3]) < 50 else "19"
    return f"{int(found[1]):02}/{int(found[2]):02}/{century}{found[3]}"


def _abroad(found: re.Match[str]) -> str:
    """A telephone number that begins with a country code."""
    return "plus " + ", ".join(_one_by_one(group) for group in re.findall("[0-9]+", found[0]))


def _large(found: re.Match[str]) -> str:
    """A number of one thousand and some with decimals, or money of it in a range."""
    whole, _, decimals = found[0].strip("¥ ").replace(",", "").partition(".")
    return f"{_number(whole)} point {_one_by_one(decimals)}" if decimals else _number(whole)


def _cents(found: re.Match[str]) -> str:
    """Money with cents, or of one thousand and some, which the grammar calls thousand."""
    name, cent, cents = _MONEY[found[1]]
    whole, part = int(found[2].replace(",", "")), found[3]
    if part and part[1] == "0" and part != "00":  # the grammar reads this correctly
        return f"{_number(whole)} point {_NAMES[int(part[0])]} {name}s"
    big = f"{_number(whole)} {name}{'' if whole == 1 else 's'}"
    if not part or part == "00":
        return big
    small = f"{_number(part)} {cent if part == '01' else cents}"
    return f"{big} and {small}" if whole else small


def _unit(found: re.Match[str]) -> str:
    name = _UNITS[found[2]]
    plural = "" if found[1] == "1" or name in _SINGULAR else "s"
    return f"{found[1]} {name.replace('#', plural) if '#' in name else name + plural}"


def _ruler(found: re.Match[str]) -> str:
    return f"{found[1]} the {_ordinal(roman(found[2]))}"


def _part(found: re.Match[str]) -> str:
    return f"{found[1]} {_number(roman(found[2]))}"


def _any(names: dict[str, str]) -> str:
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


RULES = rules(
    ("[\u2160-\u217f]{1,8}", lambda m: unicodedata.normalize("NFKC", m[0]).upper()),
    # Roman numerals: of rulers, of parts of a work, after a name. I, V and X are words too.
    (rf"\b({_RULERS}) ({_ROMAN_2}|V(?![.\w]))\b", _ruler),
    (rf"\b((?:King|Queen|Pope|Emperor|Tsar|Czar) (?:{_RULERS})) ({_ROMAN})\b", _ruler),
    (rf"\b({_RULERS}) (I|X)\b(?=[.,;:!?)]|'s\b|$| (?:of|died|ruled|reigned|became)\b)", _ruler),
    (rf"\b({_PARTS}) (?!I\b|X\b)({_ROMAN})\b", _part),
    (rf"\b({_PARTS}) ([IX])\b(?=[.,;:!?)]|$| (?:of|is)\b)", _part),
    (rf"\b([A-Z][a-z]{{2,20}}) ({_ROMAN_2})\b", _part),
    # Abbreviations.
    (rf"(?<![\w.])({_any(_ABBREVIATIONS)})(?=[ ,])", lambda m: _ABBREVIATIONS[m[1]]),
    (rf"(?<![\w.])((?i:{_any(_BEFORE_NUMBERS)}))\. ?(?=[0-9])", _abbreviated),
    (rf"(?<=[a-z] )({_any(_STREETS)})\.(?=$|[,;:]| [a-z0-9])", lambda m: _STREETS[m[1]]),
    (r"(?<![a-z] )\bSt\. (?=[A-Z])", "Saint "),
    # Numbers that identify something: rooms, roads, flights.
    (r"\b([Nn])o\. ?(?=[0-9])", lambda m: f"{'N' if m[1] == 'N' else 'n'}umber "),
    (r"\b([Nn])os\. ?(?=[0-9])", lambda m: f"{'N' if m[1] == 'N' else 'n'}umbers "),
    (r"(?<![\w&])# ?(?=[0-9])", "number "),
    (
        r"(?<![\w-])([vV]\.?)? ?(?<![\w.,$€£-])([0-9]{1,8}(?:\.[0-9]{1,3}){2})(?!\.?[0-9]|-?\w)",
        _version,
    ),
    (r"\b([vV])([0-9]{1,8}(?:\.[0-9]{1,8}){1,3})(?!\.?[0-9]|-?\w)", _version),
    (r"\+[0-9]{1,3}(?:[ -]\(?[0-9]{2,5}\)?){2,5}(?![\w-])", _abroad),
    (
        r"(?<![\w.,-])(?:(\+?)([0-9]{1,3})[ -])?\(?([0-9]{3})\)?[ -]([0-9]{3})[-. ]"
        r"([0-9]{4})(?![\w-])",
        _phone,
    ),
    (r"(?<![\w.,-])([0-9]{3})-([0-9]{4})(?![\w-])", lambda m: _one_by_one(m[0])),
    (
        r"\b([Rr]oom|[Ss]uite|[Aa]pt\.?|[Aa]partment|[Ff]light|[Gg]ate|"
        r"[Hh]ighway|[Rr]oute|Boeing|Airbus|[Ee]rror) "
        r"([1-9][0-9]{2,3})(?![0-9,.]?[0-9])\b",
        lambda m: f"{m[1]} {_in_pairs(m[2])}",
    ),
    (r"\b([A-Z]{1,2})([1-9][0-9]{2,3})\b", lambda m: f"{m[1]} {_in_pairs(m[2])}"),
    (
        r"\b((?:[Cc]ode|PIN|[Pp]asscode|[Pp]assword|OTP|ZIP|[Ee]xtension|[Ee]xt\.|ID|"
        r"(?:[Aa]ccount|[Ss]erial|[Cc]onfirmation|[Tt]racking|[Pp]hone) number)"
        r"(?: is|:| number)? ?)([0-9]{3,20})(?![0-9,.]?[0-9])\b",
        lambda m: m[1] + _one_by_one(m[2]),
    ),
    (r"(?<=, )([A-Z]{2}) ([0-9]{5})\b", lambda m: f"{m[1]} {_one_by_one(m[2])}"),
    (r"(?<![\w.,])([1-9][0-9]{2,3})(?=p\b)", lambda m: f"{_in_pairs(m[1])} "),
    (
        r"\b([Cc]all|[Dd]ial|[Tt]ext) ([0-9]11|999|112)(?![0-9,.]?[0-9]|-)\b",
        lambda m: f"{m[1]} {_one_by_one(m[2])}",
    ),
    (r"\b(24)/(7)\b", "twenty four seven"),
    (r"\b50/50\b", "fifty fifty"),
    (r"(?<![\w/.,-])9/11(?![\w/])", "nine eleven"),
    # Years and dates.
    (r"(?<![\w.,])(1[1-9]|20)([0-9])0'?s\b", _decade),
    (r"(?<![\w.,])'([2-9])0s\b", lambda m: _DECADES[int(m[1])]),
    (
        r"\b((?:[Tt]he|[Hh]is|[Hh]er|[Tt]heir|[Mm]y|[Oo]ur|[Yy]our|[Mm]id|[Ee]arly|[Ll]ate)[ -])"
        r"([2-9])0'?s\b",
        lambda m: m[1] + _DECADES[int(m[2])],
    ),
    (
        rf"(?<![\w.,-])({_YEAR}) ?[-–] ?({_YEAR})(?![\w-])",
        lambda m: f"{_year(m[1])} to {_year(m[2])}",
    ),
    (
        r"\bMay ([0-3]?[0-9])(?:st|nd|rd|th)?\b(?=,? [12][0-9]{3}\b)",
        lambda m: f"the {_ordinal(int(m[1]))} of may",
    ),
    (
        r"\b([Oo]n|[Bb]y|[Uu]ntil|[Ss]ince) May ([0-3]?[0-9])\b(?!:)",
        lambda m: f"{m[1]} the {_ordinal(int(m[2]))} of may",
    ),
    (r"(?<![\w/.,-])([0-3]?[0-9])/([0-3]?[0-9])/([0-9]{2})(?![\w/-]|[.,][0-9])", _short_year),
    (
        r"(?<![\w.,/-])([0-3]?[0-9]) May (?=[12][0-9]{3}\b)",
        lambda m: f"the {_ordinal(int(m[1]))} of may ",
    ),
    # Money and numbers.
    (
        r"([$€£])([0-9]{1,3}) (?=bill\b|bills\b|note\b|notes\b|coin\b|coins\b|tickets?\b)",
        lambda m: f"{_number(m[2])} {_MONEY[m[1]][0]} ",
    ),
    (
        rf"\b(US|CA|AU|HK|NZ|NT|[CAS])\$ ?({_GROUPED}(?:\.[0-9]{{1,8}})?)"
        r"( (?:[mb]|tr)illion)?(?!\w)",
        lambda m: f"{m[2]}{m[3] or ''} {_DOLLARS[m[1]]} dollars",
    ),
    (
        rf"([$€£])({_GROUPED}) ?[-–] ?[$€£]?({_GROUPED})(?![0-9]|[.,][0-9])(?: (million|billion))?",
        lambda m: f"{m[2]} to {m[3]}{' ' + m[4] if m[4] else ''} {_MONEY[m[1]][0]}s",
    ),
    (
        r"([$€£])([0-9]{1,6}(?:\.[0-9]{1,4})?) ?[kK]\b",
        lambda m: f"{m[2]} thousand {_MONEY[m[1]][0]}s",
    ),
    (
        r"([$€£])0\.([0-9]{2})(?![0-9])",
        lambda m: f"{_number(m[2])} {_MONEY[m[1]][1 if m[2] == '01' else 2]}",
    ),
    (r"¥ ?([0-9]{1,3}(?:,[0-9]{3}){1,4})(?![0-9]|[.,][0-9])", lambda m: f"{_large(m)} yen"),
    (r"(?<=[0-9]) ?€", " euros"),
    (r"(?<=[0-9])¢", " cents"),
    (r"(?<![\w.,])([0-9]{2})p\b", r"\1 pence"),
    (rf"(?<=[0-9]) ?({_any(_CODES)})\b", lambda m: f" {_CODES[m[1]]}"),
    (
        rf"([$€£])({_GROUPED})\.([0-9][1-9]|00)(?![0-9]|[.,][0-9]|{_SCALE})",
        _cents,
    ),
    (
        rf"([$€£])(1,[0-9]{{3}})(?:\.([0-9]{{2}}))?(?![0-9]|[.,][0-9]|{_SCALE})",
        _cents,
    ),
    # The grammar reads a unit behind digits only.
    (rf"(?<![\w.,$€£])1,([0-9]{{3}})(?= ?(?:{_KNOWN_UNITS})\b)", r"1\1"),
    (r"(?<![\w.,$€£])1,[0-9]{3}(?:\.[0-9]{1,8})?(?![0-9]|[.,][0-9])", _large),
    (r"(?<![\w.,$€£#/:-])100[0-9](?![\w/:-]|[.,][0-9])", lambda m: _number(m[0])),
    # Measures.
    (
        r"((?:[Bb]lood pressure|BP)[^0-9]{1,20}?)([0-9]{2,3})/([0-9]{2,3})(?![0-9/])",
        lambda m: f"{m[1]}{_number(m[2])} over {_number(m[3])}",
    ),
    (r"\b([0-9]{2,3})/([0-9]{2,3})(?= ?mmHg\b)", r"\1 over \2"),
    (
        rf"(?<![\w$€£.,])([0-9]{{1,9}}(?:[.,][0-9]{{1,9}}){{0,3}}) ?({_any(_UNITS)})"
        r"(?![\w/²³'’&]| ?[0-9]{1,2} ?s\b)",
        _unit,
    ),
    (
        r"(?<![\w.,])([0-9]{1,6}(?:\.[0-9]{1,4})?) ?[x×] ?([0-9]{1,6}(?:\.[0-9]{1,4})?)"
        r"(?![0-9.]*[0-9]| ?=)",
        r"\1 by \2",
    ),
    (r"(?<![\w.,])([0-9])['′] ?([0-9]{1,2})(?:\"|″|''|(?!\w))", r"\1 foot \2"),
    (r"(?<=[0-9] ft )([0-9]{1,2}) in\b", r"\1 inches"),
    # Signs.
    (r"(?<=[0-9]) [-–] (?=[0-9]{1,6}(?:\.[0-9]{1,4})? ?=)", " minus "),
    (
        r"(?<![\w.,/-])([0-9]{1,6}(?:\.[0-9]{1,4})?)[-–]([0-9]{1,6}(?:\.[0-9]{1,4})?)"
        r"(?=%|[^\w/.,=-]|[.,](?![0-9])|$|[ap]m\b)(?! =)",
        r"\1 to \2",
    ),
    (r"(?<![\w/])([0-9]{1,6}) ?/ ?([0-9]{1,6})(?= ?=)", r"\1 divided by \2"),
    (r"(?<=[0-9)]) ?([=<>≤≥≈÷±]) ?(?=[0-9(-])", lambda m: f" {_SIGNS[m[1]]} "),
    (r"(?<=\b[a-zA-Z]) ?([=<>≤≥≈]) ?(?=[0-9-])", lambda m: f" {_SIGNS[m[1]]} "),
    (r"(?<![\w.])± ?(?=[0-9])", "plus or minus "),
    (r"(?<![\w.)])\+(?=[0-9])", "plus "),
    (r"(?<![\w.])[~≈] ?(?=[0-9])", "about "),
    (r"√ ?(?=[0-9])", "the square root of "),
    (r"(?<=[0-9])\^2\b", " squared"),
)
