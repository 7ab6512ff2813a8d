"""What of a text can be heard, and the plain forms of what is written in several ways."""

import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from repeatable import repeatable

from edgepack.runtime.text.plain import heard, is_ignorable, plain

UNHEARD = {
    "zero-width space": "\u200b",
    "zero-width joiner": "\u200d",
    "word joiner": "\u2060",
    "byte-order mark": "\ufeff",
    "soft hyphen": "\xad",
    "bidirectional mark": "\u202e",
    "Hangul filler": "\u3164",
    "half-width Hangul filler": "\uffa0",
    "variation selector": "\ufe0f",
    "tag": "\U000e0061",
    "control": "\x07",
    "private use": "\ue000",
    "noncharacter": "\uffff",
    "replacement character": "\ufffd",
}


@pytest.mark.parametrize("character", UNHEARD.values(), ids=UNHEARD)
@pytest.mark.parametrize(("before", "after"), [("今天", "天气"), ("co", "op"), ("при", "вет")])
def test_what_cannot_be_heard_is_left_out(before: str, after: str, character: str) -> None:
    assert plain(before + character + after).replace(" ", "") == before + after
    assert plain(character) == ""


@pytest.mark.parametrize(
    "emoji", ["😀", "❤️", "❤", "☺️👍", "👍🏽", "👨\u200d👩\u200d👧", "🇩🇪", "★", "→", "▶️", "🫨"]
)
def test_emoji_are_blanks_between_words_and_nothing_elsewhere(emoji: str) -> None:
    assert plain(emoji) == ""
    assert plain(f"Hi{emoji}there") == plain(f"Hi {emoji} there") == "Hi there"
    assert plain(f"Great {emoji}!") == "Great !"
    assert plain(f"Great{emoji}!") == "Great!"


@pytest.mark.parametrize("text", ["20 °C", "20 ℃", "№ 5", "™ © ®", "① ½ Ⅷ ²", "a + b = c", "$€£"])
def test_signs_that_are_read_stay(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("“go” it’s", '"go" it\'s'),
        ("5\u202fkg 6\u00a0m\u30007\tcm", "5 kg 6 m 7 cm"),
        ("Ａ１，５％！", "A1,5%!"),
        ("共５％，好！", "共5%，好！"),
        ("ｶﾞ", "ガ"),
        ("cafe\u0301", "café"),
        ("1\ufe0f\u20e3", "1"),
        ("  a  \r\n\x0b b\u2028c ", "a\n\nb\nc"),
        ("\u0301a \u0301b", "a b"),
        ("x\u0302 हिन्दी", "x\u0302 हिन्दी"),
    ],
)
def test_it_speaks_as_its_plain_form(text: str, same: str) -> None:
    assert plain(text) == same


@repeatable
@given(st.text())
def test_plain_text_is_plain(text: str) -> None:
    found = plain(text)
    assert plain(found) == found
    assert unicodedata.is_normalized("NFC", found)


def test_ignorable_is_what_unicode_says() -> None:
    wanted = regex.compile(r"[\p{Default_Ignorable_Code_Point}\p{Cf}]")
    known = (c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs"))
    assert not [c for c in known if bool(wanted.match(c)) != is_ignorable(c)]


def test_every_emoji_is_left_out() -> None:
    wanted = regex.compile(r"(?V1)[\p{Emoji_Presentation}&&\p{So}]")
    found = [c for c in map(chr, range(0x110000)) if wanted.match(c) and heard(c)]
    assert not [c for c in found if not unicodedata.decomposition(c)]  # 🈚 is a letter in a square
