"""Whisper's tokenizer from its ranks: recorded ids of the original, and what are no ranks."""

import base64
import json
from pathlib import Path

import pytest
from support import DATA, GOLDEN
from tokenizers import Tokenizer

from edgepack.bundle.tokenizer_file import parsed
from edgepack.errors import EdgepackError, IntegrityError, UnsupportedError, UsageError
from edgepack.model.checkpoint import whisper_tokenizer
from edgepack.model.checkpoint.folder import Checkpoint

RECORDED = json.loads((GOLDEN / "common" / "tokenizer.json").read_text("utf-8"))
ROWS = 51866
WHISPER, OF_25HZ = "whisper.tokenizer", "cosyvoice.tokenizer.tokenizer"
BYTES = {bytes([byte]): byte for byte in range(256)}


def checkpoint(folder: Path, module: str, languages: int = 100) -> Checkpoint:
    (folder / "cosyvoice.yaml").write_text(
        f"get_tokenizer: !name:{module}.get_tokenizer\n  multilingual: True\n"
        f"  num_languages: {languages}\n",
        "utf-8",
    )
    return Checkpoint(folder, "cosyvoice.yaml")


def put(folder: Path, ranks: dict[bytes, int]) -> None:
    lines = [b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks.items()]
    (folder / whisper_tokenizer.RANKS_OF_25HZ).write_bytes(b"".join(lines))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The tokenizer of CosyVoice-300M."""
    folder = tmp_path_factory.mktemp("full")
    return Tokenizer.from_str(whisper_tokenizer.build(checkpoint(folder, WHISPER), ROWS))


@pytest.mark.parametrize("item", RECORDED["items"], ids=lambda item: item["text"][:12])
def test_text_has_the_ids_of_the_original(full: Tokenizer, item: dict[str, object]) -> None:
    assert full.encode(str(item["text"])).ids == item["whisper_v1"]


def test_special_tokens_follow_the_ranks(full: Tokenizer) -> None:
    """Their ids are those of Whisper large-v3, which has these languages."""
    wanted = {
        "<|endoftext|>": 50257,
        "<|startoftranscript|>": 50258,
        "<|en|>": 50259,
        "<|yue|>": 50358,
        "<|translate|>": 50359,
        "<|transcribe|>": 50360,
        "<|notimestamps|>": 50364,
        "<|0.00|>": 50365,
        "<|30.00|>": 51865,
    }
    assert {token: full.token_to_id(token) for token in wanted} == wanted
    assert full.get_vocab_size() == ROWS
    assert full.encode("a<|endoftext|>b").ids == [64, 50257, 65]


def test_it_is_a_tokenizer_that_bundles_may_hold(full: Tokenizer) -> None:
    assert parsed(full.to_str().encode(), "tokenizer.json").normalizer is None


def test_a_small_table_has_the_first_tokens_alone() -> None:
    small = Checkpoint(DATA / "checkpoints" / "cosyvoice1-s2", "cosyvoice.yaml")
    tokenizer = Tokenizer.from_str(whisper_tokenizer.build(small, 1500))
    assert tokenizer.get_vocab_size() == 1500
    text = "Hello there, 你好"
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert max(ids) < 1500


def test_the_25_hz_release_reads_ranks_of_its_folder(tmp_path: Path) -> None:
    own = checkpoint(tmp_path, OF_25HZ)
    with pytest.raises(UsageError, match=r"multilingual_zh_ja_yue_char_del\.tiktoken is missing"):
        whisper_tokenizer.build(own, 4000)
    put(tmp_path, {**BYTES, b"ab": 256, b"abc": 257, b"xyz": 258})
    tokenizer = Tokenizer.from_str(whisper_tokenizer.build(own, 4000))
    assert tokenizer.encode("abc").ids == [257]
    assert tokenizer.encode("xyz").ids == [258]  # though no two of its parts are a token
    assert tokenizer.encode("wxyz").ids == [119, 120, 121, 122]
    special = 2 + 100 + 11 + 4 + 6 + 30 + 20 + 1501
    assert tokenizer.get_vocab_size() == 259 + special
    assert tokenizer.token_to_id("<|30.00|>") == 259 + special - 1
    assert tokenizer.token_to_id("<|zh/en|>") is None
    put(tmp_path, BYTES)
    more = Tokenizer.from_str(whisper_tokenizer.build(checkpoint(tmp_path, OF_25HZ, 105), 4000))
    assert more.token_to_id("<|en/zh|>") == 256 + 2 + 104


@pytest.mark.parametrize(
    ("ranks", "error"),
    [
        ({b"a": 0}, IntegrityError),
        ({**BYTES, b"ab": 300}, IntegrityError),
        ({**BYTES, b"ab": 255}, IntegrityError),
        ({**BYTES, b"a" * 300: 256}, UsageError),
    ],
    ids=["no bytes", "a gap", "one rank twice", "a long token"],
)
def test_what_are_no_ranks_is_refused(
    tmp_path: Path, ranks: dict[bytes, int], error: type[EdgepackError]
) -> None:
    put(tmp_path, ranks)
    with pytest.raises(error):
        whisper_tokenizer.build(checkpoint(tmp_path, OF_25HZ), 4000)


@pytest.mark.parametrize("line", [b"YQ== 0 0", b"YQ==", b"YQ= 0", b"YQ== x", b"\xff\xff 1"])
def test_a_damaged_line_is_named(tmp_path: Path, line: bytes) -> None:
    (tmp_path / whisper_tokenizer.RANKS_OF_25HZ).write_bytes(b"Yg== 0\n" + line)
    with pytest.raises(UsageError, match="line 2 is not a token and its rank"):
        whisper_tokenizer.build(checkpoint(tmp_path, OF_25HZ), 4000)


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no tokenizer that this version knows"):
        whisper_tokenizer.build(checkpoint(tmp_path, "cosyvoice.tokenizer.other"), ROWS)
