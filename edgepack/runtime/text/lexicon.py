"""Readings of words that the user gives; they take precedence over every other rule."""

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from edgepack.errors import UsageError
from edgepack.files import charset
from edgepack.runtime.text.plain import plain

_LONGEST_WORD, _LONGEST_READING = 64, 500  # characters
_LARGEST_FILE = 16 << 20
# Placeholders of words are letters of a script for which no rule or grammar has readings.
_HOLDER, _HOLDERS = 0x13000, 1000


def parse(data: bytes, where: object) -> dict[str, str]:
    """Words and their readings, one pair a line: `word => reading`, or with a tab between them.

    Blank lines and lines that begin with # are left out. Raises UsageError with the number of the
    line for any other, and for a word with two readings.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(charset.decoded(data, where).splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        parts = line.split("\t", 1) if "\t" in line else line.split("=>", 1)
        if len(parts) != 2:
            raise UsageError(f"{where}:{number}: not a word, a tab or =>, and its reading")
        word, reading = parts[0].strip(), parts[1].strip()
        if problem := _problem(word, reading):
            raise UsageError(f"{where}:{number}: {problem}")
        if found.setdefault(word, reading) != reading:
            raise UsageError(f"{where}:{number}: {word!r} has another reading above")
    return found


def read(path: Path) -> dict[str, str]:
    """The words and readings in a file."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise UsageError(f"{path}: larger than {_LARGEST_FILE >> 20} MiB; is it a lexicon?")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from None
    return parse(data, path)


def _problem(word: str, reading: str) -> str:
    if not plain(word):
        return "a word is missing before its reading"
    if not reading:
        return f"{word!r} has no reading"
    if len(word) > _LONGEST_WORD or len(reading) > _LONGEST_READING:
        return f"a word has at most {_LONGEST_WORD} characters, a reading {_LONGEST_READING}"
    return ""


@dataclass(frozen=True)
class Lexicon:
    """Replaces words by their readings, longer words first.

    A word is found only where no letter is beside it, except in scripts that are written without
    blanks. A word in lower case also matches in upper case.
    """

    entries: Mapping[str, str]

    def __post_init__(self) -> None:
        """Check the entries; raises UsageError for an impossible word or reading."""
        for word, reading in self.entries.items():
            if problem := _problem(word, reading):
                raise UsageError(f"lexicon: {problem}")

    def __call__(self, text: str) -> str:
        """The text with all words replaced by their readings."""
        return "".join(reading or piece for piece, reading in self._pieces(text))

    def held(self, text: str) -> tuple[str, Mapping[str, str]]:
        """The text with a placeholder for each word, which no rule changes, and their readings."""
        codes: dict[str, str] = {}
        pieces = []
        for piece, reading in self._pieces(text, reserved=True):
            if reading is None:
                pieces.append(piece)
                continue
            number = len(codes)
            code = chr(_HOLDER + number // _HOLDERS) + chr(_HOLDER + number % _HOLDERS)
            pieces.append(codes.setdefault(reading, code))
        return "".join(pieces), {code: reading for reading, code in codes.items()}

    @cached_property
    def _words(self) -> Mapping[str, str]:
        return {plain(word): reading for word, reading in self.entries.items()}

    @cached_property
    def _lengths(self) -> Mapping[str, list[int]]:
        """Lengths of the words that begin with a letter, longest first."""
        found: dict[str, set[int]] = {}
        for word in self._words:
            found.setdefault(word[0], set()).add(len(word))
        return {first: sorted(lengths, reverse=True) for first, lengths in found.items()}

    def _pieces(self, text: str, *, reserved: bool = False) -> Iterator[tuple[str, str | None]]:
        """The text in pieces: words with their readings, and between them text with None."""
        start = at = 0
        while at < len(text):
            end = self._end(text, at)
            if end == at and not (reserved and is_holder(text[at])):
                at += 1
                continue
            if start < at:
                yield text[start:at], None
            end = max(end, at + 1)
            word = text[at:end]
            yield word, self._reading(word) or word
            start = at = end
        if start < at:
            yield text[start:], None

    def _end(self, text: str, at: int) -> int:
        """Where the longest word that begins at `at` ends; `at` itself if no word begins there."""
        if at and _goes_on(text[at - 1], text[at]):
            return at
        small = text[at].lower()
        lengths = self._lengths.get(text[at], [])
        if small != text[at]:
            lengths = sorted({*lengths, *self._lengths.get(small, [])}, reverse=True)
        for length in lengths:
            end = at + length
            if end > len(text) or (end < len(text) and _goes_on(text[end - 1], text[end])):
                continue
            if self._reading(text[at:end]) is not None:
                return end
        return at

    def _reading(self, word: str) -> str | None:
        return self._words.get(word, self._words.get(word.lower()))


def is_holder(character: str) -> bool:
    """Whether a character is one of the placeholders that stand for words (see `Lexicon.held`)."""
    return _HOLDER <= ord(character) < _HOLDER + _HOLDERS


def released(text: str, codes: Mapping[str, str]) -> str:
    """The text with each placeholder of `Lexicon.held` replaced by its reading."""
    if not codes:
        return text
    pieces = []
    at = 0
    while at < len(text):
        size = 2 if text[at : at + 2] in codes else 1
        pieces.append(codes.get(text[at : at + size], text[at]))
        at += size
    return "".join(pieces)


def _goes_on(before: str, after: str) -> bool:
    """Whether two neighbouring characters belong to one word, in a script with blanks."""
    return all(
        (c.isalnum() or unicodedata.category(c)[0] == "M")
        and unicodedata.east_asian_width(c) not in "WF"
        and not is_holder(c)
        for c in (before, after)
    )
