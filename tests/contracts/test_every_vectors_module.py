"""Vectors modules account for every array, and notice one that they do not know."""

from typing import cast

import numpy as np
import pytest
from support import GOLDEN, RECORDED, Build

from edgepack import discovery
from edgepack.errors import UsageError
from edgepack.runtime.loading import load
from edgepack.verification.reference import PACKAGE, Check, Subject, Vectors

NAMES = discovery.names(PACKAGE)


@pytest.fixture(scope="module")
def subject(bundle: Build) -> Subject:
    return Subject(load(bundle(RECORDED[0]), "ort"))


def recorded(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / RECORDED[0] / f"{name}.npz") as archive:
        return dict(archive)


def check(name: str) -> Check:
    return cast(Check, discovery.load(PACKAGE, name, "check"))


@pytest.mark.parametrize("name", NAMES)
def test_an_array_that_nothing_explains_is_reported(name: str, subject: Subject) -> None:
    vectors = Vectors(name, {**recorded(name), "surprise": np.zeros(3)})
    check(name)(vectors, subject)
    rows = vectors.finished()
    assert [row.array for row in rows] == list(vectors.arrays)
    assert [row.array for row in rows if row.note == "unknown array"] == ["surprise"]
    assert any(row.role == "output" for row in rows)
    assert {row.file for row in rows} == {name}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_without_the_arrays_that_matter_is_no_success(name: str, subject: Subject) -> None:
    vectors = Vectors(name, {"surprise": np.zeros(3)})
    try:
        check(name)(vectors, subject)
    except UsageError:
        return
    assert [row.note for row in vectors.finished()] == ["unknown array"]


@pytest.mark.parametrize("name", NAMES)
def test_every_comparison_can_fail(name: str, subject: Subject) -> None:
    arrays = recorded(name)
    whole = Vectors(name, arrays)
    check(name)(whole, subject)
    compared = [row.array for row in whole.finished() if row.error is not None]
    noise = np.random.default_rng(0)

    def spoil(value: np.ndarray) -> np.ndarray:
        if value.dtype.kind != "f":
            return ~value if value.dtype == bool else value + 1
        return value + (noise.normal(size=value.shape) * (value.std() + 1)).astype(value.dtype)

    spoiled = Vectors(name, {n: spoil(a) if n in compared else a for n, a in arrays.items()})
    check(name)(spoiled, subject)
    passed = {row.array for row in spoiled.finished() if row.array in compared and not row.failed}
    assert passed == set()
