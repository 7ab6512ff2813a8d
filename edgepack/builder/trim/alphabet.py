"""The characters that text in some languages is made of."""

import unicodedata
from collections.abc import Iterable

import regex

from edgepack.profiles import language

# Marks of every language: what is not a letter in ASCII, and the punctuation, digits, currency,
# mathematical signs and units that Unicode gives to no script.
_MARKS = regex.compile(
    r"""(?xV1)
    [\x00-\x7F--\p{L}]
    | [\p{Script=Common}&&[\p{P}\p{N}\p{Sc}\p{Sm}\p{Sk}\p{Zs}]]
    | [\p{So}&&[\p{Block=Latin_1_Supplement}\p{Block=Letterlike_Symbols}]]
    | [\p{So}&&\p{Block=CJK_Compatibility}]
    """
)


def alphabet(codes: Iterable[str]) -> frozenset[str]:
    """Every character of the scripts of some languages, and the marks that all share.

    Closed under Unicode normalization: text of these characters stays within them in NFC.
    """
    scripts = sorted({script for code in codes for script in language.load(code).scripts})
    wanted = regex.compile("|".join(rf"\p{{Script_Extensions={name}}}" for name in scripts))
    found = {
        character
        for character in map(chr, range(0x110000))
        if unicodedata.category(character) not in ("Cn", "Co", "Cs")
        and (wanted.match(character) or _MARKS.match(character))
    }
    found |= {part for c in found for form in ("NFC", "NFD") for part in _normal(form, c)}
    composed = (chr(c) for c in range(0x110000) if unicodedata.decomposition(chr(c)))
    found |= {c for c in composed if set(_normal("NFD", c)) <= found and _normal("NFC", c) == c}
    return frozenset(found)


def _normal(form: str, character: str) -> str:
    return unicodedata.normalize("NFC" if form == "NFC" else "NFD", character)
