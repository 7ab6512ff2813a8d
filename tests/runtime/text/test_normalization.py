"""Which language a text is in, and who reads it."""

import re
from collections.abc import Sequence

import pytest

from edgepack.builder.grammars import grammars
from edgepack.errors import UsageError
from edgepack.profiles import language
from edgepack.runtime.text.front_end import Frontend
from edgepack.runtime.text.normalization import (
    Normalization,
    Reader,
    language_of,
    normalizer,
    normalizers,
)

ALL = ("zh", "en", "ja", "ko", "ru", "de", "yue")


@pytest.mark.parametrize(
    ("text", "languages", "expected"),
    [
        ("你好 hello", ALL, "zh"),
        ("你好", ("yue", "zh"), "yue"),
        ("日本の2024年", ALL, "ja"),
        ("ｶﾀｶﾅ", ALL, "ja"),
        ("日本", ("en", "ja"), "ja"),
        ("버스 A4", ALL, "ko"),
        ("Москва, WLAN", ALL, "ru"),
        ("naïve", ALL, "en"),
        ("Straße", ("ja", "de", "en"), "de"),
        ("hello", ("zh", "ko"), "zh"),
        ("12:30", ("fr", "zh"), "fr"),
        ("", ("fr", "zh"), "fr"),
        ("\x00\ud800", ("fr", "zh"), "fr"),
    ],
)
def test_a_text_is_in_the_language_of_its_script(
    text: str, languages: Sequence[str], expected: str
) -> None:
    assert language_of(text, languages) == expected


def test_a_language_is_opened_when_it_is_met() -> None:
    read = Normalization({"de": Reader("cldr", "de"), "ru": Reader("none", "ru")})
    assert read.language("7 Tage") == "de"
    assert read("7 Tage") == "sieben Tage"
    with pytest.raises(UsageError, match="'none'"):
        read("7 дней")


def test_a_language_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Normalization({"de": Reader("cldr", "de")})
    first = read("7 Tage")
    monkeypatch.setattr(Reader, "open", None)
    assert read("7 Tage") == first


def test_text_is_left_alone_without_readers() -> None:
    assert Normalization({})("12 %") == "12 %"
    assert Normalization({}).language("12 %") is None


def test_an_unknown_normaliser_is_refused_with_the_closest() -> None:
    assert normalizers() == ["cldr", "wfst"]
    with pytest.raises(UsageError, match="did you mean 'wfst'"):
        normalizer("wfts")


def with_sentences() -> list[str]:
    found = []
    for code in language.codes():
        try:
            language.sentences(code)
        except FileNotFoundError:
            continue
        found.append(code)
    return found


@pytest.mark.parametrize("code", with_sentences())
def test_no_digit_is_left_in_the_sentences_of_a_language(code: str) -> None:
    spoken = language.load(code)
    files = grammars(spoken.normalizer, spoken.locale)
    reader = Reader(spoken.normalizer, spoken.locale, files)
    clean = Frontend(None, "", Normalization({code: reader})).clean
    sentences = language.sentences(code)
    assert any(re.search("[0-9]", sentence) for sentence in sentences)
    assert not [s for s in map(clean, sentences) if re.search("[0-9]", s)]
