"""Readings that a user gives for words."""

import time

import pytest
from reading_cases import frontend

from edgepack.errors import UsageError
from edgepack.runtime.text.front_end import Frontend
from edgepack.runtime.text.lexicon import Lexicon, parse

READER = frontend()


class _Characters:
    """A tokenizer for which each character is a token."""

    def encode(self, text: str, add_special_tokens: bool) -> "_Characters":
        assert not add_special_tokens
        self.ids = list(range(len(text)))
        return self


def spoken(text: str, **entries: str) -> str:
    return said(text, entries)


def said(text: str, entries: dict[str, str]) -> str:
    reader = Frontend(_Characters(), READER.end_of_prompt, READER.normalize)
    return "|".join(reader.utterances(text, lexicon=Lexicon(entries)))


@pytest.mark.parametrize(
    ("entries", "text", "reading"),
    [
        ({"nginx": "engine X"}, "Start nginx now.", "Start engine X now."),
        ({"nginx": "engine X"}, "Nginx and NGINX.", "engine X and engine X."),
        ({"US": "you ess"}, "The US told us.", "The you ess told us."),
        ({"cat": "dog"}, "A category of cats: cat.", "A category of cats: dog."),
        ({"GPT": "A", "GPT-4": "B"}, "GPT-4, GPT, GPT4", "B, A, GPT four."),
        ({"GPT-4": "G P T 四"}, "我用GPT-4写3次", "我用G P T 四写三次。"),
        ({"$5": "a fiver"}, "It costs $5 or $50.", "It costs a fiver or fifty dollars."),
        ({"重庆": "崇庆"}, "去重庆市5天", "去崇庆市五天。"),
        ({"行": "[h][áng]"}, "银行", "银[h][áng]。"),
        (
            {"tomato": "[T AH0 M EY1 T OW0]"},
            "A tomato, 5 of it.",
            "A [T AH0 M EY1 T OW0], five of it.",
        ),
        ({"a": "b", "b": "c"}, "a b", "b c."),
        ({"AI": "ei ai"}, "你好 AI 你好 hello AI world", "你好ei ai你好hello ei ai world。"),
        ({"東京": "とうきょう"}, "東京5月", "とうきょう五月。"),
        ({"“x”": "y"}, 'An "x" here.', "An y here."),
        ({"one": "won"}, "one\n\none \U00013001\U00013000", "won. won \U00013001\U00013000."),
        ({"solo": "alone"}, "solo\nsolo", "alone. alone."),
    ],
)
def test_a_word_of_the_lexicon_is_spoken_as_it_says(
    entries: dict[str, str], text: str, reading: str
) -> None:
    assert said(text, entries) == reading


def test_what_is_not_in_the_lexicon_is_read_as_without_it() -> None:
    for text in ("GPT-4 costs $5.", "京A88888和GPT-4"):
        assert spoken(text, other="x") == spoken(text)


def test_many_words_are_told_apart() -> None:
    entries = {f"w{n}x": f"reading of {'ab'[n % 2]} {chr(97 + n % 26)}{n}" for n in range(2500)}
    text = " ".join(f"{word}." for word in entries)
    assert said(text, entries).replace("|", " ").split(". ")[1234].startswith(entries["w1234x"])


def test_a_lexicon_takes_time_in_proportion_to_a_text() -> None:
    lexicon = Lexicon(
        {"a" * n: "b" for n in range(1, 65)} | {f"word{n}": "w" for n in range(20_000)}
    )
    lexicon("x")
    start = time.thread_time()
    lexicon("a" * 20_000)
    lexicon("word1 " * 4000)
    assert time.thread_time() - start < 2


def test_a_file_has_a_word_and_a_reading_on_a_line() -> None:
    text = "\ufeff# comment\n\nnginx => engine X\r\n  GPT-4\tG P T four \nA => B => C\n#x => y\n"
    assert parse(text.encode(), "f") == {"nginx": "engine X", "GPT-4": "G P T four", "A": "B => C"}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a => b\nno reading", "f:2: not a word, a tab or =>, and its reading"),
        (b"\n\n => b", "f:3: a word is missing before its reading"),
        (b"\xe2\x80\x8b => b", "f:1: a word is missing before its reading"),
        (b"a =>  ", "f:1: 'a' has no reading"),
        (b"a => b\na => b\na => c", "f:3: 'a' has another reading above"),
        (b"a" * 65 + b" => c", "f:1: a word has at most 64 characters, a reading 500"),
        (
            b"a => \xff",
            "f: not UTF-8 text; convert it first, such as with 'iconv -f GB18030 -t UTF-8'",
        ),
    ],
)
def test_another_file_is_refused_by_line(data: bytes, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(data, "f")
    assert str(error.value) == message


def test_a_mapping_is_checked_as_a_file_is() -> None:
    with pytest.raises(UsageError, match="lexicon: 'a' has no reading"):
        Lexicon({"a": ""})
