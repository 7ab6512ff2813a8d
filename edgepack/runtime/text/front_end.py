"""Text front end: cleaning, splitting into utterances, token ids.

Source: cosyvoice/cli/frontend.py (`text_normalize`) and utils/frontend_utils.py
(`split_paragraph`). The rules are kept exact for a line of plain text, oddities included. Before
them, a text is brought to its plain form and its lines to sentences, and a language's reader puts
numbers, dates and units into words.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgepack.errors import UsageError
from edgepack.runtime.cutting import bounded
from edgepack.runtime.lexicon import Lexicon, is_holder, released
from edgepack.runtime.lines import sentences, together
from edgepack.runtime.normalization import Normalization, Refused
from edgepack.runtime.plain import heard, plain
from edgepack.tokenizer_file import guarded, parsed

LONGEST_TEXT = 100_000  # characters: hours of speech, which are held in memory
LONGEST_MARKED = 500  # tokens
_LONGEST, _SHORTEST, _MERGED = 80, 60, 20
_NAMED_DIGITS = 36  # of the longest numbers that inflect has names for
_CHINESE_MARKS, _OTHER_MARKS = "。？！；：、.?!;", ".?!;:"
_NO_LEXICON = Lexicon({})
_CLOSING_QUOTES = '"”'
_CHINESE_REPLACEMENTS = {
    "²": "平方",
    "³": "立方",
    ".": "。",
    " - ": "，",
    "（": "",
    "）": "",
    "【": "",
    "】": "",
    "`": "",
    "——": " ",
}


@dataclass(frozen=True)
class Frontend:
    """Turns text into utterances and utterances into token ids."""

    tokenizer: Any
    end_of_prompt: str
    normalize: Normalization = field(default_factory=lambda: Normalization({}))

    @staticmethod
    def open(path: Path, end_of_prompt: str, normalize: Normalization | None = None) -> "Frontend":
        """A front end over a `tokenizer.json`; raises IntegrityError if it is none."""
        return Frontend.read(path.read_bytes(), path, end_of_prompt, normalize)

    @staticmethod
    def read(
        data: bytes, where: object, end_of_prompt: str, normalize: Normalization | None = None
    ) -> "Frontend":
        """The same over the content of one; `where` is for the message."""
        from tokenizers import Tokenizer

        parsed(data, where)
        with guarded(where):
            tokenizer = Tokenizer.from_str(data.decode())
        return Frontend(tokenizer, end_of_prompt, normalize or Normalization({}))

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens added; raises UsageError for no Unicode."""
        try:
            with guarded("tokenizer.json"):
                return self.tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:  # lone surrogates, which is what bytes that are not UTF-8 become
            raise UsageError("the text is not valid Unicode") from None

    def instruction(self, text: str) -> list[int]:
        """Token ids of an instruction, ended by the end-of-prompt token.

        Raises UsageError if they are more than LONGEST_MARKED.
        """
        text = heard(text)
        ids = self.ids(text if text.endswith(self.end_of_prompt) else text + self.end_of_prompt)
        if len(ids) > LONGEST_MARKED:
            raise UsageError(
                f"the instruction has {len(ids)} tokens; at most {LONGEST_MARKED}: make it shorter"
            )
        return ids

    def clean(self, text: str) -> str:
        """The text as it is spoken, in one piece, such as the transcript of a prompt.

        Raises UsageError if it is longer than LONGEST_TEXT.
        """
        _check_length(text)
        return self._clean(text)[0]

    def utterances(
        self,
        text: str,
        refused: Refused = lambda words: None,
        lexicon: Lexicon = _NO_LEXICON,
    ) -> list[str]:
        """Cleaned pieces to speak one after the other; `refused` is told of what was not read.

        Words of the lexicon are spoken as it says, and are read by nothing else. Text with `<|…|>`
        marks is the caller's own and is neither cleaned nor split. Raises UsageError if nothing is
        left, or if the text is longer than LONGEST_TEXT or LONGEST_MARKED.
        """
        _check_length(text)
        if "<|" in text and "|>" in text:
            if (count := len(self.ids(text))) > LONGEST_MARKED:
                raise UsageError(
                    f"text with <|…|> marks is spoken in one piece, and this has {count} tokens; "
                    f"at most {LONGEST_MARKED}: speak it in parts"
                )
            return [text]
        cleaned, chinese = self._clean(text, refused, lexicon)
        length = len if chinese else lambda piece: len(self.ids(piece))
        pieces = split(cleaned, chinese, length)
        parts = (part for p in pieces for part in bounded(p, length, "，" if chinese else ","))
        spoken = [part for part in parts if not _is_punctuation(part)]
        if not spoken:
            raise UsageError("the text has nothing to speak in it")
        return spoken

    def _clean(
        self,
        text: str,
        refused: Refused = lambda words: None,
        lexicon: Lexicon = _NO_LEXICON,
    ) -> tuple[str, bool]:
        """The text as the model expects it, and whether the Chinese rules were used."""
        if "<|" in text and "|>" in text:
            return text.strip(), False
        chinese = any("\u4e00" <= c <= "\u9fff" for c in text)
        language = self.normalize.language(text)
        text, readings = lexicon.held(plain(text)) if lexicon.entries else (plain(text), {})
        read = [self.normalize(line, language, refused) for line in sentences(text, chinese)]
        if chinese:
            text = together([_chinese(line) for line in read], chinese)
            return released(re.sub("[，,、]+$", "。", text), readings), True
        if language in ("en", None):
            read = [spell_out_numbers(line) for line in read]
        return released(together(read, chinese), readings), False


def _chinese(text: str) -> str:
    text = _without_blanks(text.replace("\n", ""))
    for old, new in _CHINESE_REPLACEMENTS.items():
        text = text.replace(old, new)
    return text


def _check_length(text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise UsageError(
            f"the text has {len(text)} characters; at most {LONGEST_TEXT} are spoken at once: "
            "speak it in parts"
        )


def split(text: str, chinese: bool, length: Callable[[str], int]) -> list[str]:
    """Sentences merged into utterances of about 60 to 80 units of `length`."""
    marks = _CHINESE_MARKS if chinese else _OTHER_MARKS
    if not text:
        return []
    if text[-1] not in marks:
        text += "。" if chinese else "."
    merged: list[str] = []
    current = ""
    for sentence in _sentences(text, marks):
        if length(current + sentence) > _LONGEST and length(current) > _SHORTEST:
            merged.append(current)
            current = ""
        current += sentence
    if current and merged and length(current) < _MERGED:
        merged[-1] += current
    elif current:
        merged.append(current)
    return merged


def _sentences(text: str, marks: str) -> list[str]:
    """Text up to each mark, with a closing quote that follows it; a mark after a mark is lost."""
    sentences: list[str] = []
    start = 0
    for i, character in enumerate(text):
        if character not in marks:
            continue
        if i > start:
            sentences.append(text[start : i + 1])
        start = i + 1
        if sentences and text[start : start + 1] in tuple(_CLOSING_QUOTES):
            sentences[-1] += text[start]
            start += 1
    return sentences


def spell_out_numbers(text: str) -> str:
    """Every run of digits as English words."""
    if not any(c.isdigit() for c in text):
        return text
    runs: Iterable[str] = re.findall(r"\D+|\d+", "".join(_ascii_digit(c) for c in text))
    return "".join(_words(run) if run[0].isdigit() else run for run in runs)


def _words(run: str) -> str:
    """ASCII digits as an English number, or one by one if that has no name."""
    return _number(run) if len(run) <= _NAMED_DIGITS else " ".join(map(_number, run))


@lru_cache(1024)  # digits of a long number come again and again
def _number(run: str) -> str:
    return str(_speller().number_to_words(run))


@lru_cache(1)
def _speller() -> Any:
    import inflect

    return inflect.engine()


def _ascii_digit(character: str) -> str:
    """Digits of other scripts, and superscripts, as 0 to 9."""
    return str(unicodedata.digit(character)) if character.isdigit() else character


def _without_blanks(text: str) -> str:
    """Drop each blank unless both neighbours are ASCII, or a lexicon's word, and not blank."""

    def joins(character: str) -> bool:
        return (character.isascii() and character != " ") or is_holder(character)

    return "".join(
        c
        for i, c in enumerate(text)
        if c != " " or (i + 1 < len(text) and joins(text[i + 1]) and joins(text[i - 1]))
    )


def _is_punctuation(text: str) -> bool:
    return all(unicodedata.category(c)[0] in "PS" for c in text)
