"""Rounding whose errors make up for each other: by itself, and as ONNX Runtime computes with it."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save
from safetensors.numpy import save_file

from edgepack.builder.backend import Job, backend
from edgepack.builder.calibration.gptq import (
    compensated,
    grid_of,
    nearest,
    relative_error,
)
from edgepack.builder.calibration.sensitivity import most_sensitive
from edgepack.errors import UnsupportedError, UsageError
from edgepack.profiles.recipe import Recipe, load, named
from edgepack.profiles.target import RuntimeOptions
from edgepack.runtime.engines.session import Options, engine

ROWS, HIDDEN, COLUMNS = 128, 256, 24
GPTQ = sorted(name for name, recipe in load("ort").items() if recipe.method == "gptq")


def inputs(count: int, seed: int) -> np.ndarray:
    """Rows [count, ROWS] that go along with each other, as those inside a network do."""
    mixing = np.random.default_rng(0).normal(size=(24, ROWS))
    draws = np.random.default_rng([1, seed])
    noise = draws.normal(size=(count, ROWS))
    return (draws.normal(size=(count, 24)) @ mixing + 0.3 * noise).astype(np.float32)


def matrix(rows: int, columns: int, seed: int) -> np.ndarray:
    draws = np.random.default_rng([2, seed]).normal(size=(rows, columns))
    return (draws / np.sqrt(rows)).astype(np.float32)


def of(rows: np.ndarray) -> np.ndarray:
    return rows.T @ rows / len(rows)


@pytest.mark.parametrize("block", [16, 32, 64])
def test_it_errs_far_less_than_the_nearest_on_inputs_that_it_has_not_seen(block: int) -> None:
    weight = matrix(ROWS, COLUMNS, 0)
    seen, unseen = of(inputs(2000, 0)), of(inputs(2000, 1))
    grid = grid_of(weight, np.diag(seen), 4, block)
    plain = relative_error(weight, nearest(weight, grid), unseen)
    better = relative_error(weight, compensated(weight, seen, grid, 0.01), unseen)
    assert 1e-4 < better < plain / 2


def test_with_inputs_that_have_nothing_in_common_it_is_the_nearest() -> None:
    weight = matrix(ROWS, COLUMNS, 0)
    moments = np.diag(np.linspace(0.5, 2, ROWS)).astype(np.float32)
    grid = grid_of(weight, np.diag(moments), 4, 32)
    found = compensated(weight, moments, grid, 0.0).codes
    assert np.array_equal(found, nearest(weight, grid).codes)


def test_rows_that_were_never_used_do_no_harm() -> None:
    weight = matrix(ROWS, COLUMNS, 0)
    rows = inputs(500, 0)
    rows[:, 5] = 0
    grid = grid_of(weight, np.ones(ROWS), 4, 32)
    values = compensated(weight, of(rows), grid, 0.01).values()
    assert np.isfinite(values).all()
    step = grid.scales[5 // 32]
    assert (np.abs(values[5] - weight[5]) <= 0.51 * step).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_a_grid_has_zero_and_errs_by_a_small_part_of_the_range(bits: int) -> None:
    weight = np.concatenate([matrix(64, 4, 0), np.zeros((64, 4), np.float32)])
    found = nearest(weight, grid_of(weight, np.ones(128), bits, 32)).values()
    assert (found[64:] == 0).all()
    assert np.abs(found - weight).max() <= np.ptp(weight) / (2**bits - 1)


def test_the_most_sensitive_come_first_as_far_as_the_share_goes() -> None:
    sensitivity, sizes = {"a": 4.0, "b": 3.0, "c": 1.0}, {"a": 60, "b": 20, "c": 20}
    assert most_sensitive(sensitivity, sizes, 0.0) == set()
    assert most_sensitive(sensitivity, sizes, 0.2) == {"b"}
    assert most_sensitive(sensitivity, sizes, 0.4) == {"b", "c"}
    assert most_sensitive(sensitivity, sizes, 0.8) == {"a", "b"}
    assert most_sensitive(sensitivity, sizes, 1.0) == {"a", "b", "c"}


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """`y` = tanh(`x` · a) · b, of which b changes the answers ten times as much a value."""
    weights = {
        "net.a.weight": matrix(ROWS, HIDDEN, 1) / 4,
        "net.b.weight": matrix(HIDDEN, COLUMNS, 2),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "net.a.weight"], ["h"], name="a"),
        helper.make_node("Tanh", ["h"], ["t"], name="t"),
        helper.make_node("MatMul", ["t", "net.b.weight"], ["y"], name="b"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "n", ROWS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, "n", COLUMNS])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path = tmp_path / "hub" / "small.onnx"
    path.parent.mkdir()
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    calls = tmp_path / "calls" / "small"
    calls.mkdir(parents=True)
    for number in range(8):
        save_file({"x": inputs(200, number)[None]}, calls / f"{number:04d}.safetensors")
    return path


def answers(hub: Path, recipe: Recipe, name: str) -> tuple[np.ndarray, int]:
    """What a recipe's file answers to rows that it has not seen, and its bytes."""
    folder = hub.parents[1] / name
    folder.mkdir()
    job = Job(
        "small",
        hub,
        folder,
        (),
        recipe,
        RuntimeOptions("onnx"),
        samples=hub.parents[1] / "calls",
    )
    files = backend("ort").convert(job)
    x = inputs(300, 99)[None]
    found = engine("ort").open(files[0], (), Options(1)).run({"x": x})["y"]
    return found, sum(file.stat().st_size for file in files)


def test_onnx_runtime_computes_with_it_and_errs_less_than_with_plain_rounding(hub: Path) -> None:
    exact, size = answers(hub, named("ort", "fp32"), "fp32")

    def error(name: str) -> tuple[float, int]:
        found, taken = answers(hub, named("ort", name), name)
        return float(np.square(found - exact).sum() / np.square(exact).sum()), taken

    errors = {name: error(name) for name in ["nbits4", *GPTQ]}
    plain, taken = errors["nbits4"]
    assert len(GPTQ) >= 3
    assert all(size / 8 < of_one < size / 2 for _, of_one in errors.values())
    assert errors["gptq4"][0] < plain
    assert errors["gptq4"][1] < taken  # in larger blocks
    assert errors["gptq4-80"][0] < errors["gptq4"][0] / 2


def test_a_weight_that_is_left_stays_as_it_is(hub: Path) -> None:
    recipe = msgspec.structs.replace(named("ort", "gptq4"), leave=("net\\..*",))
    with pytest.raises(UnsupportedError, match="no product"):
        answers(hub, recipe, "left")


def test_without_recorded_inputs_it_says_so(hub: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    job = Job("small", hub, folder, (), named("ort", "gptq4"), RuntimeOptions("onnx"))
    with pytest.raises(UsageError, match="needs recorded inputs"):
        backend("ort").convert(job)
