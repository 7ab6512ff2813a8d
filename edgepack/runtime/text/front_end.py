"""Text front end: cleaning, splitting into utterances, token ids.

Source: cosyvoice/cli/frontend.py (`text_normalize`) and utils/frontend_utils.py
(`split_paragraph`). A line of plain text is treated exactly as there, oddities included. Before
that, a text is simplified (`plain`), its lines are joined to sentences (`lines`), and numbers,
dates and units are put into words (`normalization`).
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgepack.bundle.tokenizer_file import guarded, parsed
from edgepack.errors import UsageError
from edgepack.runtime.stages.decode import Context
from edgepack.runtime.text.cutting import bounded
from edgepack.runtime.text.lexicon import Lexicon, is_holder, released
from edgepack.runtime.text.lines import sentences, together
from edgepack.runtime.text.normalization import Normalization, Refused
from edgepack.runtime.text.plain import heard, plain

LONGEST_TEXT = 100_000  # characters: hours of speech, which are held in memory
LONGEST_MARKED = 500  # tokens
_LONGEST, _SHORTEST, _MERGED = 80, 60, 20
_NAMED_DIGITS = 36  # the longest numbers that inflect can put into words
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


def read_tokenizer(data: bytes, where: object) -> Any:
    """The tokenizer of a `tokenizer.json`; `where` names it in messages."""
    from tokenizers import Tokenizer

    parsed(data, where)
    with guarded(where):
        return Tokenizer.from_str(data.decode())


@dataclass(frozen=True)
class Frontend:
    """Turns text into utterances and utterances into token ids."""

    tokenizer: Any
    end_of_prompt: str
    normalize: Normalization = field(default_factory=lambda: Normalization({}))

    @staticmethod
    def open(path: Path, end_of_prompt: str, normalize: Normalization | None = None) -> "Frontend":
        """A front end over a `tokenizer.json`; raises IntegrityError if it is none."""
        tokenizer = read_tokenizer(path.read_bytes(), path)
        return Frontend(tokenizer, end_of_prompt, normalize or Normalization({}))

    def context(self, given: Context, text: Sequence[int] = ()) -> Context:
        """What the language model continues for a text, of a prompt or an instruction."""
        return given

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, no special tokens added; raises UsageError for lone surrogates."""
        try:
            with guarded("tokenizer.json"):
                return self.tokenizer.encode(text, add_special_tokens=False).ids
        except TypeError:  # lone surrogates, to which Python decodes invalid UTF-8
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
        """Cleaned pieces to speak one after the other; `refused` gets words that were not read.

        Words of the lexicon are spoken as it says; no other rule reads them. Text with `<|…|>`
        marks is taken as it is, neither cleaned nor split. Raises UsageError if nothing is
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
    """Text up to each mark, with a closing quote after it; of marks in a row the first is kept."""
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
    """ASCII digits as an English number, or digit by digit if the number is too large for words."""
    return _number(run) if len(run) <= _NAMED_DIGITS else " ".join(map(_number, run))


@lru_cache(1024)  # the digits of long numbers repeat
def _number(run: str) -> str:
    return str(_speller().number_to_words(run))


@lru_cache(1)
def _speller() -> Any:
    import inflect

    return inflect.engine()


def _ascii_digit(character: str) -> str:
    """The ASCII digit for a digit of another script or a superscript."""
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
