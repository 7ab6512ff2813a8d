"""The text tokenizer of a Qwen2 folder as one `tokenizer.json`, with a family's own tokens.

Only a pipeline like Qwen2's is accepted (`tokenizer_file`).
Source: transformers `Qwen2TokenizerFast` and cosyvoice/tokenizer/tokenizer.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from edgepack.bundle.tokenizer_file import (
    MAX_ADDED,
    MAX_BYTES,
    MAX_COMMAS,
    SPLIT,
    Vocabulary,
    parsed,
    require_size,
    require_tokens,
)
from edgepack.errors import IntegrityError, UnsupportedError, UsageError
from edgepack.files.documents import read_bytes
from edgepack.model.checkpoint.folder import Checkpoint

_BYTES = frozenset(pre_tokenizers.ByteLevel.alphabet())


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
    content = parsed(read_bytes(path, MAX_BYTES), path, UsageError)
    _expect_bytes(path, content.model.vocab, {token.id for token in content.added_tokens})
    try:
        tokenizer = Tokenizer.from_str(msgspec.json.encode(content).decode())
    except Exception as error:  # the library raises bare Exception
        raise UsageError(f"{path}: not a readable tokenizer ({error})") from None
    _expect_ids(str(path), tokenizer, [(token.id, token.content) for token in content.added_tokens])
    return tokenizer


def _from_vocabulary(checkpoint: Checkpoint, folder: str) -> Tokenizer:
    """The fast tokenizer of `vocab.json`, `merges.txt` and the added tokens of its config."""
    path, merges = (checkpoint.file(f"{folder}/{n}") for n in ("vocab.json", "merges.txt"))
    vocabulary = _vocabulary(path)
    _expect_bytes(path, vocabulary, ())
    pairs = _merges(merges)
    require_tokens(merges, vocabulary, pairs, UsageError)
    try:
        tokenizer = Tokenizer(BPE(vocabulary, pairs))
    except Exception as error:  # the library raises bare Exception
        raise UsageError(f"{path}: not a readable vocabulary ({error})") from None
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
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
    if len(tokens) > MAX_ADDED:
        raise IntegrityError(f"{config.where}: {len(tokens)} added tokens; refused")
    tokenizer.add_special_tokens(
        [AddedToken(content, normalized=False, special=True) for _, content in tokens]
    )
    _expect_ids(config.where, tokenizer, tokens)
    return tokenizer


def _vocabulary(path: Path) -> dict[str, int]:
    data = read_bytes(path, MAX_BYTES)
    require_size(data, path)
    try:
        return msgspec.json.decode(data, type=Vocabulary)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise UsageError(f"{path}: not a readable vocabulary ({error})") from None


def _merges(path: Path) -> list[tuple[str, str]]:
    """Pairs of tokens, one a line after a line with the version."""
    try:
        lines = read_bytes(path, MAX_BYTES).decode().removesuffix("\n").split("\n")
    except UnicodeError:
        raise UsageError(f"{path}: not UTF-8 text; download it again") from None
    if len(lines) > MAX_COMMAS:
        raise IntegrityError(f"{path}: has more than {MAX_COMMAS:,} lines; refused")
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
    """Check that every token is written in byte-level BPE's alphabet and has an id of its own."""
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


def _expect_ids(where: str, tokenizer: Tokenizer, added: Iterable[tuple[int, str]]) -> None:
    for number, content in added:
        if tokenizer.token_to_id(content) != number:
            raise UnsupportedError(
                f"{where}: {content} should be id {number} but would be "
                f"{tokenizer.token_to_id(content)}; vocab.json has gaps"
            )
