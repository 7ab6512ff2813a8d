"""The text tokenizer of a Qwen2 folder as one `tokenizer.json`, with a family's own tokens.

Source: transformers `Qwen2TokenizerFast` and cosyvoice/tokenizer/tokenizer.py.
"""

from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from edgepack.checkpoint.folder import Checkpoint
from edgepack.errors import UnsupportedError, UsageError

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build(checkpoint: Checkpoint, folder: str, special: Sequence[str], rows: int) -> str:
    """The JSON of the tokenizer in `folder`, special tokens appended in order after its own.

    `rows` is the size of the embedding table, which every id must be below.
    """
    if checkpoint.has(f"{folder}/tokenizer.json"):
        path = checkpoint.file(f"{folder}/tokenizer.json")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise UsageError(f"{path}: not a readable tokenizer ({error})") from None
    else:
        tokenizer = _from_vocabulary(checkpoint, folder)
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


def _from_vocabulary(checkpoint: Checkpoint, folder: str) -> Tokenizer:
    """The fast tokenizer of `vocab.json`, `merges.txt` and the added tokens of its config."""
    vocabulary, merges = (checkpoint.file(f"{folder}/{n}") for n in ("vocab.json", "merges.txt"))
    try:
        tokenizer = Tokenizer(BPE.from_file(str(vocabulary), str(merges)))
    except Exception as error:  # the library raises bare Exception
        raise UsageError(f"{vocabulary}: not a readable vocabulary ({error})") from None
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
        tokens = sorted((int(number), str(token["content"])) for number, token in added.items())
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{config.where}.added_tokens_decoder: not a table of tokens") from None
    for number, content in tokens:
        token = AddedToken(content, normalized=False, special=True)
        tokenizer.add_special_tokens([token])
        if tokenizer.token_to_id(content) != number:
            raise UnsupportedError(
                f"{config.where}: {content} should be id {number} but would be "
                f"{tokenizer.token_to_id(content)}; vocab.json has gaps"
            )
    return tokenizer
