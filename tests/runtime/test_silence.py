"""Long silences are cut, and nothing else."""

import numpy as np
import pytest
from support import COSYVOICE3, DATA, GOLDEN

from edgepack.model.checkpoint.folder import open_checkpoint
from edgepack.model.families.cosyvoice3 import FAMILY
from edgepack.runtime.stages.silence import Silence
from edgepack.runtime.strategies.language_model import text_then_speech

SILENCE = Silence(frozenset({1, 2}), 3)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], []),
        ([5, 6, 5], [5, 6, 5]),
        ([1, 2, 1], [1, 2, 1]),
        ([1, 2, 1, 2, 2, 7, 1], [1, 2, 1, 7, 1]),  # all of the list count as one silence
        ([7, 1, 1, 1, 1, 7, 1, 1, 1, 1], [7, 1, 1, 1, 7, 1, 1, 1]),
    ],
)
def test_what_is_kept(given: list[int], kept: list[int]) -> None:
    assert list(SILENCE.cut(given)) == kept


def test_tokens_come_as_they_are_made() -> None:
    cut = SILENCE.cut(iter([1, 1, 1, 1, 9]))
    assert [next(cut) for _ in range(4)] == [1, 1, 1, 9]


@pytest.mark.parametrize("model", COSYVOICE3)
def test_recorded_silence(model: str) -> None:
    with np.load(GOLDEN / model / "tts.npz") as v:
        given, kept = v["silent_in"].tolist(), v["silent_out"].tolist()
    settings = FAMILY.host(open_checkpoint(DATA / "checkpoints" / model)).language_model
    assert isinstance(settings, text_then_speech.Record)
    silence = Silence(frozenset(settings.silent), settings.longest_silence)
    assert list(silence.cut(given)) == kept
    assert len(kept) < len(given)
