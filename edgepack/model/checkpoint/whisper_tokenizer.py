"""The text tokenizer of Whisper as one `tokenizer.json`: byte-level BPE by the ranks of its tokens.

A checkpoint does not bring it. The ranks of Whisper's own are package data, under its licence;
those of the 25 Hz release have to lie in the folder of the checkpoint.
Sources: openai/whisper tokenizer.py, openai/tiktoken, cosyvoice/tokenizer/tokenizer.py.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from edgepack.bundle.tokenizer_file import MAX_BYTES, RANKED_SPLIT
from edgepack.errors import IntegrityError, UnsupportedError, UsageError
from edgepack.files.documents import read_bytes
from edgepack.model.checkpoint.config import Config
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.checkpoint.yaml import Tagged

RANKS_OF_25HZ = "multilingual_zh_ja_yue_char_del.tiktoken"

_RANKS = "multilingual.tiktoken"
_GETTER = "get_tokenizer"
_WHISPER, _25HZ = "whisper.tokenizer.get_tokenizer", "cosyvoice.tokenizer.tokenizer.get_tokenizer"
_MAX_RANKS, _MAX_TOKEN = 1 << 18, 256  # tokens, and bytes of one
_EMPTY = b"="  # how the ranks write a token of no bytes
_NEVER = "<|nothing|>"  # for a token of no bytes: no piece that text is split into
_LANGUAGES = [
    "en",
    "zh",
    "de",
    "es",
    "ru",
    "ko",
    "fr",
    "ja",
    "pt",
    "tr",
    "pl",
    "ca",
    "nl",
    "ar",
    "sv",
    "it",
    "id",
    "hi",
    "fi",
    "vi",
    "he",
    "uk",
    "el",
    "ms",
    "cs",
    "ro",
    "da",
    "hu",
    "ta",
    "no",
    "th",
    "ur",
    "hr",
    "bg",
    "lt",
    "la",
    "mi",
    "ml",
    "cy",
    "sk",
    "te",
    "fa",
    "lv",
    "bn",
    "sr",
    "az",
    "sl",
    "kn",
    "et",
    "mk",
    "br",
    "eu",
    "is",
    "hy",
    "ne",
    "mn",
    "bs",
    "kk",
    "sq",
    "sw",
    "gl",
    "mr",
    "pa",
    "si",
    "km",
    "sn",
    "yo",
    "so",
    "af",
    "oc",
    "ka",
    "be",
    "tg",
    "sd",
    "gu",
    "am",
    "yi",
    "lo",
    "uz",
    "fo",
    "ht",
    "ps",
    "tk",
    "nn",
    "mt",
    "sa",
    "lb",
    "my",
    "bo",
    "tl",
    "mg",
    "as",
    "tt",
    "haw",
    "ln",
    "ha",
    "ba",
    "jw",
    "su",
    "yue",
]
_DIALECTS = ["minnan", "wuyu", "dialect", "zh/en", "en/zh"]  # more languages of the 25 Hz release
_EVENTS = [
    "ASR",
    "AED",
    "SER",
    "Speech",
    "/Speech",
    "BGM",
    "/BGM",
    "Laughter",
    "/Laughter",
    "Applause",
    "/Applause",
]
_EMOTIONS = ["HAPPY", "SAD", "ANGRY", "NEUTRAL"]
_TASKS = ["translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps"]
_VOCAL = [
    *["TTS/B", "TTS/O", "TTS/Q", "TTS/A", "TTS/CO", "TTS/CL", "TTS/H"],
    *(f"TTS/SP{i:02d}" for i in range(1, 14)),
]
_TIMES = [f"{i * 0.02:.2f}" for i in range(1501)]


def build(checkpoint: Checkpoint, rows: int) -> str:
    """The JSON of the tokenizer that the configuration of a checkpoint asks for.

    `rows` is the size of the embedding table. A table that is smaller than the vocabulary, as of
    small networks for tests, has rows for the first tokens alone, and so has the tokenizer then.
    """
    getter = checkpoint.config.values.get(_GETTER)
    if not isinstance(getter, Tagged) or getter.target not in (_WHISPER, _25HZ):
        raise UnsupportedError(
            f"{checkpoint.config.where}.{_GETTER} is no tokenizer that this version knows; it "
            f"knows {_WHISPER} and {_25HZ}"
        )
    config = checkpoint.config.section(_GETTER)
    config.expect(multilingual=True)
    if getter.target == _WHISPER:
        ranks, where = _packaged(), _RANKS
        special = _whisper_tokens(config)
    else:
        ranks, where = _of_folder(checkpoint), RANKS_OF_25HZ
        special = _tokens_of_25hz(config)
    return from_ranks(ranks, special, rows, where).to_str()


def from_ranks(
    ranks: Mapping[bytes, int], special: Sequence[str], rows: int, where: str
) -> Tokenizer:
    """A tokenizer of tokens with ranks 0, 1, …, and of special ones after them, in order.

    Two neighbours become one token if their bytes together are one, that of the lowest rank first;
    a piece of text that is a token is not taken apart. Only ids below `rows` are kept.
    Raises IntegrityError if `where` has gaps between ranks, or not every single byte.
    """
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise IntegrityError(f"{where}: ranks with gaps between them; download it again")
    kept = {token: rank for token, rank in ranks.items() if rank < rows}
    if any(bytes([byte]) not in kept for byte in range(256)):
        raise IntegrityError(f"{where}: not every byte has a rank below {rows}")
    letters = _letters()
    names = {token: "".join(letters[byte] for byte in token) or _NEVER for token in kept}
    vocabulary = {names[token]: rank for token, rank in kept.items()}
    merges = [(names[a], names[b]) for a, b in _merges(kept)]
    tokenizer = Tokenizer(BPE(vocabulary, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(RANKED_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, normalized=False, special=True)
            for number, token in enumerate(special, len(ranks))
            if number < rows
        ]
    )
    return tokenizer


def _merges(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Every way to make a token of two others, tokens by rank."""
    for token in sorted(ranks, key=ranks.__getitem__):
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [(a, b) for a, b in pairs if a in ranks and b in ranks]
        yield from sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _letters() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    code = {byte: byte for byte in printable}
    code.update({byte: 256 + number for number, byte in enumerate(others)})
    return [chr(code[byte]) for byte in range(256)]


def _packaged() -> dict[bytes, int]:
    data = resources.files("edgepack.model.checkpoint").joinpath("whisper", _RANKS).read_bytes()
    return _parsed(data, _RANKS)


def _of_folder(checkpoint: Checkpoint) -> dict[bytes, int]:
    if not checkpoint.has(RANKS_OF_25HZ):
        raise UsageError(
            f"{checkpoint.folder}: {RANKS_OF_25HZ} is missing; copy it there from "
            "cosyvoice/tokenizer/assets of the code repository FunAudioLLM/CosyVoice"
        )
    path = checkpoint.file(RANKS_OF_25HZ)
    return _parsed(read_bytes(path, MAX_BYTES), path)


def _parsed(data: bytes, where: object) -> dict[bytes, int]:
    """Lines of a token in base64 and its rank."""
    ranks: dict[bytes, int] = {}
    lines = data.splitlines()
    if len(lines) > _MAX_RANKS:
        raise IntegrityError(f"{where}: has more than {_MAX_RANKS:,} tokens; refused")
    for number, line in enumerate(lines, 1):
        try:
            encoded, rank = line.split()
            token = b"" if encoded == _EMPTY else base64.b64decode(encoded, validate=True)
            if token in ranks or len(token) > _MAX_TOKEN:
                raise ValueError("a token twice, or one that is too long")
            ranks[token] = int(rank)
        except ValueError:  # also of base64
            raise UsageError(
                f"{where}: line {number} is not a token and its rank; download it again"
            ) from None
    return ranks


def _whisper_tokens(config: Config) -> list[str]:
    languages = _LANGUAGES[: config.positive("num_languages", 99)]
    return _marked(["endoftext", "startoftranscript", *languages, *_TASKS, *_TIMES])


def _tokens_of_25hz(config: Config) -> list[str]:
    languages = [*_LANGUAGES, *_DIALECTS][: config.positive("num_languages", 99)]
    reserved = [f"SPECIAL_TOKEN_{i}" for i in range(1, 31)]
    return _marked(
        [
            *("endoftext", "startoftranscript", *languages, *_EVENTS, *_EMOTIONS, *_TASKS),
            *(*reserved, *_VOCAL, *_TIMES),
        ]
    )


def _marked(names: Sequence[str]) -> list[str]:
    return [f"<|{name}|>" for name in names]
