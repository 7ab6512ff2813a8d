"""The parts of a text that can be heard, in a plain form, by Unicode properties in any language.

Control and default-ignorable characters, emoji and other pictures, private-use characters and
combining marks without a letter have no sound, but the tokenizer gives them tokens, which the model
would speak. Blanks, quotes and full-width forms have many code points and one reading.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

_LINE_END = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")

# Default_Ignorable_Code_Point that is not of category Cf (Unicode, DerivedCoreProperties.txt).
_IGNORABLE = (
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2065, 0x2065),
    (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF),
)  # fmt: skip
# Unicode blocks of pictures: arrows, shapes, emoji, including code points not assigned yet.
_PICTURE_BLOCKS = (
    (0x2190, 0x21FF), (0x25A0, 0x25FF), (0x27F0, 0x27FF), (0x2900, 0x297F), (0x2B00, 0x2BFF),
    (0x1F000, 0x1FFFF),
)  # fmt: skip
_READABLE_SYMBOLS = "°©®"  # category So; others of it that are read, as ℃ № ™ ㎏, stand for letters
_KEYCAP = "\u20e3"
_QUOTES = {**dict.fromkeys("‘’‚‛", "'"), **dict.fromkeys("“”„‟", '"')}
# Punctuation and the yen sign of Chinese and Japanese, which have no other form there.
_WIDE = "！（），：；？￥"

_PICTURE = "\x00"  # placeholder of a picture until its neighbours are known
_PICTURES = re.compile(f"{_PICTURE}+")


def is_ignorable(character: str) -> bool:
    """Whether Unicode says that a character shows nothing (or it is of category Cf)."""
    return unicodedata.category(character) == "Cf" or _within(ord(character), _IGNORABLE)


def _within(point: int, blocks: Iterable[tuple[int, int]]) -> bool:
    return any(first <= point <= last for first, last in blocks)


def heard(text: str) -> str:
    """The text without characters that have no sound; a blank keeps words apart."""
    return _PICTURES.sub(_between_words, text.translate(_HEARD))


def plain(text: str) -> str:
    """What is heard of a text, in NFC, with a newline for line ends and single blanks in a line.

    Quotes are straight, and full-width forms are ASCII, but not the punctuation of text that has a
    character of Chinese or Japanese.
    """
    text = unicodedata.normalize("NFC", heard(_LINE_END.sub("\n", text)))
    forms = _CHINESE_FORMS if any("\u3000" < c <= "\u9fff" for c in text) else _FORMS
    text = unicodedata.normalize("NFC", text.translate(forms))
    text = "".join(_attached(text))
    return "\n".join(re.sub(" +", " ", line).strip(" ") for line in text.split("\n"))


class _Table(dict[int, str]):
    """A table for `str.translate` whose entries are found when they are needed."""

    def __missing__(self, point: int) -> str:
        self[point] = found = self.entry(chr(point))
        return found

    def entry(self, character: str) -> str:
        raise NotImplementedError


class _Heard(_Table):
    def entry(self, character: str) -> str:
        category = unicodedata.category(character)
        if character == "\n" or character.isspace():
            return character
        if category in ("Cc", "Co") or is_ignorable(character) or character == _KEYCAP:
            return ""
        if ord(character) & 0xFFFE == 0xFFFE:  # noncharacters
            return ""
        if character in _READABLE_SYMBOLS or unicodedata.decomposition(character):
            return character
        picture = category == "So" or _within(ord(character), _PICTURE_BLOCKS)
        return _PICTURE if picture else character


class _Forms(_Table):
    def __init__(self, kept: str) -> None:
        super().__init__()
        self._kept = kept

    def entry(self, character: str) -> str:
        if character == "\n" or character in self._kept:
            return character
        if character.isspace():
            return " "
        kind, _, other = unicodedata.decomposition(character).partition(" ")
        if kind in ("<wide>", "<narrow>"):
            return chr(int(other, 16))
        return _QUOTES.get(character, character)


_HEARD, _FORMS, _CHINESE_FORMS = _Heard(), _Forms(""), _Forms(_WIDE)


def _between_words(found: re.Match[str]) -> str:
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    return " " if before.isalnum() and after.isalnum() else ""


def _attached(text: str) -> Iterator[str]:
    """The characters, without combining marks that do not follow a letter or number."""
    before = ""
    for character in text:
        kind = "" if character.isascii() else unicodedata.category(character)[0]
        if kind == "M" and not before:
            continue
        before = character if kind == "M" or character.isalnum() else ""
        yield character
