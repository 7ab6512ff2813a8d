"""The text side of bundles: the tokenizer, trimmed or not, and how each language is read aloud."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from edgepack.builder.grammars import grammars
from edgepack.builder.planning import BuildRequest, Source
from edgepack.builder.trim.cut import Cut, cut
from edgepack.bundle.host import TextPart, strategy
from edgepack.errors import UsageError
from edgepack.files import charset
from edgepack.profiles import language
from edgepack.runtime.text.front_end import Frontend
from edgepack.runtime.text.normalization import Normalization, Reader


@dataclass(frozen=True)
class TextAssets:
    """Languages, the original tokenizer as JSON, rows of the text table, and the trimming."""

    languages: tuple[str, ...]
    original: str
    rows_before: int
    settings: TextPart
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
        """The text front end that the device will have, with files of this machine."""
        tokenizer = Tokenizer.from_str(self.tokenizer)
        normalize = Normalization(readers(self.languages))
        made: Frontend = strategy("text", self.settings)(tokenizer, self.settings, normalize)
        return made

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

    Sentences are compared as they are written and as the front end normalises them. Raises
    GateError if nothing was trimmed or a sentence has other tokens than before.
    """
    family, checkpoint = source.family, source.checkpoint
    original, rows = family.tokenizer(checkpoint), family.text_rows(checkpoint)
    settings = family.host(checkpoint).text
    if not request.languages:
        return TextAssets(language.preferred(), original, rows, settings, None)
    codes = tuple(request.languages)
    frontend = TextAssets(codes, original, rows, settings, None).frontend
    sentences = [text for code in codes for text in language.sentences(code)]
    kept = [*_lines(request.keep_text), *(wanted.text for wanted in request.voices)]
    kept += settings.added
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
    return TextAssets(codes, original, rows, settings, made)


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    return [line for line in charset.read(path).splitlines() if line.strip()]
