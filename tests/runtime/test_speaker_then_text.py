"""The token loop with a speaker row, on networks that are functions."""

from collections.abc import Sequence

import numpy as np
import pytest
from fakes import Fake, fed, prefer, table

from edgepack.bundle.host import Sampling
from edgepack.errors import GateError, UsageError
from edgepack.runtime.stages.decode import Context
from edgepack.runtime.stages.sampling import greedy
from edgepack.runtime.strategies.language_model.speaker_then_text import Record, SpeakerThenText

SPEECH = 10
SETTINGS = Record(
    speech_tokens=SPEECH, start=SPEECH, task=SPEECH + 1, masked_before_min=SPEECH, min_ratio=2.0,
    max_ratio=4.0, sampling=Sampling(top_p=0.8, top_k=25, window=10, repetition=0.1),
)  # fmt: skip
TEXT, SPEAKER = 1000.0, 5000.0  # added to ids and sums, so that rows tell what they are


def decoder(logits: Sequence[np.ndarray]) -> SpeakerThenText:
    """A decoder whose language model gives these logits, one call after the other."""
    answers = iter(logits)
    return SpeakerThenText(
        SETTINGS,
        table(),
        table(),
        Fake(lambda feeds: {"logits": next(answers)[None]}),
        text_encoder=Fake(lambda feeds: {"encoded": feeds["embeddings"] + TEXT}),
        speaker_row=Fake(
            lambda feeds: {"embeddings": feeds["speaker"].sum(1)[:, None, None] + SPEAKER}
        ),
    )


def likely(*ids: int) -> np.ndarray:
    """Logits with these ids in front, in order."""
    return prefer(SPEECH + 1, *ids)


@pytest.mark.parametrize("speaker", [None, np.array([1.0, 2.0])], ids=["instruct", "speaker"])
def test_the_first_block_has_every_part_in_order(speaker: np.ndarray | None) -> None:
    of = decoder([])
    block = of.prefix([7, 8], Context([5, 6], [3, 4], speaker))
    row = [] if speaker is None else [SPEAKER + 3]
    wanted = [SPEECH, *row, *(TEXT + i for i in (5, 6, 7, 8)), SPEECH + 1, 3, 4]
    assert block[0, :, 0].tolist() == wanted


def test_a_text_of_nothing_has_no_rows() -> None:
    assert decoder([]).prefix([])[0, :, 0].tolist() == [SPEECH, SPEECH + 1]


def test_the_end_is_not_chosen_before_the_shortest_length() -> None:
    of = decoder([likely(SPEECH, 3)] * 3)
    tokens = of.generate([1], greedy)
    assert [next(tokens), next(tokens)] == [3, 3]
    with pytest.raises(StopIteration) as stop:
        next(tokens)
    assert stop.value.value is True


def test_tokens_stop_at_the_longest_length() -> None:
    def spoken(longest: int | None, count: int) -> list[int]:
        of = decoder([likely(4)] * count)
        return list(of.generate([1], greedy, longest=longest))

    assert spoken(None, 4) == [4, 4, 4, 4]
    assert spoken(2, 2) == [4, 4]


def test_each_token_is_the_next_input() -> None:
    of = decoder([likely(4), likely(5), likely(6), likely(7)])
    assert list(of.generate([1], greedy, Context(tokens=[2]))) == [4, 5, 6, 7]
    assert vars(of.language_model)["resets"] == 1
    blocks = [block[0, :, 0].tolist() for block in fed(of.language_model, "embeddings")]
    assert blocks == [[SPEECH, TEXT + 1, SPEECH + 1, 2], [4], [5], [6]]


def test_logits_without_numbers_are_an_error() -> None:
    of = decoder([np.full(SPEECH + 1, np.nan, np.float32)])
    with pytest.raises(GateError, match="NaN or infinite logits"):
        next(of.generate([1], greedy))


def test_text_that_still_arrives_is_refused() -> None:
    with pytest.raises(UsageError, match="reads a text as a whole"):
        next(decoder([]).generate_streaming([[1]], greedy))
