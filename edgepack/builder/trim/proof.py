"""Proof that a trimmed tokenizer tokenizes as the whole one does."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer

from edgepack.builder.trim.bpe import Trimmed
from edgepack.errors import GateError


@dataclass(frozen=True)
class Proof:
    """What was checked: tokens before and after, and sentences by number and hash."""

    tokens_before: int
    tokens_after: int
    sentences: int
    sha256: str


def prove(original: str, trimmed: Trimmed, sentences: Sequence[str]) -> Proof:
    """Compare two tokenizers token by token, and on sentences; raises GateError if they differ.

    Every new id has to stand for the same token as its old one, each old id once; and each
    sentence has to become the same tokens.
    """
    whole, small = Tokenizer.from_str(original), Tokenizer.from_str(trimmed.tokenizer)
    rows = trimmed.rows
    if len(np.unique(rows)) != len(rows) or len(rows) != small.get_vocab_size():
        raise GateError("trimming gave two ids to one token; nothing was written")
    for new, old in enumerate(rows.tolist()):
        if small.id_to_token(new) != whole.id_to_token(old):
            raise GateError(
                f"trimming turned token {whole.id_to_token(old)!r} into "
                f"{small.id_to_token(new)!r}; nothing was written"
            )
    for sentence in sentences:
        wanted = whole.encode(sentence, add_special_tokens=False).ids
        if rows[small.encode(sentence, add_special_tokens=False).ids].tolist() != wanted:
            raise GateError(
                f"trimming changed the tokens of {sentence!r}; nothing was written. "
                "If it is not in the languages asked for, add it with --keep-text"
            )
    digest = hashlib.sha256("\n".join(sentences).encode()).hexdigest()
    return Proof(whole.get_vocab_size(), len(rows), len(sentences), digest)
