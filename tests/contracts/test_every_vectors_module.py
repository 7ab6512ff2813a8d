"""Vectors modules account for every array, and notice one that they do not know."""

from collections.abc import Callable
from functools import cache
from typing import cast

import numpy as np
import pytest
from support import COSYVOICE1, COSYVOICE3, GOLDEN, RECORDED, Build

from edgepack import discovery
from edgepack.errors import UsageError
from edgepack.runtime.loading import load
from edgepack.verification.reference import PACKAGE, BundleUnderTest, Check, Vectors, packages

SETS = {  # one of each family
    "cosyvoice": COSYVOICE1[0],
    "cosyvoice2": RECORDED[0],
    "cosyvoice3": COSYVOICE3[0],
}
MODULES = [(of, name) for of in packages() for name in discovery.names(f"{PACKAGE}.{of}")]
Subjects = Callable[[str], BundleUnderTest]


@pytest.fixture(scope="module")
def subject(bundle: Build) -> Subjects:
    """The bundle of a family's set, loaded once."""
    return cache(lambda family: BundleUnderTest(load(bundle(SETS[family]), "ort")))


def recorded(family: str, name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / SETS[family] / f"{name}.npz") as archive:
        return dict(archive)


def check(family: str, name: str) -> Check:
    return cast(Check, discovery.load(f"{PACKAGE}.{family}", name, "check"))


def test_every_family_of_vectors_has_a_set_here() -> None:
    assert set(SETS) == set(packages())


@pytest.mark.parametrize(("family", "name"), MODULES)
def test_an_array_that_nothing_explains_is_reported(
    family: str, name: str, subject: Subjects
) -> None:
    vectors = Vectors(name, {**recorded(family, name), "surprise": np.zeros(3)})
    check(family, name)(vectors, subject(family))
    rows = vectors.finished()
    assert [row.array for row in rows] == list(vectors.arrays)
    assert [row.array for row in rows if row.note == "unknown array"] == ["surprise"]
    assert any(row.role == "output" for row in rows)
    assert {row.file for row in rows} == {name}


@pytest.mark.parametrize(("family", "name"), MODULES)
def test_a_file_without_the_arrays_that_matter_is_no_success(
    family: str, name: str, subject: Subjects
) -> None:
    vectors = Vectors(name, {"surprise": np.zeros(3)})
    try:
        check(family, name)(vectors, subject(family))
    except UsageError:
        return
    assert [row.note for row in vectors.finished()] == ["unknown array"]


@pytest.mark.parametrize(("family", "name"), MODULES)
def test_every_comparison_can_fail(family: str, name: str, subject: Subjects) -> None:
    arrays = recorded(family, name)
    whole = Vectors(name, arrays)
    check(family, name)(whole, subject(family))
    compared = [row.array for row in whole.finished() if row.error is not None]
    noise = np.random.default_rng(0)

    def spoil(value: np.ndarray) -> np.ndarray:
        if value.dtype.kind != "f":
            return ~value if value.dtype == bool else value + 1
        return value + (noise.normal(size=value.shape) * (value.std() + 1)).astype(value.dtype)

    spoiled = Vectors(name, {n: spoil(a) if n in compared else a for n, a in arrays.items()})
    check(family, name)(spoiled, subject(family))
    passed = {row.array for row in spoiled.finished() if row.array in compared and not row.failed}
    assert passed == set()
