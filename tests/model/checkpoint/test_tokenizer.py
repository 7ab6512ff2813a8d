"""Text tokenizers: recorded ids of the original, and what is no tokenizer."""

import json
import os
import shutil
from pathlib import Path

import pytest
import random_configuration
import random_cosyvoice2
from support import DATA, GOLDEN
from tokenizers import Tokenizer

from edgepack.errors import EdgepackError, UnsupportedError, UsageError
from edgepack.model.checkpoint import tokenizer
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.families.cosyvoice2 import FAMILY

RECORDED = json.loads((GOLDEN / "common" / "tokenizer.json").read_text("utf-8"))
SMALL = DATA / "checkpoints" / "cosyvoice2-s2" / "CosyVoice-BlankEN"
ROWS = 1216
VOCABULARY = ["vocab.json", "merges.txt", "tokenizer_config.json"]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """The tokenizer of a full-size CosyVoice2."""
    folder = tmp_path_factory.mktemp("full")
    random_cosyvoice2.text_files(folder, random_configuration.Size(), random_cosyvoice2.QWEN2)
    return Tokenizer.from_str(FAMILY.tokenizer(Checkpoint(folder, "cosyvoice2.yaml")))


@pytest.fixture
def small(tmp_path: Path) -> Checkpoint:
    """A folder `t` with a small vocabulary; its files are links: replace them."""
    shutil.copytree(SMALL, tmp_path / "t", copy_function=os.link)
    (tmp_path / "t" / "tokenizer.json").unlink()
    return Checkpoint(tmp_path, "")


def put(checkpoint: Checkpoint, name: str, data: bytes | None) -> None:
    """Replace or remove a file of the tokenizer."""
    path = checkpoint.folder / "t" / name
    path.unlink(missing_ok=True)
    if data is not None:
        path.write_bytes(data)


def added(content: dict[str, object]) -> bytes:
    return json.dumps({"added_tokens_decoder": content}).encode()


@pytest.mark.parametrize("item", RECORDED["items"], ids=lambda item: item["text"][:12])
def test_text_has_the_ids_of_the_original(full: Tokenizer, item: dict[str, object]) -> None:
    assert full.encode(str(item["text"])).ids == item["cosyvoice2"]


def test_special_tokens_have_the_ids_of_the_original(full: Tokenizer) -> None:
    wanted = RECORDED["cosyvoice2_added"]
    assert {token: full.token_to_id(token) for token in wanted} == wanted
    assert full.get_vocab_size() == RECORDED["len_cosyvoice2"]
    for token, number in wanted.items():
        assert full.encode(f"a{token}b").ids[1] == number


def test_both_forms_of_a_tokenizer_are_the_same(small: Checkpoint) -> None:
    one = Tokenizer.from_str(tokenizer.build(small, "t", ["<x>"], ROWS))
    put(small, "tokenizer.json", (SMALL / "tokenizer.json").read_bytes())
    for name in VOCABULARY:
        put(small, name, None)
    other = Tokenizer.from_str(tokenizer.build(small, "t", ["<x>"], ROWS))
    assert one.get_vocab() == other.get_vocab()
    for item in RECORDED["items"]:
        assert one.encode(item["text"] + "<x>").ids == other.encode(item["text"] + "<x>").ids


def test_a_token_that_is_there_is_not_added_again(small: Checkpoint) -> None:
    plain = Tokenizer.from_str(tokenizer.build(small, "t", [], ROWS))
    again = Tokenizer.from_str(tokenizer.build(small, "t", ["<|im_start|>", "<x>"], ROWS))
    assert again.token_to_id("<|im_start|>") == plain.token_to_id("<|im_start|>")
    assert again.token_to_id("<x>") == plain.get_vocab_size()


@pytest.mark.parametrize("name", VOCABULARY)
@pytest.mark.parametrize("data", [None, b"", b"\xff\xfe", b"[1]", b'{"a": "b"}', b"a b c d\n"])
def test_a_damaged_file_is_refused_in_one_line(
    small: Checkpoint, name: str, data: bytes | None
) -> None:
    if name != "vocab.json" and data in (b"", b'{"a": "b"}'):
        data = b"\xff"  # merges may be empty, and other settings are none of ours
    put(small, name, data)
    with pytest.raises(EdgepackError) as caught:
        tokenizer.build(small, "t", [], ROWS)
    assert caught.value.exit_code == UsageError.exit_code
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b'{"version": "1.0"', b"\xff"])
def test_a_damaged_tokenizer_file_is_refused(small: Checkpoint, data: bytes) -> None:
    put(small, "tokenizer.json", data)
    with pytest.raises(UsageError, match=r"tokenizer\.json: not a readable tokenizer"):
        tokenizer.build(small, "t", [], ROWS)


@pytest.mark.parametrize(
    "content",
    [{"856": "<a>"}, {"856": None}, {"856": {}}, {"x": {"content": "<a>"}}, {"9" * 5000: {}}],
    ids=["text", "null", "no content", "no number", "digits"],
)
def test_a_damaged_table_of_added_tokens_is_refused(
    small: Checkpoint, content: dict[str, object]
) -> None:
    put(small, "tokenizer_config.json", added(content))
    with pytest.raises(UsageError, match="added_tokens_decoder: not a table of tokens"):
        tokenizer.build(small, "t", [], ROWS)


@pytest.mark.parametrize("number", [0, 855, 857])
def test_an_added_token_gets_the_id_it_says_or_none(small: Checkpoint, number: int) -> None:
    put(small, "tokenizer_config.json", added({str(number): {"content": "<a>"}}))
    with pytest.raises(UnsupportedError, match=f"<a> should be id {number} but would be 856"):
        tokenizer.build(small, "t", [], ROWS)


def test_every_id_has_a_row(small: Checkpoint) -> None:
    count = Tokenizer.from_str(tokenizer.build(small, "t", [], ROWS)).get_vocab_size()
    tokenizer.build(small, "t", ["<x>"], count + 1)
    with pytest.raises(UnsupportedError, match="do not belong together"):
        tokenizer.build(small, "t", ["<x>"], count)


def test_an_id_far_beyond_the_others_needs_a_row_too(small: Checkpoint) -> None:
    vocabulary = json.loads((SMALL / "vocab.json").read_text("utf-8"))
    put(small, "vocab.json", json.dumps(vocabulary | {"ĠĠĠĠ": ROWS}).encode())
    put(small, "tokenizer_config.json", b"{}")
    with pytest.raises(UnsupportedError, match=f"token id {ROWS} for {ROWS} embedding rows"):
        tokenizer.build(small, "t", [], ROWS)


def test_two_tokens_with_one_id_are_refused(small: Checkpoint) -> None:
    vocabulary = json.loads((SMALL / "vocab.json").read_text("utf-8"))
    first, second, *_ = vocabulary
    put(small, "vocab.json", json.dumps(vocabulary | {second: vocabulary[first]}).encode())
    with pytest.raises(UsageError, match=f"have one id, {vocabulary[first]}"):
        tokenizer.build(small, "t", [], ROWS)


def test_two_tokens_with_one_id_are_refused_in_the_other_form_too(small: Checkpoint) -> None:
    tree = json.loads((SMALL / "tokenizer.json").read_text("utf-8"))
    first, second, *_ = tree["model"]["vocab"]
    tree["model"]["vocab"][second] = tree["model"]["vocab"][first]
    put(small, "tokenizer.json", json.dumps(tree).encode())
    with pytest.raises(UsageError, match="have one id"):
        tokenizer.build(small, "t", [], ROWS)


@pytest.mark.parametrize("line", ["a b", "a\u4e2d b", "zz a"])
def test_what_is_merged_is_in_the_vocabulary(
    small: Checkpoint, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The library would panic, with a backtrace."""
    put(small, "vocab.json", b'{"a": 0, "b": 1}')
    put(small, "merges.txt", line.encode())
    with pytest.raises(UsageError, match=r"merges\.txt: merges '.*', which are not in the vocab"):
        tokenizer.build(small, "t", [], ROWS)
    assert capfd.readouterr().err == ""
