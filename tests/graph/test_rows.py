"""Embedding tables of 8-bit rows."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edgepack.errors import UnsupportedError
from edgepack.graph.net import INT64, Net
from edgepack.graph.rows import quantize_rows


def table(folder: Path, values: np.ndarray) -> Path:
    net = Net("table")
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


def test_a_graph_without_a_table_is_refused(tmp_path: Path) -> None:
    net = Net("none")
    x = net.input("x", [1, "n"])
    net.output("y", net.op.Mul(x, net.constant("two", np.full(1, 2, np.float32))), [1, "n"])
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsupportedError, match="no table"):
        quantize_rows(net.finish(()).save(tmp_path), tmp_path / "out" / "none.onnx")
