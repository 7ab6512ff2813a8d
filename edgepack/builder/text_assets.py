"""The text side of bundles: the tokenizer, trimmed or not, and how each language is read aloud."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from edgepack import charset, language
from edgepack.errors import UsageError
from edgepack.grammars import grammars
from edgepack.plan import BuildRequest, Source
from edgepack.runtime.normalization import Normalization, Reader
from edgepack.runtime.text import Frontend
from edgepack.trim.cut import Cut, cut


@dataclass(frozen=True)
class TextAssets:
    """Languages, the original tokenizer as JSON, rows of the text table, and what was cut."""

    languages: tuple[str, ...]
    original: str
    rows_before: int
    end_of_prompt: str
    cut: Cut | None

    @property
    def tokenizer(self) -> str:
        """The tokenizer of the bundle, as JSON."""
        return self.cut.trimmed.tokenizer if self.cut else self.original

    @property
    def rows(self) -> np.ndarray | None:
        """The old id of each new one; None if all stay as they are."""
        return self.cut.trimmed.rows if self.cut else None

    @cached_property
    def frontend(self) -> Frontend:
        """What the device will have, with files of this machine."""
        tokenizer = Tokenizer.from_str(self.tokenizer)
        return Frontend(tokenizer, self.end_of_prompt, Normalization(readers(self.languages)))

    def renumbered(self, ids: np.ndarray) -> np.ndarray:
        """Ids of the original tokenizer as those of the bundle's.

        Raises UsageError for an id that the tokenizer does not have.
        """
        if self.rows is None:
            return ids
        found = np.searchsorted(self.rows, ids).clip(max=len(self.rows) - 1)
        if (self.rows[found] != ids).any():
            raise UsageError("its prompt text has ids that the tokenizer does not have")
        return found


def readers(codes: tuple[str, ...]) -> Mapping[str, Reader]:
    """How each language is normalised, with the grammars of the installed packages."""
    found = {}
    for code in codes:
        spoken = language.load(code)
        files = grammars(spoken.normalizer, spoken.locale)
        found[code] = Reader(spoken.normalizer, spoken.locale, files)
    return found


def text_assets(request: BuildRequest, source: Source) -> TextAssets:
    """Trim the checkpoint's tokenizer to the languages asked for, and prove it.

    Sentences are checked as they are written and as the front end hands them on. Raises GateError
    if nothing was trimmed or one sentence changed its tokens.
    """
    family, checkpoint = source.family, source.checkpoint
    original, rows = family.tokenizer(checkpoint), family.text_rows(checkpoint)
    end_of_prompt = family.host(checkpoint).end_of_prompt
    if not request.languages:
        return TextAssets(language.preferred(), original, rows, end_of_prompt, None)
    codes = tuple(request.languages)
    frontend = TextAssets(codes, original, rows, end_of_prompt, None).frontend
    sentences = [text for code in codes for text in language.sentences(code)]
    kept = [*_lines(request.keep_text), *(wanted.text for wanted in request.voices)]
    ids = {
        int(number)
        for voice in family.voices(checkpoint).values()
        if voice.prompt
        for number in voice.prompt.text
    }
    made = cut(
        original,
        codes,
        rows,
        [*sentences, *map(frontend.clean, sentences)],
        [*kept, *map(frontend.clean, kept)],
        ids,
    )
    return TextAssets(codes, original, rows, end_of_prompt, made)


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    return [line for line in charset.read(path).splitlines() if line.strip()]
