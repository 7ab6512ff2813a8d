"""Lines of a text: lists, verse and paragraphs are sentences, wrapped lines are none."""

import pytest

from edgepack.runtime.text.lines import sentences, together

WRAPPED = "This line is as long as an editor lets it be,\nand goes on in the next one."


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("One line, as it is", "One line, as it is"),
        ("Title\n\nText goes on.", "Title. Text goes on."),
        ("- milk\n- two eggs\n- bread", "milk. two eggs. bread"),
        ("• milk\n• bread!", "milk. bread!"),
        ("1. milk\n2. bread", "1. milk. 2. bread"),
        ("Roses are red\nViolets are blue", "Roses are red. Violets are blue"),
        ("Dear John,\nthank you.", "Dear John, thank you."),
        ('He said "yes!"\nThen he left', 'He said "yes!" Then he left'),
        ("Name\n----\n====\nAge", "Name. Age"),
        (WRAPPED, WRAPPED.replace("\n", " ")),
    ],
)
def test_lines_become_sentences(text: str, spoken: str) -> None:
    assert together(sentences(text, False), False) == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("第一章\n\n今天天气很好。", "第一章。今天天气很好。"),
        ("床前明月光\n疑是地上霜", "床前明月光。疑是地上霜"),
        ("- 牛奶\n- 面包、蛋", "牛奶。面包、蛋"),
        ("一、牛奶\n二、面包", "一、牛奶。二、面包"),
        ("今天天气很好，\n我们去公园", "今天天气很好，我们去公园"),
        ("你好\n世界\n12:30", "你好世界12:30"),
        ("请打开 Word,\nand go", "请打开 Word, and go"),
    ],
)
def test_lines_of_chinese_become_sentences(text: str, spoken: str) -> None:
    assert together(sentences(text, True), True) == spoken
