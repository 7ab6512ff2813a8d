"""The view of a state dict: what it refuses, what it merges, what it misses."""

import numpy as np
import pytest
from evaluation import random

from edgepack.errors import IntegrityError, UnsupportedError, UsageError
from edgepack.graph.weights import Weights, numbered, stack

NORM_STYLES = [
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ("weight_g", "weight_v"),
]


def of(**tensors: np.ndarray) -> Weights:
    return Weights.of("flow.pt", {k.replace("__", "."): v for k, v in tensors.items()})


def test_scopes_lead_to_tensors() -> None:
    w = of(up__0__weight=np.arange(4.0), up__weight=np.zeros(2))
    scope = w / "up" / 0
    assert scope["weight"].name == "up.0.weight"
    assert "weight" in scope
    assert "bias" not in scope
    assert np.array_equal(scope["weight"].load(), np.arange(4.0))


def test_values_are_float32() -> None:
    assert of(a=np.arange(3, dtype=np.float16))["a"].load().dtype == np.float32


def test_a_shape_may_leave_axes_open() -> None:
    assert of(a=random(4, 6, 3)).get("a", 4, None, 3).shape == (4, 6, 3)


@pytest.mark.parametrize("shape", [(4, 5), (4,), (None, None, 1)])
def test_another_shape_is_refused_with_both_shapes(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(UsageError, match=r"flow\.pt: a\.weight has shape 4×6") as error:
        (of(a__weight=random(4, 6)) / "a").get("weight", *shape)
    assert "×".join("?" if n is None else str(n) for n in shape) in str(error.value)


def test_a_missing_tensor_is_named() -> None:
    with pytest.raises(UsageError, match=r"flow\.pt: tensor a\.bias is missing"):
        (of(a__weight=random(4)) / "a").get("bias")


def test_unread_tensors_are_an_error_that_names_one() -> None:
    w = of(a=random(1), c=random(1), b=random(1))
    w.get("a")
    with pytest.raises(UnsupportedError, match=r"flow\.pt: 2 tensors .* first b;"):
        w.assert_all_read([])


def test_tensors_dropped_by_name_need_not_be_read() -> None:
    w = of(a=random(1), b__c=random(1))
    (w / "b").get("c")
    w.assert_all_read(["a", "not there"])


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(number: float) -> None:
    value = random(3, 3)
    value[1, 2] = number
    parameter = of(a=value)["a"]
    with pytest.raises(IntegrityError, match=r"flow\.pt: a has NaN or infinite"):
        parameter.load()


@pytest.mark.parametrize("number", [1e39, -1e300])
def test_values_that_float32_does_not_hold_are_refused(number: float) -> None:
    value = random(3, 3).astype(np.float64)
    assert of(a=value)["a"].load().dtype == np.float32
    value[1, 2] = number
    with pytest.raises(IntegrityError, match=r"flow\.pt: a has NaN or infinite values as float32"):
        of(a=value)["a"].load()


@pytest.mark.parametrize("head", ["9" * 5000, "٣", "007", "1234567"])
def test_a_name_that_is_no_number_is_no_child(head: str) -> None:
    found = Weights.of(
        "flow.pt", {f"blocks.{head}.weight": random(1), "blocks.0.weight": random(1)}
    )
    assert [child.scope for child in found / "blocks"] == ["blocks.0."]


def test_values_are_read_only_when_asked_for() -> None:
    value = random(3)
    transposed = of(a=value)["a"].transposed
    value[:] = 5
    assert (transposed.load() == 5).all()


@pytest.mark.parametrize("names", NORM_STYLES, ids=["new", "old"])
@pytest.mark.parametrize("scale", [1e-4, 1, 1e4])
def test_weight_norm_is_merged(names: tuple[str, str], scale: float) -> None:
    g, v = random(4, 1, 1), random(4, 6, 3, seed=1) * np.float32(scale)
    w = Weights.of("hift.pt", {f"up.{names[0]}": g, f"up.{names[1]}": v})
    merged = (w / "up").convolution(4, 6, 3)
    norms = [np.linalg.norm(row) for row in v.astype(np.float64)]
    wanted = np.array([g[i] * v[i] / norms[i] for i in range(4)])
    np.testing.assert_allclose(merged.load(), wanted, rtol=1e-6)
    assert (merged.name, merged.shape) == ("up.weight", (4, 6, 3))
    assert merged.load().dtype == np.float32
    w.assert_all_read([])


def test_a_direction_of_length_zero_is_refused() -> None:
    v = random(4, 6, 3)
    v[2] = 0
    merged = Weights.of("hift.pt", {"weight_g": random(4, 1, 1), "weight_v": v}).convolution()
    with pytest.raises(IntegrityError, match=r"hift\.pt: weight has NaN"):
        merged.load()


@pytest.mark.parametrize("names", NORM_STYLES, ids=["new", "old"])
def test_a_magnitude_of_another_shape_is_refused(names: tuple[str, str]) -> None:
    w = Weights.of("hift.pt", {names[0]: random(3, 1, 1), names[1]: random(4, 6, 3)})
    with pytest.raises(UsageError, match="has shape 3×1×1"):
        w.convolution(4, 6, 3)


def test_a_plain_convolution_needs_no_norm() -> None:
    value = random(4, 6, 3)
    assert np.array_equal(of(weight=value).convolution(4, 6, 3).load(), value)


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_are_stacked(axis: int) -> None:
    a, b = random(3, 3), random(3, 3, seed=1)
    w = of(a=a, b=b)
    joined = stack("both", [w["a"], w["b"]], axis)
    assert np.array_equal(joined.load(), np.concatenate([a, b], axis))
    assert (joined.name, joined.shape) == ("both", joined.load().shape)


def test_a_transposed_weight_has_reversed_axes() -> None:
    value = random(2, 3, 4)
    parameter = of(a=value)["a"].transposed
    assert parameter.shape == (4, 3, 2)
    assert np.array_equal(parameter.load(), value.T)


def test_children_come_in_numerical_order() -> None:
    names = [f"l.{i}.weight" for i in (10, 2, 0)] + ["l.norm.weight", "l.0.1.bias"]
    w = Weights.of("llm.pt", {name: random(1) for name in names})
    assert [child.scope for child in w / "l"] == ["l.0.", "l.2.", "l.10."]


@pytest.mark.parametrize("numbers", [(), (1,), (0, 2)])
def test_skipped_numbers_are_refused(numbers: tuple[int, ...]) -> None:
    w = Weights.of("llm.pt", {f"l.{i}.weight": random(1) for i in numbers})
    with pytest.raises(UsageError, match=r"llm\.pt: l\.\* is missing or incomplete"):
        numbered(w, "l")


def test_numbered_gives_every_child() -> None:
    w = Weights.of("llm.pt", {f"a.l.{i}.weight": random(1) for i in range(12)})
    assert [child.scope for child in numbered(w / "a", "l")] == [f"a.l.{i}." for i in range(12)]
