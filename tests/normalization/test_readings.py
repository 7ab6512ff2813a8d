"""Everyday text is read as people read it, and rules take time in proportion to it."""

import time

import pytest
from reading_cases import CODES, Case, cases, frontend, wrong

from edgepack.runtime.normalizers import _rules_en, _rules_zh
from edgepack.runtime.normalizers._rules import Rule, roman

READER = frontend()
REPORTED = [*cases("zh")[:13], *cases("en")[:11]]


@pytest.mark.parametrize("case", REPORTED, ids=lambda case: case.text)
def test_reported_text_is_read_right(case: Case) -> None:
    spoken = READER.clean(case.text)
    assert case.is_read_by(spoken), spoken


@pytest.mark.parametrize("code", CODES)
def test_everyday_sentences_are_read_right(code: str) -> None:
    assert len(cases(code)) > 150
    assert list(wrong(code, READER)) == []


@pytest.mark.parametrize("code", CODES)
def test_the_sentences_tell_readers_apart(code: str) -> None:
    """A reader without rules fails at least a quarter of them."""
    assert len(list(wrong(code, frontend(rules=False)))) > len(cases(code)) / 4


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("$5", "five dollars"),
        ("12:30", "twelve thirty"),
        ("1", "一"),
        ("5，6", "五,六"),
        ("￥5", "五元"),
    ],
)
def test_numbers_and_signs_alone(text: str, spoken: str) -> None:
    assert READER.clean(text) == spoken


@pytest.mark.parametrize(
    "text",
    [
        "I think I am right.",
        "Then Henry I met him later, and Mary I think left.",
        "He can mix it, V or X.",
        "我和他在一起。",
        "She said May I go? It may.",
    ],
)
def test_words_are_no_numbers(text: str) -> None:
    assert READER.clean(text) == text


ROWS = [
    "1,", "1,000", "1.", "a.", "a@", "1-", "1/", "1:", "$1", "X", "IV", "+1 ", "A1", "m", "5 m",
    "@.", "x1", "(0", "Henry V", "http://a", "version ", "May 1", "京A", "第I", "约1/", "电话：",
    "1%-",
    "1 ",
]  # fmt: skip


@pytest.mark.parametrize("rules", [_rules_zh.RULES, _rules_en.RULES], ids=CODES)
def test_rules_take_time_in_proportion_to_a_text(rules: list[Rule]) -> None:
    for row in ROWS:
        for pattern, spoken in rules:
            text = row * (20_000 // len(row))
            start = time.thread_time()
            pattern.sub(spoken, text)
            assert time.thread_time() - start < 0.5, (row, pattern.pattern)


@pytest.mark.parametrize(
    ("numeral", "value"), [("I", 1), ("IV", 4), ("XIV", 14), ("LVIII", 58), ("MCMXC", 1990)]
)
def test_roman_numerals(numeral: str, value: int) -> None:
    assert roman(numeral) == value
