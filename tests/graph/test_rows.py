"""Embedding tables of 8-bit rows."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgepack.bundle.stages import Use
from edgepack.errors import UnsupportedError
from edgepack.graph.net import INT64, Net
from edgepack.graph.rows import quantize_rows


def table(folder: Path, values: np.ndarray) -> Path:
    net = Net("table", Use(role="vocoder"))
    ids = net.input("ids", [1, "n"], INT64)
    rows = net.op.Gather(net.constant("table", values), ids, axis=0)
    net.output("rows", rows, [1, "n", values.shape[1]])
    return net.finish(()).save(folder)


def test_a_row_is_off_by_half_a_step_at_most(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9000, 48)).astype(np.float32)
    values *= 10.0 ** rng.uniform(-4, 3, (len(values), 1)).astype(np.float32)
    values[17] = 0
    (tmp_path / "out").mkdir()
    small = quantize_rows(table(tmp_path, values), tmp_path / "out" / "table.onnx")
    session = onnxruntime.InferenceSession(str(small))
    (found,) = session.run(None, {"ids": np.arange(len(values))[None]})
    steps = np.abs(values).max(1, keepdims=True) / 127
    assert (np.abs(found[0] - values) <= steps * 0.5001).all()
    assert (found[0, 17] == 0).all()
    size = sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert size < values.nbytes * 0.3
    assert [output.name for output in session.get_outputs()] == ["rows"]


def test_a_table_that_is_read_twice_is_stored_once(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    net = Net("twice", Use(role="encoder"))
    rows = net.constant("table", values)
    for name in ("a", "b"):
        ids = net.input(f"{name}_ids", [1, f"{name}_n"], INT64)
        net.output(name, net.op.Gather(rows, ids, axis=0), [1, f"{name}_n", 16])
    (tmp_path / "out").mkdir()
    small = quantize_rows(net.finish(()).save(tmp_path), tmp_path / "out" / "twice.onnx")
    assert [w.name for w in onnx.load(small).graph.initializer] == ["table.int8", "table.scale"]
    asked = {"a_ids": np.array([[3, 1]]), "b_ids": np.array([[39]])}
    a, b = onnxruntime.InferenceSession(str(small)).run(["a", "b"], asked)
    np.testing.assert_allclose(a[0], values[[3, 1]], atol=0.02)
    np.testing.assert_allclose(b[0], values[[39]], atol=0.02)


def test_a_graph_without_a_table_is_refused(tmp_path: Path) -> None:
    net = Net("none", Use(role="vocoder"))
    x = net.input("x", [1, "n"])
    net.output("y", net.op.Mul(x, net.constant("two", np.full(1, 2, np.float32))), [1, "n"])
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsupportedError, match="no table"):
        quantize_rows(net.finish(()).save(tmp_path), tmp_path / "out" / "none.onnx")
