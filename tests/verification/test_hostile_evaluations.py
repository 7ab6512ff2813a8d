"""Exams and trajectories of a bundle as data: taken as they are, or refused."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from linked import linked
from safetensors.numpy import load, save
from support import Build

from edgepack.bundle.bundle import Bundle, stored
from edgepack.bundle.metrics import Quality
from edgepack.bundle.voices import Voice
from edgepack.errors import IntegrityError
from edgepack.verification import evaluation, trajectories
from edgepack.verification.evaluation import Question
from edgepack.verification.speaking import SpokenSentence
from edgepack.verification.trajectories import Trajectory

Arrays = dict[str, np.ndarray]
RNG = np.random.default_rng(0)


@pytest.fixture
def tiny(bundle: Build, tmp_path: Path) -> Bundle:
    return linked(bundle("tiny"), tmp_path)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def put(bundle: Bundle, name: str, arrays: Arrays) -> Bundle:
    """The bundle with one more file, and with an evaluation."""
    (bundle.folder / name).write_bytes(save(arrays))
    files = bundle.manifest.files | {name: stored(bundle.folder / name)}
    quality = Quality(exam=evaluation.FILE, limits={}, values={}, not_measured={}, failed=())
    quality_of = quality if name == evaluation.FILE else None
    manifest = msgspec.structs.replace(bundle.manifest, files=files, quality=quality_of)
    return bundle.with_manifest(manifest)


def asked() -> Arrays:
    logits = 732  # of the tiny network
    spoken = SpokenSentence(
        Voice(floats(192)), np.arange(4), np.arange(6), floats(1, 80, 12), floats(12 * 480)
    )
    ids = np.zeros((7, 32), np.int32)
    question = Question(spoken, ids, floats(7, 32), np.arange(2), floats(2, logits), np.array([0]))
    return load(evaluation.to_bytes([question, question]))


def followed() -> Arrays:
    one = Trajectory(floats(1, 80, 9), floats(1, 80), floats(1, 80, 9), False, 2,
                     floats(1, 80, 9), 0.5)  # fmt: skip
    return load(trajectories.to_bytes([one]))


def test_what_fits_is_taken(tiny: Bundle) -> None:
    assert len(evaluation.of(put(tiny, evaluation.FILE, asked()))) == 2
    assert len(trajectories.of(put(tiny, trajectories.FILE, followed()))) == 1
    assert evaluation.of(tiny) == []


def other(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], None]:
    def apply(arrays: Arrays) -> None:
        arrays[f"0/{name}"] = np.ascontiguousarray(change(arrays[f"0/{name}"]))

    return apply


EVALUATIONS: dict[str, Callable[[Arrays], object]] = {
    "nothing": lambda a: a.clear(),
    "a part is missing": lambda a: a.pop("0/ids"),
    "a part more": lambda a: a.update({"0/other": floats(1)}),
    "no number": lambda a: a.update({"x/text": floats(1)}),
    "no speech": other("tokens", lambda v: v[:0]),
    "tokens beyond speech": other("tokens", lambda v: v + 10**6),
    "text beyond the table": other("text", lambda v: v + 10**6),
    "negative ids": other("ids", lambda v: v - 1),
    "positions beyond the end": other("at", lambda v: v + 100),
    "another vocabulary": other("every", lambda v: v[:, 1:]),
    "other mels": other("mel", lambda v: v[:, 1:]),
    "flat mels": other("mel", lambda v: v[0]),
    "NaN": other("audio", lambda v: v * np.nan),
    "another speaker": other("speaker", lambda v: v[1:]),
    "numbers as text": other("text", lambda v: v.astype(np.float32)),
    "no candidates": other("ids", lambda v: v[:, :0]),
}


@pytest.mark.parametrize("name", EVALUATIONS)
def test_an_evaluation_that_the_networks_cannot_take_is_refused(tiny: Bundle, name: str) -> None:
    arrays = asked()
    EVALUATIONS[name](arrays)
    with pytest.raises(IntegrityError, match="evaluation"):
        evaluation.of(put(tiny, evaluation.FILE, arrays))


TRAJECTORIES: dict[str, Callable[[Arrays], object]] = {
    "nothing": lambda a: a.clear(),
    "a part is missing": lambda a: a.pop("0/mu"),
    "a part more": lambda a: a.update({"0/other": floats(1)}),
    "all of it a prompt": other("mask", lambda v: v + 9),
    "less than no prompt": other("mask", lambda v: v - 9),
    "a mask of three": other("mask", lambda v: np.concatenate([v, v])),
    "a mask of shares": other("mask", lambda v: v.astype(np.float32)),
    "other lengths": other("mu", lambda v: v[:, :, 1:]),
    "other mels": other("spk", lambda v: v[:, 1:]),
    "no array": other("mu", lambda v: np.array(1.0)),
    "no numbers": other("exact", lambda v: v > 0),
    "infinite": other("euler", lambda v: v * np.inf),
}


@pytest.mark.parametrize("name", TRAJECTORIES)
def test_trajectories_that_are_none_are_refused(tiny: Bundle, name: str) -> None:
    arrays = followed()
    TRAJECTORIES[name](arrays)
    with pytest.raises(IntegrityError, match="recorded trajectories"):
        trajectories.of(put(tiny, trajectories.FILE, arrays))
