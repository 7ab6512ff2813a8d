"""The text tokenizer of a Qwen2 folder as one `tokenizer.json`, with a family's own tokens.

A `tokenizer.json` can hold any pipeline of regular expressions and rewriting; only Qwen2's own is
taken: NFC, one known pattern, byte-level BPE. Nothing of a file reaches the library before that.
Source: transformers `Qwen2TokenizerFast` and cosyvoice/tokenizer/tokenizer.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from edgepack.checkpoint.folder import Checkpoint
from edgepack.documents import read_bytes
from edgepack.errors import IntegrityError, UnsupportedError, UsageError

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MAX_BYTES = 16 << 20  # of a file; Qwen2's largest has 11 MB
_MAX_COMMAS = 800_000  # in a file, which are as many as its values; Qwen2's has half of that
_MAX_ADDED = 1024  # tokens beside the vocabulary; Qwen2 has 3
_BYTES = frozenset(pre_tokenizers.ByteLevel.alphabet())

_Id = Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
_Token = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Vocabulary = dict[_Token, _Id]


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A part of `tokenizer.json` with no more than is said here."""


class _Nfc(_Strict, tag="NFC"):
    pass


class _ByteLevel(_Strict, tag="ByteLevel"):
    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: bool = True


class _Pattern(_Strict):
    regex: str = msgspec.field(name="Regex")


class _Split(_Strict, tag="Split"):
    pattern: _Pattern
    behavior: Literal["Isolated"]
    invert: bool


class _Steps(_Strict, tag="Sequence"):
    pretokenizers: tuple[_Split, _ByteLevel]


class _Added(_Strict):
    id: _Id
    content: _Token
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


class _Bpe(_Strict, tag="BPE"):
    vocab: _Vocabulary
    merges: list[str | tuple[str, str]]
    dropout: None = None
    unk_token: None = None
    continuing_subword_prefix: Literal[""] | None = None
    end_of_word_suffix: Literal[""] | None = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False


class _File(_Strict):
    normalizer: _Nfc
    pre_tokenizer: _Steps
    decoder: _ByteLevel
    model: _Bpe
    added_tokens: Annotated[list[_Added], msgspec.Meta(max_length=_MAX_ADDED)]
    version: Literal["1.0"] = "1.0"
    truncation: None = None
    padding: None = None
    post_processor: _ByteLevel | None = None


def build(checkpoint: Checkpoint, folder: str, special: Sequence[str], rows: int) -> str:
    """The JSON of the tokenizer in `folder`, special tokens appended in order after its own.

    `rows` is the size of the embedding table, which every id must be below.
    """
    whole = checkpoint.has(f"{folder}/tokenizer.json")
    tokenizer = (_from_file if whole else _from_vocabulary)(checkpoint, folder)
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in special]
    )
    vocabulary = tokenizer.get_vocab()
    owners = dict(zip(vocabulary.values(), vocabulary, strict=True))
    for token, number in vocabulary.items():
        if owners[number] != token:
            raise UsageError(
                f"{checkpoint.folder / folder}: tokens {token!r} and {owners[number]!r} have one "
                f"id, {number}; download the tokenizer again"
            )
    largest = max(owners, default=0)
    if largest >= rows:
        raise UnsupportedError(
            f"{checkpoint.folder / folder}: token id {largest} for {rows} embedding rows; "
            "tokenizer and model do not belong together"
        )
    return tokenizer.to_str()


def _from_file(checkpoint: Checkpoint, folder: str) -> Tokenizer:
    """The tokenizer of `tokenizer.json`, if it is one of Qwen2's kind."""
    path = checkpoint.file(f"{folder}/tokenizer.json")
    content = _decoded(path, _File)
    split, level = content.pre_tokenizer.pretokenizers
    if split.pattern.regex != _SPLIT or split.invert or level.use_regex or level.add_prefix_space:
        raise IntegrityError(f"{path}: splits text in another way than Qwen2; refused")
    _expect_bytes(path, content.model.vocab, {token.id for token in content.added_tokens})
    _expect_tokens(path, content.model.vocab, map(_pair, content.model.merges))
    try:
        tokenizer = Tokenizer.from_str(msgspec.json.encode(content).decode())
    except Exception as error:  # the library raises bare Exception
        raise UsageError(f"{path}: not a readable tokenizer ({error})") from None
    _expect_ids(str(path), tokenizer, [(token.id, token.content) for token in content.added_tokens])
    return tokenizer


def _from_vocabulary(checkpoint: Checkpoint, folder: str) -> Tokenizer:
    """The fast tokenizer of `vocab.json`, `merges.txt` and the added tokens of its config."""
    path, merges = (checkpoint.file(f"{folder}/{n}") for n in ("vocab.json", "merges.txt"))
    vocabulary = _decoded(path, _Vocabulary)
    _expect_bytes(path, vocabulary, ())
    pairs = _merges(merges)
    _expect_tokens(merges, vocabulary, pairs)
    try:
        tokenizer = Tokenizer(BPE(vocabulary, pairs))
    except Exception as error:  # the library raises bare Exception
        raise UsageError(f"{path}: not a readable vocabulary ({error})") from None
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    config = checkpoint.json(f"{folder}/tokenizer_config.json")
    added = config.get("added_tokens_decoder", dict, {})
    try:
        tokens = sorted((int(number), _token(entry)) for number, entry in added.items())
    except ValueError:
        raise UsageError(f"{config.where}.added_tokens_decoder: not a table of tokens") from None
    if len(tokens) > _MAX_ADDED:
        raise IntegrityError(f"{config.where}: {len(tokens)} added tokens; refused")
    tokenizer.add_special_tokens(
        [AddedToken(content, normalized=False, special=True) for _, content in tokens]
    )
    _expect_ids(config.where, tokenizer, tokens)
    return tokenizer


def _decoded(path: Path, kind: Any) -> Any:
    """A JSON file of a known shape."""
    data = read_bytes(path, _MAX_BYTES)
    if data.count(b",") > _MAX_COMMAS:
        raise IntegrityError(f"{path}: has more than {_MAX_COMMAS:,} values; refused")
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        if kind is _File:  # a tokenizer, but one that could do anything
            raise IntegrityError(
                f"{path}: not a byte-level BPE tokenizer as Qwen2's ({error}); refused"
            ) from None
        raise UsageError(f"{path}: not a readable vocabulary ({error})") from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UsageError(f"{path}: not a readable tokenizer ({error})") from None


def _merges(path: Path) -> list[tuple[str, str]]:
    """Pairs of tokens, one a line after a line with the version."""
    try:
        lines = read_bytes(path, _MAX_BYTES).decode().removesuffix("\n").split("\n")
    except UnicodeError:
        raise UsageError(f"{path}: not UTF-8 text; download it again") from None
    if len(lines) > _MAX_COMMAS:
        raise IntegrityError(f"{path}: has more than {_MAX_COMMAS:,} lines; refused")
    pairs: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        if line.startswith("#version") or lines == [""]:
            continue
        first, _, second = line.removesuffix("\r").partition(" ")
        if not first or not second or " " in second:
            raise UsageError(f"{path}: line {number} is not a pair of tokens; download it again")
        pairs.append((first, second))
    return pairs


def _token(entry: Any) -> str:
    """The text of an added token; raises ValueError if there is none."""
    content = entry.get("content") if isinstance(entry, dict) else None
    if not isinstance(content, str) or not 0 < len(content) <= 256:
        raise ValueError("no content")
    return content


def _expect_bytes(path: Path, vocabulary: Mapping[str, int], added: Iterable[int]) -> None:
    """Every token is made of bytes, and has an id of its own."""
    other = set(added)
    holders: dict[int, str] = {}
    for token, number in vocabulary.items():
        if (first := holders.setdefault(number, token)) != token:
            raise UsageError(
                f"{path}: tokens {first!r} and {token!r} have one id, {number}; download it again"
            )
    if not _BYTES.issuperset("".join(vocabulary)):
        for token, number in vocabulary.items():
            if number not in other and not _BYTES.issuperset(token):
                raise IntegrityError(f"{path}: token {token!r} is not made of bytes; refused")


def _pair(merge: str | tuple[str, str]) -> tuple[str, str]:
    """A merge as two tokens; older files write them in one string."""
    first, _, second = merge.partition(" ") if isinstance(merge, str) else (merge[0], "", merge[1])
    return first, second


def _expect_tokens(
    path: Path, vocabulary: Mapping[str, int], merges: Iterable[tuple[str, str]]
) -> None:
    """What is merged, and what it becomes, are tokens; the library panics over others."""
    for first, second in merges:
        if not {first, second, first + second} <= vocabulary.keys():
            raise UsageError(
                f"{path}: merges {first!r} and {second!r}, which are not in the vocabulary; "
                "download it again"
            )


def _expect_ids(where: str, tokenizer: Tokenizer, added: Iterable[tuple[int, str]]) -> None:
    for number, content in added:
        if tokenizer.token_to_id(content) != number:
            raise UnsupportedError(
                f"{where}: {content} should be id {number} but would be "
                f"{tokenizer.token_to_id(content)}; vocab.json has gaps"
            )
