"""The token loop: lengths, ends, and the order in which text and speech are fed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from fakes import fed, language_model, prefer, table
from hypothesis import given
from hypothesis import strategies as st
from repeatable import repeatable
from support import GOLDEN, RECORDED

from edgepack.bundle.host import Sampling
from edgepack.errors import GateError
from edgepack.runtime.stages.decode import Context
from edgepack.runtime.stages.sampling import Sampler, greedy
from edgepack.runtime.strategies.language_model.text_then_speech import Record, TextThenSpeech

END, UNUSED, FILL, START, TASK = 20, 21, 22, 23, 24
TEXT = 100  # ids from here on are text, in these tests
SETTINGS = Record(
    speech_tokens=20, start=START, task=TASK, end=END, fill=FILL, masked_before_min=END,
    min_ratio=2.0, max_ratio=4.0, mix=(2, 3),
    sampling=Sampling(top_p=0.8, top_k=25, window=10, repetition=0.1),
)  # fmt: skip


def decoder(*preferences: Sequence[int], settings: Record = SETTINGS) -> TextThenSpeech:
    """A decoder whose network prefers these ids, one call after the other."""
    logits = [prefer(settings.fill + 1, *ids) for ids in preferences or [()]]
    return TextThenSpeech(settings, table(), table(), language_model(logits))


def blocks(subject: TextThenSpeech) -> list[list[int]]:
    """The ids whose embeddings were fed, call by call."""
    return [block[0, :, 0].tolist() for block in fed(subject.language_model, "embeddings")]


def scripted(ids: Iterable[int]) -> Sampler:
    choices = iter(ids)
    return lambda log_probabilities, history: next(choices)


def test_prefix_holds_all_parts_in_order() -> None:
    prefix = decoder().prefix([TEXT + 2], Context([TEXT, TEXT + 1], [5, 6]))
    assert prefix[0, :, 0].tolist() == [START, TEXT, TEXT + 1, TEXT + 2, TASK, 5, 6]


@pytest.mark.parametrize("stop", [END, UNUSED, FILL])
def test_tokens_are_fed_back_until_a_stop_id(stop: int) -> None:
    subject = decoder([3], [5], [3], [stop])
    tokens = subject.generate([TEXT], greedy, Context([TEXT + 1], [9]))
    assert subject.collect(tokens) == ([3, 5, 3], True)
    assert blocks(subject) == [[START, TEXT + 1, TEXT, TASK, 9], [3], [5], [3]]


@pytest.mark.parametrize(("longest", "count"), [(None, 8), (3, 3)])
def test_limit_counts_the_text_without_the_prompt(longest: int | None, count: int) -> None:
    subject = decoder([7])
    text, prompt_text = [TEXT, TEXT], [TEXT] * 5
    found = subject.collect(subject.generate(text, greedy, Context(prompt_text), longest))
    assert found == ([7] * count, False)


def test_end_is_masked_until_the_least_length() -> None:
    subject = decoder([END, 7])
    tokens = subject.generate([TEXT, TEXT], greedy, Context([TEXT] * 5))
    assert subject.collect(tokens) == ([7] * 4, True)


@pytest.mark.parametrize("stop", [UNUSED, FILL])
def test_other_stop_ids_are_never_masked(stop: int) -> None:
    subject = decoder([stop, 7])
    assert subject.collect(subject.generate([TEXT, TEXT], greedy)) == ([], True)


def test_history_holds_this_utterance_without_the_prompt() -> None:
    seen: list[list[int]] = []

    def sampler(log_probabilities: np.ndarray, history: Sequence[int]) -> int:
        seen.append(list(history))
        return len(seen)

    subject = decoder()
    for _ in range(2):
        seen.clear()
        subject.collect(subject.generate([TEXT], sampler, Context((), [8, 9]), 3))
        assert seen == [[], [1], [1, 2]]
    assert vars(subject.language_model)["resets"] == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("streaming", [False, True])
def test_values_that_are_not_finite_are_refused(bad: float, streaming: bool) -> None:
    logits = prefer(FILL + 1, 3)
    logits[11] = bad
    subject = replace(decoder(), language_model=language_model([logits]))
    whole = subject.generate([TEXT], greedy)
    tokens = subject.generate_streaming([[TEXT] * 5], greedy) if streaming else whole
    with pytest.raises(GateError, match="the language model gave NaN or infinite"):
        next(tokens)


def test_streamed_text_alternates_with_speech() -> None:
    subject = decoder()
    pieces = [[TEXT, TEXT + 1, TEXT + 2], [TEXT + 3], [TEXT + 4]]
    tokens = subject.generate_streaming(pieces, scripted([10, 11, 12, 13, 14, 15, 16, END]))
    assert list(tokens) == [10, 11, 12, 13, 14, 15, 16]
    assert blocks(subject) == [
        [START, TEXT, TEXT + 1],
        [10],
        [11],
        [12],  # a fill is forced after three tokens
        [TEXT + 2, TEXT + 3],
        [13],
        [14],
        [15],  # and again
        [15, TEXT + 4, TASK],  # the text ended right after a fill: the last block once more
        [16],
    ]


def test_streamed_text_alternates_with_the_prompt_first() -> None:
    subject = decoder()
    pieces = [[TEXT + 1], [TEXT + 2, TEXT + 3, TEXT + 4]]
    sampler = scripted([10, 11, 12, END])
    tokens = subject.generate_streaming(pieces, sampler, Context([TEXT], [1, 2, 3, 4]))
    assert list(tokens) == [10, 11, 12]
    assert blocks(subject) == [
        [START, TEXT, TEXT + 1, 1, 2, 3, TEXT + 2, TEXT + 3, 4],
        [10],
        [11],  # two tokens complete the prompt's last block of three
        [11, TEXT + 4, TASK],
        [12],
    ]


def test_an_opening_is_given_at_once_and_speech_does_not_wait_for_text_after_it() -> None:
    subject = decoder()
    pieces = [[TEXT, TEXT + 1], [TEXT + 2, TEXT + 3]]
    sampler = scripted([10, 11, 12, 13, 14, 15, 16, END])
    context = Context(opening=[TEXT + 7, TEXT + 8])
    tokens = subject.generate_streaming(pieces, sampler, context)
    assert list(tokens) == [10, 11, 12, 13, 14, 15, 16]
    assert blocks(subject) == [
        [START, TEXT + 7, TEXT + 8],
        [10],
        [11],
        [12],  # a fill comes after three tokens
        [TEXT, TEXT + 1],
        [13],
        [14],
        [15],
        [15, TEXT + 2, TEXT + 3, TASK],
        [16],
    ]


def test_an_opening_comes_before_the_blocks_of_a_prompt() -> None:
    subject = decoder()
    sampler = scripted([10, END])
    context = Context([TEXT], [1, 2], opening=[TEXT + 8])
    assert list(subject.generate_streaming([[TEXT + 1]], sampler, context)) == [10]
    assert blocks(subject)[0] == [START, TEXT + 8, TEXT, TEXT + 1, 1, 2]


def test_a_fill_may_come_early_and_moves_the_next_one() -> None:
    subject = decoder()
    text = [TEXT, TEXT]
    sampler = scripted([10, FILL, 11, 12, 13, 14, 15, 16, END])
    assert list(subject.generate_streaming([text] * 3, sampler)) == [10, 11, 12, 13, 14, 15, 16]
    second, third, last = [text, [11], [12], [13]], [text, [14], [15], [16]], [[16, TASK]]
    assert blocks(subject) == [[START, *text], [10], *second, *third, *last]


def test_a_text_shorter_than_a_block_is_fed_when_it_ends() -> None:
    subject = decoder()
    assert list(subject.generate_streaming([[], [TEXT]], scripted([4, END]))) == [4]
    assert blocks(subject) == [[START, TEXT, TASK], [4]]


def test_the_end_is_masked_while_text_is_expected() -> None:
    masked: list[bool] = []
    choices = scripted([1, 2, 3, 4, END])

    def sampler(log_probabilities: np.ndarray, history: Sequence[int]) -> int:
        masked.append(bool(log_probabilities[END] == -np.inf))
        return choices(log_probabilities, history)

    assert list(decoder().generate_streaming([[TEXT, TEXT]], sampler)) == [1, 2, 3, 4]
    assert masked == [True, True, True, False, False]


def test_ids_that_are_neither_speech_nor_wanted_are_not_chosen() -> None:
    """The original fails on them; here the next best id that may come there is taken."""
    wanted = [[END, UNUSED, 1], [UNUSED, 2], [FILL], [FILL, UNUSED, 5], [END]]
    subject = decoder(*wanted)
    assert list(subject.generate_streaming([[TEXT, TEXT]], greedy)) == [1, 2, 5]


@repeatable
@given(st.data(), st.integers(0, 8), st.integers(0, 5))
def test_every_piece_of_text_is_fed_once_and_in_order(
    data: st.DataObject, prompt: int, prompt_text: int
) -> None:
    text = list(range(TEXT, TEXT + data.draw(st.integers(0, 20))))
    before = list(range(TEXT - prompt_text, TEXT))
    spoken = [2] * prompt
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    def sampler(log_probabilities: np.ndarray, history: Sequence[int]) -> int:
        return END if np.isfinite(log_probabilities[END]) else 1

    subject = decoder()
    list(subject.generate_streaming(pieces, sampler, Context(before, spoken)))
    ids = [i for block in blocks(subject) for i in block]
    assert [i for i in ids if i > TASK] == [*before, *text]
    assert ids.count(START) == ids.count(TASK) == 1


@pytest.mark.parametrize("run", ["bi", "bi_noprompt"])
@pytest.mark.parametrize("model", RECORDED)
def test_streamed_blocks_are_those_of_the_original(model: str, run: str) -> None:
    v: Mapping[str, np.ndarray] = np.load(GOLDEN / model / "lm.npz")
    speech = v["prefill_logits_last"].shape[1] - 3
    ids = {"end": speech, "masked_before_min": speech, "fill": speech + 2}
    settings = msgspec.structs.replace(SETTINGS, speech_tokens=speech, mix=(5, 15), **ids)
    subject = decoder(settings=settings)
    tokens = v[f"{run}_tokens"].tolist()
    text, cuts = v[f"{run}_text_ids"].tolist(), v[f"{run}_text_cuts"].tolist()
    pieces = [text[a:b] for a, b in zip([0, *cuts], cuts, strict=False)]
    prompt_text, prompt = (
        v[f"{run}_{name}"].tolist() for name in ("prompt_text_ids", "prompt_speech_token")
    )
    sampler = scripted([*tokens, settings.end])
    assert list(subject.generate_streaming(pieces, sampler, Context(prompt_text, prompt))) == tokens
    assert [len(block) for block in blocks(subject)] == v[f"{run}_step_input_len"].tolist()
