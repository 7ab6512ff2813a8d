"""Which parts a `tokenizer.json` may be made of: those of Qwen2's byte-level BPE.

The `tokenizers` library has many more, some of which take memory without bounds, give other ids
than the model was trained with, or end in a Rust panic.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from edgepack.errors import EdgepackError, IntegrityError

_Nothing = Annotated[str, Meta(max_length=0)]


class _NFC(Struct, tag="NFC"):
    pass


class _ByteLevel(Struct, tag="ByteLevel"):
    pass


class _Regex(Struct, forbid_unknown_fields=True):
    Regex: Annotated[str, Meta(max_length=1000)]


class _Split(Struct, tag="Split"):
    pattern: _Regex


class _Sequence(Struct, tag="Sequence"):
    pretokenizers: Annotated[tuple[_Split | _ByteLevel, ...], Meta(max_length=4)]


class _BPE(Struct, tag="BPE"):
    dropout: None = None
    unk_token: None = None
    continuing_subword_prefix: _Nothing | None = None
    end_of_word_suffix: _Nothing | None = None


class _Tokenizer(Struct):
    model: _BPE
    pre_tokenizer: _Sequence | _ByteLevel
    normalizer: _NFC | None = None
    post_processor: _ByteLevel | None = None
    decoder: _ByteLevel | None = None
    truncation: None = None
    padding: None = None


def require_known(data: bytes, where: object) -> None:
    """Raise IntegrityError if a `tokenizer.json` has any other part."""
    try:
        msgspec.json.decode(data, type=_Tokenizer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"{where}: not a readable tokenizer ({error})") from None


@contextmanager
def guarded(where: object) -> Iterator[None]:
    """Errors of the `tokenizers` library, its panics included, as IntegrityError.

    It raises bare Exception, and panics come as a BaseException of a type that has no module.
    """
    try:
        yield
    except (EdgepackError, TypeError, MemoryError):
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise IntegrityError(f"{where}: not a readable tokenizer ({error})") from None
