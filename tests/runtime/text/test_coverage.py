"""Which text a trimmed tokenizer is exact for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from repeatable import repeatable

from edgepack.runtime.text.coverage import Coverage, from_text, ranges, to_text

LATIN = ranges("abcdefghijklmnopqrstuvwxyz ,.é")


def test_ranges_are_the_characters() -> None:
    found = ranges("abcxyz1")
    assert found == [(0x31, 0x31), (0x61, 0x63), (0x78, 0x7A)]
    assert to_text(found) == "31 61-63 78-7a"


@given(st.frozensets(st.characters()), st.characters())
@repeatable
def test_ranges_contain_what_they_were_made_of(characters: frozenset[str], other: str) -> None:
    known = Coverage(from_text(to_text(ranges(characters))))
    for character in [*characters, other]:
        assert known.contains(character) == (character in characters)


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("hello, world.", []),
        ("café", []),
        ("open WLAN in 中文", ["WLAN", "中文"]),
        ("open TV or TVX", ["TVX"]),
        ("say<|en|> [laughter]it", []),
        ("", []),
    ],
)
def test_foreign_runs_are_whole(text: str, foreign: list[str]) -> None:
    known = Coverage(LATIN, ["TV"], ["<|en|>", "[laughter]", "[la"])
    assert known.foreign(text) == foreign


def test_share_counts_characters() -> None:
    known = Coverage(LATIN)
    assert known.share(["ab中文"]) == 0.5
    assert known.share(["abc", "中"]) == 0.25
    assert known.share([]) == known.share(["", "a"]) == 0.0
