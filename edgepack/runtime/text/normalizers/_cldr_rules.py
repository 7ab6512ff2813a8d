"""Tables of what neither Babel nor num2words knows: signs, clock times and endings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CURRENCIES = {
    "€": "EUR", "EUR": "EUR", "$": "USD", "USD": "USD", "£": "GBP", "GBP": "GBP", "¥": "JPY",
    "₽": "RUB", "руб.": "RUB", "руб": "RUB", "₩": "KRW",
}  # fmt: skip

# Babel's names of the units; those at the end are only written out.
UNITS = {
    "%": "concentr-percent", "‰": "concentr-permille", "°": "angle-degree",
    "°C": "temperature-celsius", "℃": "temperature-celsius", "°F": "temperature-fahrenheit",
    "km": "length-kilometer", "m": "length-meter", "cm": "length-centimeter",
    "mm": "length-millimeter", "kg": "mass-kilogram", "g": "mass-gram", "mg": "mass-milligram",
    "t": "mass-tonne", "l": "volume-liter", "L": "volume-liter", "cl": "volume-centiliter",
    "ml": "volume-milliliter", "mL": "volume-milliliter", "km/h": "speed-kilometer-per-hour",
    "m/s": "speed-meter-per-second", "m²": "area-square-meter", "m2": "area-square-meter",
    "km²": "area-square-kilometer", "km2": "area-square-kilometer", "ha": "area-hectare",
    "m³": "volume-cubic-meter", "m3": "volume-cubic-meter", "kB": "digital-kilobyte",
    "KB": "digital-kilobyte", "MB": "digital-megabyte", "GB": "digital-gigabyte",
    "TB": "digital-terabyte", "h": "duration-hour", "min": "duration-minute",
    "s": "duration-second", "ms": "duration-millisecond", "W": "power-watt",
    "kW": "power-kilowatt", "MW": "power-megawatt", "kWh": "energy-kilowatt-hour",
    "V": "electric-volt", "Hz": "frequency-hertz", "kHz": "frequency-kilohertz",
    "MHz": "frequency-megahertz", "GHz": "frequency-gigahertz", "kcal": "energy-kilocalorie",
    "hPa": "pressure-hectopascal",
    "days": "duration-day", "weeks": "duration-week", "months": "duration-month",
    "years": "duration-year",
}  # fmt: skip

# How a Russian ordinal ends: num2words' case and gender.
_ENDINGS = {
    "nm": "й ый ий", "nf": "я ая", "nn": "е ое", "gm": "го ого", "dm": "му ому", "pm": "м ом",
    "af": "ю ую",
}  # fmt: skip
RUSSIAN_ORDINALS = {
    form: {"case": key[0], "gender": key[1]}
    for key, forms in _ENDINGS.items()
    for form in forms.split()
}
# What follows a Russian year: the case of the year, and how it is spoken.
RUSSIAN_YEARS = {
    "год": ("n", "год"), "года": ("g", "года"), "году": ("p", "году"), "годом": ("i", "годом"),
    "г.": ("p", "году"),
}  # fmt: skip

# Korean counts these, and the hours of a clock, with its own numerals.
KOREAN_COUNTERS = "시간|시(?![속민즌작])|개(?!월)|명|살|마리|잔|권|사람|달(?!러)|가지|번째"


@dataclass(frozen=True)
class Rules:
    """How a language combines the words that the libraries give."""

    comma: str
    point: str
    plus: str
    to: str  # the word between the ends of a range
    ratio: str  # the word for the colon in 3:1
    clock: str  # a format of hour, hours (with the unit) and minute
    full_hour: str
    date: str = "{day} {month} {year}"
    ordinal: str = r"(?!)"  # a pattern with groups n and form
    endings: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # form: pattern, ending
    feminine: str = "(?!)"  # a pattern that the singular of a feminine noun has
    one: Sequence[tuple[str, str, str]] = ()  # before a noun: pattern, masculine, feminine
    repairs: Mapping[str, str] = field(default_factory=dict)  # corrections of num2words
    signs: Mapping[str, str] = field(default_factory=dict)  # the language's own signs of units
    units: Mapping[str, str] = field(default_factory=dict)  # names of units that Babel lacks
    nouns: Sequence[tuple[str, ...]] = ()  # forms that a number agrees with, singular first
    pairs: bool = False  # whether two decimal places, or pairs in a phone number, are one number
    phone: tuple[str, str] = ("", "")  # a word and its replacement in phone numbers
    apart: str = " "  # separator of single digits


RULES = {
    "de": Rules(
        "Komma", "Punkt", "plus", " bis ", "zu", "{hour} Uhr {minute}", "{hour} Uhr",
        ordinal=r"(?P<form>\b(?:[Dd](?:er|ie|as|em|en|es)|zu[mr]|vom|am|im|beim)\s)?"
        r"(?<!\d)(?P<n>\d{1,3})\.(?=\s\w)",
        feminine="(?:e|ion)$", one=[("eins$", "ein", "eine")],
        repairs={"einstausend": "eintausend"}, signs={"Std.": "h", "Min.": "min", "Sek.": "s"},
        nouns=[("Uhr",), ("Million", "Millionen"), ("Milliarde", "Milliarden")],
    ),
    "fr": Rules(
        "virgule", "point", "plus", " à ", "à", "{hours} {minute}", "{hours}",
        ordinal=r"(?<![\w.,])(?P<n>\d{1,4})(?P<form>er|re|ère|nde?|ème|e)(?=s?\b)",
        endings={"re": ("er$", "ère"), "ère": ("er$", "ère"), "nd": (".*", "second"),
                 "nde": (".*", "seconde")},
        feminine="^(?:heure|(?:milli)?seconde|minute|tonne|livre|kilocalorie|semaine|année)",
        one=[("un$", "un", "une")], repairs={"un livre": "une livre"},
        signs={"Ko": "kB", "ko": "kB", "Mo": "MB", "Go": "GB", "To": "TB"}, pairs=True,
    ),
    "es": Rules(
        "coma", "punto", "más", " a ", "a", "{hour} y {minute}", "{hour}",
        date="{day} de {month} de {year}",
        ordinal=r"(?<![\w,])(?P<n>\d{1,3})\.?(?P<form>[ºª]|er\b)",
        endings={"ª": (r"o\b", "a"), "er": ("o$", "")},
        feminine="^(?!día)[^ ]*a(?: |$)",
        one=[("veintiuno$", "veintiún", "veintiuna"), ("uno$", "un", "una"),
             ("ientos", "ientos", "ientas")],
        repairs={"veintiuno mil": "veintiún mil", "uno mil": "un mil"}, pairs=True,
        nouns=[("millón", "millones"), ("billón", "billones")],
    ),
    "it": Rules(
        "virgola", "punto", "più", " a ", "a", "{hour} e {minute}", "{hour}",
        ordinal=r"(?<![\w,])(?P<n>\d{1,4})(?P<form>[ºª])", endings={"ª": ("o$", "a")},
        feminine="^(?!chilowattora)[^ ]*a(?: |$)", one=[("^uno$", "un", "una")],
        repairs={r"(?<=\w)tre\b": "tré"}, pairs=True,
        nouns=[("milione", "milioni"), ("miliardo", "miliardi")],
    ),
    "ru": Rules(
        "запятая", "точка", "плюс", " – ", "–", "{hour} {minute}", "{hours}",
        date="{day} {month} {year} года",
        ordinal=rf"(?<![\w,])(?P<n>\d+)-?(?P<form>{'|'.join(RUSSIAN_ORDINALS)})\b",
        feminine="[ая]$",
        nouns=[("тысяча", "тысячи", "тысяч"), ("миллион", "миллиона", "миллионов"),
               ("миллиард", "миллиарда", "миллиардов")],
        signs={
            "км": "km", "м": "m", "см": "cm", "мм": "mm", "кг": "kg", "г": "g", "мг": "mg",
            "т": "t", "л": "l", "мл": "ml", "км/ч": "km/h", "м/с": "m/s", "м²": "m²",
            "км²": "km²", "м³": "m³", "га": "ha", "°С": "°C", "МБ": "MB", "ГБ": "GB", "ТБ": "TB",
            "ч": "h", "мин": "min", "сек": "s", "Вт": "W", "кВт": "kW", "МВт": "MW",
            "кВт·ч": "kWh", "Гц": "Hz", "кГц": "kHz", "МГц": "MHz", "ГГц": "GHz", "ккал": "kcal",
        },
    ),
    "ko": Rules(
        "점", "점", "플러스", "에서 ", "대", "{hour}시 {minute}분", "{hour}시",
        date="{year}년 {month} {day}일", units={"concentr-percent": "퍼센트"}, apart="",
        phone=("영", "공"),
        ordinal=rf"(?<![\d.,])(?P<n>\d\d?)\s?(?P<form>{KOREAN_COUNTERS})",
    ),
}  # fmt: skip
