"""The opening of prompts: put where it is missing, and divided from the rest."""

import pytest

from edgepack.errors import UsageError
from edgepack.runtime.strategies.text._opening import Opening

OPENING = Opening((10, 11, 99))


@pytest.mark.parametrize(
    ("prompt_text", "text", "completed"),
    [
        ([], [1, 2], [10, 11, 99]),  # no prompt, or a voice without a recording
        ([5, 6], [1, 2], [10, 11, 99, 5, 6]),  # a transcript
        ([7, 99, 5], [1], [7, 99, 5]),  # an opening of one's own
        ([7, 99], [1], [7, 99]),  # an instruction
        ([5], [7, 99, 1], [5]),  # an opening in the text
    ],
)
def test_completed(prompt_text: list[int], text: list[int], completed: list[int]) -> None:
    assert OPENING.completed(prompt_text, text) == completed


@pytest.mark.parametrize(
    ("prompt_text", "divided"),
    [
        ([10, 11, 99], ([10, 11, 99], [])),
        ([10, 99, 5, 6], ([10, 99], [5, 6])),
        ([99, 5, 99], ([99], [5, 99])),
    ],
)
def test_divided(prompt_text: list[int], divided: tuple[list[int], list[int]]) -> None:
    assert OPENING.divided(prompt_text) == divided


def test_a_prompt_without_a_mark_cannot_be_divided() -> None:
    with pytest.raises(UsageError, match="no end of its opening"):
        OPENING.divided([10, 11])


def test_an_opening_has_a_mark() -> None:
    with pytest.raises(ValueError, match="its mark"):
        Opening(())
