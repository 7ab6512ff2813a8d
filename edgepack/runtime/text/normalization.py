"""Numbers, dates and units in words: which language a text is in, and its normaliser."""

import threading
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from edgepack import discovery

PACKAGE = "edgepack.runtime.text.normalizers"

Refused = Callable[[str], None]  # is told of words that a grammar could not read

_opening = threading.Lock()  # so that two threads do not load one language twice

# Scripts by the first words of their characters' Unicode names, and the languages that use them.
_SCRIPTS: tuple[tuple[frozenset[str], frozenset[str]], ...] = (
    (frozenset({"HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}), frozenset({"ja"})),
    (frozenset({"CJK"}), frozenset({"zh", "yue", "ja"})),
    (frozenset({"HANGUL"}), frozenset({"ko"})),
    (frozenset({"CYRILLIC"}), frozenset({"ru"})),
    (frozenset({"LATIN"}), frozenset({"en", "de", "fr", "es", "it"})),
)
_WIDE = frozenset({"zh", "yue", "ja"})


def _ignore(words: str) -> None:
    pass


class Normalize(Protocol):
    """Puts numbers, dates and units of a text into words; what it cannot read stays as it is."""

    def __call__(self, text: str, refused: Refused = _ignore) -> str:
        """The text as it is spoken; never raises for any text."""
        ...


class NormalizerModule(Protocol):
    """What a module of `normalizers` has as its `NORMALIZER`."""

    def open(self, locale: str, files: Sequence[Path]) -> Normalize:
        """The function that reads text of a locale.

        Raises UnsupportedError for a missing library (with its package) or an unknown locale,
        and IntegrityError for a file that cannot be read.
        """
        ...


def normalizers() -> list[str]:
    """Names of the normalisers this version knows, installed or not."""
    return discovery.names(PACKAGE)


def normalizer(name: str) -> NormalizerModule:
    """The normaliser called `name`; raises UsageError for an unknown one."""
    return cast(NormalizerModule, discovery.load(PACKAGE, name, "NORMALIZER"))


def language_of(text: str, languages: Sequence[str]) -> str:
    """Which of `languages`, the preferred first, a text is in, by the scripts it is written in.

    A script that few languages use decides before one that many use: kana before Chinese
    characters, then hangul, Cyrillic and Latin. Text in none of these scripts, such as numbers, is
    in the first language. But if that is Chinese or Japanese and the text has ASCII signs, as `$5`
    and `12:30` have, it is English, as in the original, which reads text without a Chinese
    character as English.
    """
    found = {_script(character) for character in set(text)}
    for names, users in _SCRIPTS:
        if found & names:
            for language in languages:
                if language in users:
                    return language
    signs = any(sign.isascii() and not sign.isalnum() for sign in text)
    if signs and "en" in languages and languages[0] in _WIDE and not _has_wide(text):
        return "en"
    return languages[0]


def _has_wide(text: str) -> bool:
    return any(unicodedata.east_asian_width(character) in "WF" for character in text)


def _script(character: str) -> str:
    """The script of a letter, which is the first word of its Unicode name, such as LATIN."""
    if "\u4e00" <= character <= "\u9fff":
        return "CJK"
    words = unicodedata.name(character, "").split()
    return next((word for word in words if word not in ("HALFWIDTH", "FULLWIDTH")), "")


@dataclass(frozen=True)
class Reader:
    """How a language is normalised: a module of `normalizers`, and what it is opened with."""

    normalizer: str
    locale: str
    files: Sequence[Path] = ()
    check: Callable[[], None] = field(default=lambda: None, compare=False)

    def open(self) -> Normalize:
        """Check and load libraries and files; raises as `check` and `NormalizerModule.open` do."""
        self.check()
        return normalizer(self.normalizer).open(self.locale, self.files)


@dataclass(frozen=True)
class Normalization:
    """Normalises text in any of several languages; a language is opened when first met."""

    readers: Mapping[str, Reader]  # by language code, the preferred first
    _opened: dict[str, Normalize] = field(default_factory=dict, init=False, compare=False)

    def language(self, text: str) -> str | None:
        """The language that a text is taken to be in; None if there are no readers."""
        return language_of(text, tuple(self.readers)) if self.readers else None

    def __call__(self, text: str, language: str | None = None, refused: Refused = _ignore) -> str:
        """The text with its numbers, dates and units as words; raises as `Reader.open` does.

        It is read in `language`, one of the readers', or in the one that it is taken to be in.
        """
        language = language or self.language(text)
        if language is None:
            return text
        if language not in self._opened:
            with _opening:
                if language not in self._opened:
                    self._opened[language] = self.readers[language].open()
        return self._opened[language](text, refused)
