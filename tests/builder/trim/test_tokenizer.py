"""Trimmed tokenization is the original's, at the scale of the real Qwen2 vocabulary."""

import json
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from edgepack.builder.trim.alphabet import alphabet
from edgepack.builder.trim.bpe import trim
from edgepack.builder.trim.vocabulary import Units
from edgepack.errors import UnsupportedError
from edgepack.profiles import language
from trim.conftest import Trim

SETS = [("zh",), ("ja",), ("ko",), ("en",), ("zh", "en"), ("ru",), ("de",)]
STRINGS = 10_000


def same(whole: Tokenizer, made: tuple[object, Tokenizer], texts: list[str]) -> None:
    """Assert that every text has the same tokens in both."""
    result, small = made
    wanted = whole.encode_batch(texts, add_special_tokens=False)
    found = small.encode_batch(texts, add_special_tokens=False)
    for text, one, other in zip(texts, wanted, found, strict=True):
        assert result.rows[other.ids].tolist() == one.ids, repr(text)  # type: ignore[attr-defined]


def pieces(whole: Tokenizer, codes: tuple[str, ...], rows: np.ndarray) -> list[list[str]]:
    """What strings are put together from: all characters, common ones, whole tokens, marks."""
    characters = sorted(alphabet(codes))
    known = set(characters)
    decoded = (whole.decode([row]) for row in rows.tolist())
    words = [text for text in decoded if set(unicodedata.normalize("NFC", text)) <= known]
    common = [c for c in characters if c < "\u0250" or "\u2010" <= c < "\u2030"]
    return [characters, common, words, [" ", "\n", "  ", "0", "2024", ".", "!?", "3.5%"]]


@pytest.mark.parametrize("codes", SETS, ids="+".join)
def test_generated_strings(whole: Tokenizer, trimmed: Trim, codes: tuple[str, ...]) -> None:
    made = trimmed(codes)
    pools = [np.array(pool, object) for pool in pieces(whole, codes, made[0].rows)]
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(STRINGS):
        parts = [
            rng.choice(pools[kind]) for kind in rng.integers(0, len(pools), rng.integers(1, 30))
        ]
        texts.append("".join(parts))
    same(whole, made, texts)


@pytest.mark.parametrize("codes", SETS, ids="+".join)
def test_strings_that_a_search_finds(
    whole: Tokenizer, trimmed: Trim, codes: tuple[str, ...]
) -> None:
    made = trimmed(codes)
    piece = st.one_of(*map(st.sampled_from, pieces(whole, codes, made[0].rows)))

    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    @given(st.lists(piece, max_size=12).map("".join))
    def check(text: str) -> None:
        same(whole, made, [text])

    check()


@pytest.mark.parametrize("codes", SETS, ids="+".join)
def test_sentences(whole: Tokenizer, trimmed: Trim, codes: tuple[str, ...]) -> None:
    same(whole, trimmed(codes), [s for code in codes for s in language.sentences(code)])


@pytest.mark.parametrize(
    ("codes", "limit"), [(("zh",), 34_000), (("ja",), 36_000), (("ko",), 11_500), (("ru",), 12_000)]
)
def test_size(trimmed: Trim, codes: tuple[str, ...], limit: int) -> None:
    assert len(trimmed(codes)[0].rows) <= limit


def test_bytes_and_special_tokens_stay_in_order(whole: Tokenizer, trimmed: Trim) -> None:
    result, small = trimmed(("zh",))
    specials = sorted(whole.get_added_tokens_decoder().items())
    kept = sorted(small.get_added_tokens_decoder().items())
    assert [t.content for _, t in kept] == [t.content for _, t in specials]
    assert [int(result.rows[number]) for number, _ in kept] == [number for number, _ in specials]
    assert [number for number, _ in kept] == list(
        range(len(result.rows) - len(kept), len(result.rows))
    )
    assert set(result.rows[:256]) == set(range(256))
    assert (np.diff(result.rows) > 0).all()


@pytest.mark.parametrize("text", ["Wi-Fi", "Привет 🙂", "\x00\x7f", "한국어", "naïve café", ""])
def test_text_outside_still_encodes_without_loss(trimmed: Trim, text: str) -> None:
    _, small = trimmed(("zh",))
    assert small.decode(small.encode(text).ids) == text


def test_text_outside_really_differs(whole: Tokenizer, trimmed: Trim) -> None:
    _, small = trimmed(("zh",))
    assert len(small.encode("international").ids) > len(whole.encode("international").ids)


def test_kept_words_tokenize_as_before(qwen2: str, whole: Tokenizer) -> None:
    words = ["Wi", "Fi", "CosyVoice", "é"]
    result = trim(qwen2, Units(alphabet(["zh"]), words))
    small = Tokenizer.from_str(result.tokenizer)
    texts = ["打开Wi-Fi吧", "用 CosyVoice 说话", "CosyVoice,Wi!", "é好", "Wi 2 Fi"]
    same(whole, (result, small), texts)


def test_single_ids_can_be_kept(qwen2: str, whole: Tokenizer) -> None:
    wanted = whole.encode("international", add_special_tokens=False).ids
    assert set(wanted) <= set(trim(qwen2, Units(alphabet(["zh"])), wanted).rows.tolist())


def test_a_token_that_is_not_made_of_bytes_is_refused(qwen2: str) -> None:
    tree = json.loads(qwen2)
    tree["model"]["vocab"]["中"] = len(tree["model"]["vocab"]) + 1000
    with pytest.raises(UnsupportedError, match="token '中' is not made of bytes"):
        trim(json.dumps(tree), Units("a"))


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"post_processor": {"type": "BertProcessing", "sep": ["a", 0], "cls": ["b", 1]}},
    ],
)
def test_other_tokenizers_are_refused(qwen2: str, change: dict[str, object]) -> None:
    with pytest.raises(UnsupportedError, match="trimmed"):
        trim(json.dumps(json.loads(qwen2) | change), Units("a"))
