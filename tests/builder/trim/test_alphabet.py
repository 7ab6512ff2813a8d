"""Alphabets, units and words outside."""

import unicodedata

import pytest

from edgepack.builder.trim.alphabet import alphabet
from edgepack.builder.trim.vocabulary import Units, token_bytes
from edgepack.profiles import language


@pytest.mark.parametrize(
    ("code", "inside", "outside"),
    [
        ("zh", "你㐀𠀀々，。！“”（）％￥℃①12", "aéあ한Жα🙂"),
        ("ja", "あア漢々ー「」、。〜", "a한Ж"),
        ("ko", "가힣ㄱ", "a漢あ"),
        ("en", "aZéß’—€", "漢あ한Ж"),
        ("ru", "жЁ№", "a漢"),
    ],
)
def test_scripts_and_marks(code: str, inside: str, outside: str) -> None:
    characters = alphabet([code])
    assert not set(inside) - characters
    assert not set(outside) & characters


@pytest.mark.parametrize("code", language.codes())
def test_normalization_stays_inside(code: str) -> None:
    characters = alphabet([code])
    for form in ("NFC", "NFD"):
        for character in characters:
            assert set(unicodedata.normalize(form, character)) <= characters


def test_languages_add_up() -> None:
    assert alphabet(["zh"]) | alphabet(["en"]) <= alphabet(["zh", "en"])


@pytest.mark.parametrize(
    ("token", "contained"),
    [
        ("中".encode(), True),
        ("中文".encode(), True),
        ("中".encode()[:2], True),
        ("中".encode()[1:], True),
        ("中".encode()[1:2], True),
        ("中".encode()[1:] + "文".encode()[:1], True),
        ("语".encode(), False),
        ("中a".encode(), True),
        (b"ab", True),
        (b"b", True),
        (b"ba", True),
        (b"bb", False),
        (b"xab", False),
        (b"ab" + "中".encode()[:1], True),
        (b"\xff", False),
    ],
)
def test_units_contain_what_lies_inside_text(token: bytes, contained: bool) -> None:
    assert Units("中文", ["ab"]).contain(token) is contained


def test_token_bytes() -> None:
    assert token_bytes("Ġä¸Ń") == b" \xe4\xb8\xad"
    with pytest.raises(KeyError):
        token_bytes("中")
