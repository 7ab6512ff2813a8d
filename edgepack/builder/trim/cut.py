"""Trimming a checkpoint's text to languages: from codes and texts to a proven tokenizer."""

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from edgepack.builder.trim.alphabet import alphabet
from edgepack.builder.trim.bpe import Trimmed, trim
from edgepack.builder.trim.proof import Proof, prove
from edgepack.builder.trim.vocabulary import Units
from edgepack.errors import GateError
from edgepack.runtime.text.coverage import foreign_runs

_LONGEST_WORD = 32


@dataclass(frozen=True)
class Cut:
    """A trimmed tokenizer, the characters and words that it is exact for, and the proof."""

    trimmed: Trimmed
    characters: frozenset[str]
    words: tuple[str, ...]
    proof: Proof


def cut(
    original: str,
    codes: Sequence[str],
    rows: int,
    sentences: Sequence[str],
    kept: Sequence[str] = (),
    ids: Collection[int] = (),
) -> Cut:
    """Trim a tokenizer (JSON) of a table of `rows` rows to languages, and prove it.

    Words of the texts `kept` that are not in the languages stay, and so do the tokens `ids`. A
    run of more than 32 such characters is no word: all of its characters join the alphabet.
    Raises GateError if nothing can be dropped, or if any sentence or kept text would be tokenized
    in another way.
    """
    characters = alphabet(codes)
    normal = (unicodedata.normalize("NFC", text) for text in kept)
    runs = {run for text in normal for run in foreign_runs(text, characters.__contains__)}
    words = {run for run in runs if len(run) <= _LONGEST_WORD}
    characters |= set().union(*(runs - words))
    trimmed = trim(original, Units(characters, words), ids)
    if len(trimmed.rows) >= rows:
        raise GateError(
            f"nothing trimmed: {', '.join(codes)} needs all {rows:,} rows of the text table; "
            "build with --language all"
        )
    proof = prove(original, trimmed, [*sentences, *kept])
    return Cut(trimmed, characters, tuple(sorted(words)), proof)
