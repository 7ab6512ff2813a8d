"""Lines of a text: which of them are whole sentences, and which go on in the next line."""

import re
import unicodedata
from collections.abc import Iterator, Sequence

_BULLET = re.compile(r"[-*+•‣▪◦·–—] +")
_ITEM = re.compile(
    r"(?:[-*+•‣▪◦·–—] |\(?(?:\d{1,3}|[A-Za-z])[.)] |[（(]?[一二三四五六七八九十\d]{1,3}[）、])"
)
# A line up to this length was not wrapped: it is one of a list, a verse or an address.
_SHORT, _SHORT_CHINESE = 40, 20
_CLOSING = ("Pe", "Pf", "Pi")
_category = unicodedata.category


def sentences(text: str, chinese: bool) -> list[str]:
    """Lines of plain text that each begin and end a sentence, wrapped ones joined.

    A blank line ends a sentence; a list item or a short line is one. The original joins lines of
    Chinese, so these are sentences only if all lines of the paragraph are short and have no
    punctuation. Bullets, and lines of nothing but punctuation, are left out.
    """
    if "\n" not in text:
        return [text]
    found: list[str] = []
    for paragraph in re.split(r"\n\n+", text):
        lines = [line for line in paragraph.split("\n") if any(map(str.isalnum, line))]
        found += _joined(lines, chinese)
    return found


def together(spoken: Sequence[str], chinese: bool) -> str:
    """Sentences as one text, with a full stop after those that end without a mark."""
    last = len(spoken) - 1
    ended = (
        line if n == last or _marked(line) else line + ("。" if chinese else ".")
        for n, line in enumerate(spoken)
    )
    return ("" if chinese else " ").join(ended)


def _joined(lines: Sequence[str], chinese: bool) -> Iterator[str]:
    verse = chinese and all(len(s) <= _SHORT_CHINESE and not _punctuated(s) for s in lines)
    current = ""
    for number, line in enumerate(lines):
        bare = _BULLET.sub("", line, count=1) if _BULLET.match(line) else line
        current = f"{current}{_between(current, bare)}{bare}"
        after = lines[number + 1] if number + 1 < len(lines) else None
        short = verse if chinese else len(line) <= _SHORT
        item = bool(_ITEM.match(line)) and len(line) <= (_SHORT_CHINESE if chinese else _SHORT)
        if after is None or _ITEM.match(after) or item or short:
            yield current
            current = ""


def _between(before: str, after: str) -> str:
    """What replaces a line end inside a sentence: a blank, nothing beside a Chinese character."""
    beside = (before[-1:], after[:1])
    wide = any(
        unicodedata.east_asian_width(c) in "WF" and not "가" <= c <= "힣" for c in beside if c
    )
    return "" if wide or not before else " "


def _marked(line: str) -> bool:
    """Whether a line ends in a punctuation mark, not counting quotes and brackets after it."""
    ends = (c for c in reversed(line) if c not in "\"'" and _category(c) not in _CLOSING)
    return _category(next(ends, " "))[0] == "P"


def _punctuated(line: str) -> bool:
    return any(_category(character)[0] == "P" for character in line)
