"""Cleaning text, splitting it into utterances, reading numbers."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from repeatable import repeatable
from support import DATA, GOLDEN

from edgepack.errors import IntegrityError, UsageError
from edgepack.model.checkpoint import tokenizer
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.runtime.text.front_end import Frontend, spell_out_numbers, split
from edgepack.runtime.text.normalization import Normalization
from edgepack.runtime.text.plain import plain

END_OF_PROMPT = "<|endofprompt|>"
SMALL = DATA / "checkpoints" / "cosyvoice2-s2" / "CosyVoice-BlankEN" / "tokenizer.json"
ITEMS = json.loads((GOLDEN / "common" / "text_normalize.json").read_text("utf-8"))["items"]

SENTENCES = st.text(st.sampled_from("ab 世界，。！：、—（.?!;:\"”'`²1 ٣\n<|>"), max_size=200)
ANYTHING = st.one_of(SENTENCES, st.text(max_size=60))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Frontend:
    """Over the full vocabulary, which the recorded utterances were counted with."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    path.write_text(
        tokenizer.build(Checkpoint(DATA, ""), "qwen2-tokenizer", [END_OF_PROMPT], 151936), "utf-8"
    )
    return Frontend.open(path, END_OF_PROMPT)


@pytest.fixture(scope="module")
def small() -> Frontend:
    return Frontend.open(SMALL, END_OF_PROMPT)


def letters(text: str) -> str:
    return "".join(c for c in text if c.isalpha())


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item["text"][:12] or "nothing")
def test_text_becomes_what_the_original_makes_of_it(full: Frontend, item: dict[str, Any]) -> None:
    assert full.clean(item["text"]) == item["none"]
    wanted = [piece for piece in item["none_split"] if piece]
    if wanted:
        assert full.utterances(item["text"]) == wanted
    else:
        with pytest.raises(UsageError, match="nothing to speak"):
            full.utterances(item["text"])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n ",
        "...",
        "。！？",
        "$",
        '"”',
        "❤️",
        "☺️👍",
        "😀",
        *"\u200b\u2060\ufeff\u3164\u202e\u0301",
    ],
)
def test_text_without_a_word_is_refused(small: Frontend, text: str) -> None:
    with pytest.raises(UsageError, match="nothing to speak"):
        small.utterances(text)


@pytest.mark.parametrize("text", ["good\udcff morning", "你\udcff好"])
def test_text_that_is_not_unicode_is_refused(small: Frontend, text: str) -> None:
    with pytest.raises(UsageError, match="not valid Unicode"):
        small.ids(text)


@repeatable
@given(ANYTHING)
@example('."a')
@example("世 ")
def test_any_text_gives_pieces_or_an_error(small: Frontend, text: str) -> None:
    try:
        pieces = small.utterances(text)
    except UsageError:
        assert not letters(plain(text))
    else:
        assert pieces
        assert all(small.ids(piece) for piece in pieces)


@repeatable
@given(ANYTHING.filter(lambda text: not any(c.isdigit() for c in text)))
def test_no_letter_is_lost_or_moved(small: Frontend, text: str) -> None:
    if letters(plain(text)):
        assert letters("".join(small.utterances(text))) == letters(plain(text))


@pytest.mark.parametrize(
    ("text", "chinese", "pieces"),
    [
        ("a", False, ["a."]),
        ("你", True, ["你。"]),
        ("a.. b!?", False, ["a. b!"]),
        (".a.", False, ["a."]),
        ('a."b', False, ['a."b.']),
        ("", False, []),
        ("a,b、c", False, ["a,b、c."]),
        (f"{'a' * 59}.{'b' * 20}.", False, [f"{'a' * 59}.{'b' * 20}."]),
        (f"{'a' * 60}.{'b' * 18}.", False, [f"{'a' * 60}.{'b' * 18}."]),
        (f"{'a' * 60}.{'b' * 19}.", False, [f"{'a' * 60}.", f"{'b' * 19}."]),
        (f"{'a' * 80}.{'b' * 18}.", False, [f"{'a' * 80}.{'b' * 18}."]),
        (f"{'a' * 80}.{'b' * 19}.", False, [f"{'a' * 80}.", f"{'b' * 19}."]),
    ],
    ids=[
        "mark added", "chinese mark added", "mark after mark", "mark first", "quote kept",
        "nothing", "commas do not split", "60 is too short to end", "80 fit", "81 do not",
        "19 join", "20 do not",
    ],
)  # fmt: skip
def test_sentences_become_utterances(text: str, chinese: bool, pieces: list[str]) -> None:
    assert split(text, chinese, len) == pieces


@repeatable
@given(st.lists(st.integers(1, 70), min_size=1, max_size=12))
def test_utterances_are_neither_long_nor_short(lengths: list[int]) -> None:
    pieces = split("".join("a" * (n - 1) + "." if n > 1 else "b." for n in lengths), False, len)
    sizes = [len(piece) for piece in pieces]
    assert all(60 < size <= 60 + 70 for size in sizes[:-1])
    assert len(sizes) == 1 or 20 <= sizes[-1] <= 60 + 70 + 19


PHRASE = "今天天气很好我们一起去公园"


@pytest.mark.parametrize(
    "text",
    [
        *(PHRASE * count for count in (20, 40, 100)),
        f"{PHRASE}，" * 40,
        "the quick brown fox jumps over the lazy dog and " * 40,
        "one, two, " * 200,
        "A" * 1000,
        "A" * 20_000,
        "你" + "A" * 2000,
        "a-" * 2000,
        "Привет мир " * 100,
    ],
    ids=lambda text: f"{text[:6]}-{len(text)}",
)
def test_an_utterance_has_an_upper_bound(full: Frontend, small: Frontend, text: str) -> None:
    for frontend in (full, small):
        pieces = frontend.utterances(text)
        chinese = any("\u4e00" <= c <= "\u9fff" for c in text)
        sizes = [len(piece) if chinese else len(frontend.ids(piece)) for piece in pieces]
        assert max(sizes) <= 150
        assert len(pieces) == 1 or max(sizes) <= 82
        assert letters("".join(pieces)) == letters(text)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("one two three, " * 60, " three,"),
        ("one two three " * 60, r" (one|two|three),"),
        (f"{'只有逗号' * 5}，" * 10, "逗号，"),
        ("这里没有标点" * 40, "[这里没有标点]，"),
    ],
)
def test_it_is_cut_at_the_best_place(full: Frontend, text: str, end: str) -> None:
    first, *_ = full.utterances(text)
    assert re.search(f"{end}$", first)


def test_marked_text_is_not_endless(small: Frontend) -> None:
    with pytest.raises(UsageError, match=r"one piece, and this has \d+ tokens; at most 500"):
        small.utterances(f"{'word ' * 501}{END_OF_PROMPT}")


def test_marked_text_is_left_alone(small: Frontend) -> None:
    text = f" Speak 1 word.{END_OF_PROMPT} And 2. （好）"
    assert small.utterances(text) == [text]
    assert small.clean(text) == text.strip()


@dataclass(frozen=True)
class Read(Normalization):
    """Takes every text to be in one language, and marks what it has read."""

    code: str = "en"

    def language(self, text: str) -> str:
        return self.code

    def __call__(self, text: str, *how: object) -> str:
        return f"{text}-2-"


@pytest.mark.parametrize(
    ("code", "text", "spoken"),
    [
        ("en", "use 3 words", "use three words-two-."),
        ("de", "3 Worte", "3 Worte-2-."),
        ("zh", "说字", "说字-2-。"),
    ],
)
def test_a_reader_of_numbers_and_dates_goes_first(
    small: Frontend, code: str, text: str, spoken: str
) -> None:
    assert replace(small, normalize=Read({}, code=code)).utterances(text) == [spoken]


def test_a_text_that_is_too_long_is_refused(small: Frontend) -> None:
    for use in (small.utterances, small.clean):
        with pytest.raises(UsageError, match="100001 characters; at most 100000 are spoken"):
            use("a " * 50_000 + "b")


def test_an_instruction_ends_the_prompt_once(full: Frontend) -> None:
    (end,) = full.ids(END_OF_PROMPT)
    ids = full.instruction("慢一点")
    assert ids == [*full.ids("慢一点"), end]
    assert full.instruction(f"慢一点{END_OF_PROMPT}") == ids
    assert full.instruction("慢\u200b一点😀") == ids


def test_an_instruction_is_not_endless(small: Frontend) -> None:
    with pytest.raises(UsageError, match=r"the instruction has \d+ tokens; at most 500"):
        small.instruction("slowly " * 500)


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(SMALL.read_text("utf-8")[:-100], "utf-8")
    with pytest.raises(IntegrityError, match=r"tokenizer\.json: not a readable tokenizer"):
        Frontend.open(path, END_OF_PROMPT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("room 12b", "room twelveb"),
        ("3.50", "three.fifty"),
        ("٣ x² ①", "three xtwo one"),
        ("½ Ⅷ 三", "½ Ⅷ 三"),
        ("9" * 40, " ".join(["nine"] * 40)),
        ("1" * 5000, " ".join(["one"] * 5000)),
    ],
    ids=["whole", "runs", "other scripts", "not digits", "beyond names", "beyond int"],
)
def test_digits_become_words(text: str, words: str) -> None:
    assert spell_out_numbers(text) == words


@repeatable
@given(st.text())
def test_no_digit_is_left(text: str) -> None:
    assert not any(c.isdigit() for c in spell_out_numbers(text))
