"""Checks of a `tokenizer.json`, which has to be a byte-level BPE like Qwen2's or Whisper's.

A `tokenizer.json` can hold any pipeline of regular expressions and rewriting, some of which take
unbounded memory, give other ids than the model was trained with, or end in a Rust panic that prints
a backtrace. So a file is checked here before the `tokenizers` library gets it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Literal

import msgspec

from edgepack.errors import EdgepackError, IntegrityError

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# That of tokenizers by rank, GPT-2's and Whisper's; text is not normalized before it.
RANKED_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
MAX_BYTES = 16 << 20  # of a file; Qwen2's largest has 11 MB
MAX_COMMAS = 800_000  # in a file, which are as many as its values; Qwen2's has half of that
MAX_ADDED = 2048  # tokens beside the vocabulary; Qwen2 has 3, Whisper 1,609

_Id = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
_Token = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Vocabulary = dict[_Token, _Id]


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A part of `tokenizer.json`; unknown fields are refused."""


class _Nfc(Strict, tag="NFC"):
    pass


class _ByteLevel(Strict, tag="ByteLevel"):
    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: bool = True


class _Pattern(Strict):
    regex: str = msgspec.field(name="Regex")


class _Split(Strict, tag="Split"):
    pattern: _Pattern
    behavior: Literal["Isolated"]
    invert: bool


class _Steps(Strict, tag="Sequence"):
    pretokenizers: tuple[_Split, _ByteLevel]


class _Added(Strict):
    id: _Id
    content: _Token
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


class _Bpe(Strict, tag="BPE"):
    vocab: Vocabulary
    merges: list[str | tuple[str, str]]
    dropout: None = None
    unk_token: None = None
    continuing_subword_prefix: Literal[""] | None = None
    end_of_word_suffix: Literal[""] | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False


class TokenizerFile(Strict):
    """A whole `tokenizer.json`."""

    normalizer: _Nfc | None
    pre_tokenizer: _Steps
    decoder: _ByteLevel
    model: _Bpe
    added_tokens: Annotated[list[_Added], msgspec.Meta(max_length=MAX_ADDED)]
    version: Literal["1.0"] = "1.0"
    truncation: None = None
    padding: None = None
    post_processor: _ByteLevel | None = None


def parsed(
    data: bytes, where: object, damaged: type[EdgepackError] = IntegrityError
) -> TokenizerFile:
    """The parts of a `tokenizer.json`; raises IntegrityError if it is of another kind.

    What is no JSON at all, or has merges without their tokens, is `damaged`.
    """
    require_size(data, where)
    try:
        content = msgspec.json.decode(data, type=TokenizerFile)
    except msgspec.ValidationError as error:  # a tokenizer, but one that could do anything
        raise IntegrityError(
            f"{where}: not a byte-level BPE tokenizer as Qwen2's ({error}); refused"
        ) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise damaged(f"{where}: not a readable tokenizer ({error})") from None
    split, level = content.pre_tokenizer.pretokenizers
    wanted = SPLIT if content.normalizer else RANKED_SPLIT
    if split.pattern.regex != wanted or split.invert or level.use_regex or level.add_prefix_space:
        raise IntegrityError(f"{where}: splits text in another way than Qwen2 or Whisper; refused")
    merges = map(_pair, content.model.merges)
    require_tokens(where, content.model.vocab, merges, damaged)
    return content


def require_size(data: bytes, where: object) -> None:
    """Raise IntegrityError for a file that would take too long to read."""
    if len(data) > MAX_BYTES:
        raise IntegrityError(f"{where}: larger than {MAX_BYTES >> 20} MiB; refused")
    if data.count(b",") > MAX_COMMAS:
        raise IntegrityError(f"{where}: has more than {MAX_COMMAS:,} values; refused")


def require_tokens(
    where: object,
    vocabulary: Mapping[str, int],
    merges: Iterable[tuple[str, str]],
    damaged: type[EdgepackError] = IntegrityError,
) -> None:
    """Raise `damaged` if a part or the result of a merge is no token: the library panics."""
    for first, second in merges:
        if not {first, second, first + second} <= vocabulary.keys():
            raise damaged(
                f"{where}: merges {first!r} and {second!r}, which are not in the vocabulary; "
                "download it again"
            )


def _pair(merge: str | tuple[str, str]) -> tuple[str, str]:
    """A merge as two tokens; older files write them in one string."""
    first, _, second = merge.partition(" ") if isinstance(merge, str) else (merge[0], "", merge[1])
    return first, second


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
