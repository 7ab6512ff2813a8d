"""Grammars of WeTextProcessing: what they make of text, and of files that are none."""

import hashlib
import json
import re
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import GOLDEN

from edgepack.builder.grammars import grammars
from edgepack.errors import IntegrityError, UnsupportedError
from edgepack.runtime.text.front_end import Frontend
from edgepack.runtime.text.normalization import (
    Normalization,
    Normalize,
    Reader,
    normalizer,
)
from edgepack.runtime.text.normalizers import _wfst_trial
from edgepack.runtime.text.normalizers._wfst_grammar import Grammar

ITEMS = json.loads((GOLDEN / "common" / "text_normalize.json").read_text("utf-8"))["items"]
LOCALES = ("zh", "en", "ja")


@pytest.fixture(scope="module")
def readers() -> dict[str, Normalize]:
    return {locale: normalizer("wfst").open(locale, grammars("wfst", locale)) for locale in LOCALES}


@pytest.fixture(scope="module")
def frontend() -> Frontend:
    """What the original does around the grammars; no tokenizer is needed for that."""
    readers = {code: Reader("wfst", code, grammars("wfst", code)) for code in ("zh", "en")}
    return Frontend(None, "<|endofprompt|>", Normalization(readers))


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["text"][:12] or "nothing")
def test_text_becomes_what_the_original_makes_of_it_with_wetext(
    frontend: Frontend, item: dict[str, Any]
) -> None:
    assert frontend.clean(item["text"]) == item["wetext"]


@pytest.mark.parametrize(
    ("locale", "text", "spoken"),
    [
        ("zh", "3/4的人12:30开会", "四分之三的人十二点三十分开会"),
        ("en", "On Jan. 5, 2024", "On the fifth of january, twenty twenty four"),
        ("ja", "2024年5月6日は100円", "二千二十四年五月六日は百円"),
        ("zh", " 没有 \n", "没有"),
        ("en", 'She said "go" twice.', 'She said "go" twice.'),
        ("en", r"C:\dir has 5", r"C:\dir has five"),
        ("zh", r'他说"走"5次，C:\dir', r'他说"走"五次，C:\dir'),
        ("ja", r'"5"個、C:\dir', r'"五"個、C:\dir'),
    ],
)
def test_it_is_read_aloud(
    readers: dict[str, Normalize], locale: str, text: str, spoken: str
) -> None:
    assert readers[locale](text) == spoken


@pytest.mark.parametrize(
    ("locale", "sentence", "spoken"),
    [
        ("zh", "今天是5月6日。", "今天是五月六日。"),
        ("en", "It has 42 days. ", "It has forty two days. "),
        ("ja", "今日は5月6日。", "今日は五月六日。"),
    ],
)
def test_a_long_text_is_read_like_its_sentences(
    readers: dict[str, Normalize], locale: str, sentence: str, spoken: str
) -> None:
    assert readers[locale](sentence * 200) == (spoken * 200).strip()


@pytest.mark.parametrize("run", ["-", "1/", "|>", "\u0663", '"', "1:", "- "])
@pytest.mark.parametrize("before", ["x", "你"])
def test_a_run_of_signs_is_read_in_little_time(frontend: Frontend, before: str, run: str) -> None:
    frontend.clean(f"{before}1\u0663")  # loads the language
    start = time.thread_time()
    assert frontend.clean(before + run * (4000 // len(run)))
    assert time.thread_time() - start < 4000 * 0.0004


def test_other_threads_do_not_wait_for_a_long_text() -> None:
    calls: list[str] = []

    def tagger(text: str) -> str:
        calls.append(text)
        return 'w { v: "word" }'

    read = Grammar(tagger, str, {}, needs_digit=False)
    read("On Sept. 5 it cost 12.50. Then 1 2 3 4 5 6 7. " * 50)
    assert max(map(len, calls)) <= 200  # kaldifst holds the interpreter's lock for each
    assert not [call for call in calls if re.match(r"\d", call)]


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Hello.\n\nIt costs $5.", "Hello. It costs five dollars."),
        ("Hello.\r\n  It costs $12.50.", "Hello. It costs twelve point five dollars."),
        ("12:00\u202fPM", "twelve PM"),
        ("5\u00a0kg", "five kilograms"),
        ("a  b\t5", "a b five"),
        ("今天\u200b5\u00a0kg\r\n\r\n共５％。", "今天五千克。共百分之五。"),
    ],
)
def test_blanks_and_lines_do_not_turn_reading_off(
    frontend: Frontend, text: str, spoken: str
) -> None:
    assert frontend.clean(text) == spoken


PIECES = st.sampled_from([*'0123456789.,:/%$￥"\\{}[] \n', "km", "年", "月", "你", "は", "\x00"])


@pytest.mark.parametrize("locale", LOCALES)
@settings(derandomize=True, deadline=None, database=None, max_examples=30)
@given(st.one_of(st.lists(PIECES, max_size=12).map("".join), st.text(max_size=20)))
def test_any_text_is_read(readers: dict[str, Normalize], locale: str, text: str) -> None:
    assert bool(readers[locale](text)) == bool(text.strip())


def test_text_that_is_not_unicode_is_left_as_it_is(readers: dict[str, Normalize]) -> None:
    assert readers["zh"]("5月\udcff") == "五月\udcff"


def test_what_a_grammar_refuses_is_left_by_itself_and_told(readers: dict[str, Normalize]) -> None:
    refused: list[str] = []
    text = "On Jan. 5, 2024 it cost $12.50 [$3] x[5]=y, or 3 kg."
    spoken = readers["en"](text, refused.append)
    assert spoken == (
        "On the fifth of january, twenty twenty four it cost twelve point five dollars "
        "[three dollars] x[5]=y, or three kilograms."
    )
    assert refused == ["x[5]=y"]


@pytest.mark.parametrize("content", [None, b"", b"no transducer" * 100, "half"])
def test_a_file_that_is_no_grammar_is_refused(tmp_path: Path, content: bytes | str | None) -> None:
    tagger, verbalizer = grammars("wfst", "ja")
    broken = tmp_path / "tagger.fst"
    if content == "half":
        content = tagger.read_bytes()[: tagger.stat().st_size // 2]
    if isinstance(content, bytes):
        broken.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"tagger\.fst: kaldifst cannot read it"):
        normalizer("wfst").open("ja", [broken, verbalizer])


def test_a_file_that_crashes_kaldifst_is_refused(tmp_path: Path) -> None:
    tagger, verbalizer = grammars("wfst", "ja")
    data = bytearray(tagger.read_bytes())
    first = data.index(b"standard") + len(b"standard") + 40 + 12  # header, then the first state
    data[first + 12 : first + 16] = (1 << 30).to_bytes(4, "little")
    (tmp_path / "tagger.fst").write_bytes(data)
    with pytest.raises(IntegrityError, match=r"tagger\.fst: kaldifst cannot read it: it crashed"):
        normalizer("wfst").open("ja", [tmp_path / "tagger.fst", verbalizer])


def test_a_file_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = grammars("wfst", "ja")
    monkeypatch.setattr(_wfst_trial, "known", frozenset)
    monkeypatch.setattr(_wfst_trial, "_WALL_SECONDS", 0.05)
    with pytest.raises(IntegrityError, match=r"tagger\.fst: .* not done after 0\.05 s"):
        normalizer("wfst").open("ja", files)


def test_another_grammar_is_tried_and_then_read_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    real = _wfst_trial._failure

    def failure(locale: str, files: Sequence[Path]) -> str | None:
        tried.append(locale)
        return real(locale, files)

    monkeypatch.setattr(_wfst_trial, "_failure", failure)
    tagger, verbalizer = grammars("wfst", "ja")
    assert normalizer("wfst").open("ja", [tagger, verbalizer])("5月") == "五月"
    assert tried == []
    other = tmp_path / "tagger.fst"
    other.write_bytes(tagger.read_bytes() + b" ")
    assert normalizer("wfst").open("ja", [other, verbalizer])("5月") == "五月"
    assert tried == ["ja"]


@pytest.mark.parametrize("locale", LOCALES)
def test_the_grammars_of_the_package_are_known(locale: str) -> None:
    hashes = {hashlib.sha256(file.read_bytes()).hexdigest() for file in grammars("wfst", locale)}
    if metadata.version("wetext") == "0.1.8":
        assert hashes <= _wfst_trial.known()


def test_a_grammar_is_two_files() -> None:
    with pytest.raises(IntegrityError, match="not 1 files"):
        normalizer("wfst").open("ja", grammars("wfst", "ja")[:1])


def test_an_unknown_locale_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="'xx'; known: zh, ja, en"):
        normalizer("wfst").open("xx", [])
    with pytest.raises(UnsupportedError, match="no grammar of 'xx'"):
        grammars("wfst", "xx")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaldifst", None)
    with pytest.raises(UnsupportedError, match="pip install kaldifst"):
        normalizer("wfst").open("zh", [])


def test_other_normalisers_need_no_grammars() -> None:
    assert grammars("cldr", "de") == []


@pytest.mark.parametrize("row", ["7", "1/", "1,", "٣", "3."])
@pytest.mark.parametrize("code", ["zh", "en"])
def test_rows_of_digits_are_read_in_little_time(
    readers: dict[str, Normalize], code: str, row: str
) -> None:
    count = 20_000 // len(row)
    readers[code]("1")
    start = time.thread_time()
    spoken = readers[code](row * count)
    assert time.thread_time() - start < 20_000 * 40e-6
    assert not re.search(r"\d", spoken)
    assert len(spoken) >= count


def test_digits_of_a_row_are_words(readers: dict[str, Normalize]) -> None:
    assert readers["zh"]("号码" + "12" * 25 + "。") == "号码" + "一二" * 25 + "。"
    assert readers["en"]("1" * 45).split() == ["one"] * 45
