"""Everyday text is read as people read it, and rules take time in proportion to it."""

import time

import pytest
from reading_cases import CODES, Case, cases, frontend, wrong

from edgepack.runtime.text.normalizers import _rules_en, _rules_zh
from edgepack.runtime.text.normalizers._rules import Rule, roman

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
        "The part Mark I think played, Step I took.",
        "他走X型路线，V级",
        "我和他在一起。",
        "She said May I go? It may.",
    ],
)
def test_letters_are_no_numbers(text: str) -> None:
    assert READER.clean(text) == text


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("这座100米高的楼200人住", "这座一百米高的楼二百人住"),
        ("花了5元200克", "花了五元二百克"),
        ("代码500行，密码123456", "代码五百行，密码一二三四五六"),
        ("转500元给他", "转五百元给他"),
        ("订单100个", "订单一百个"),
        ("NBA 300场", "NBA三百场"),
        ("It has 40 MB, 5 kg.", "It has forty megabytes, five kilograms."),
    ],
)
def test_numbers_that_count_are_no_names(text: str, spoken: str) -> None:
    assert READER.clean(text).replace("两百", "二百") == spoken


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
