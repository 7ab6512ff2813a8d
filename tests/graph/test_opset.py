"""Networks in an older opset compute the same."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from evaluation import one_layer, random

from edgepack.errors import UnsupportedError
from edgepack.graph.net import Net, Value, save_model
from edgepack.graph.opset import lowered


def norm(net: Net, x: Value) -> Value:
    scale, bias = net.constant("s", random(16)), net.constant("b", random(16, seed=1))
    return net.op.LayerNormalization(x, scale, bias, axis=-1, epsilon=1e-3)


def plain_norm(net: Net, x: Value) -> Value:
    return net.op.LayerNormalization(x, net.constant("s", random(16)))


def mean(net: Net, x: Value) -> Value:
    return net.op.ReduceMean(x, [-1], keepdims=1)


def halves(net: Net, x: Value) -> Value:
    one, other = net.op.Split(x, axis=-1, num_outputs=2, _outputs=2)
    return net.op.Mul(one, other)


@pytest.mark.parametrize("layer", [norm, plain_norm, mean, halves])
def test_the_same_in_opset_16(tmp_path: Path, layer: Callable[[Net, Value], Value]) -> None:
    x = random(3, 16) + 2
    path = one_layer(layer, 2, x).save(tmp_path)
    older = tmp_path / "older.onnx"
    save_model(lowered(path, 16), older)
    onnx.checker.check_model(str(older), full_check=True)
    written = onnx.load(older)
    assert [(o.domain, o.version) for o in written.opset_import] == [("", 16)]
    assert written.ir_version == 8
    assert "LayerNormalization" not in {node.op_type for node in written.graph.node}
    results = [
        onnxruntime.InferenceSession(str(p), providers=["CPUExecutionProvider"]).run(
            ["y"], {"x0": x}
        )[0]
        for p in (path, older)
    ]
    np.testing.assert_allclose(results[1], results[0], rtol=1e-5, atol=1e-6)


def test_the_hubs_own_opset_changes_nothing(tmp_path: Path) -> None:
    path = one_layer(norm, 2, random(3, 16)).save(tmp_path)
    assert ir.to_proto(lowered(path, 18)) == ir.to_proto(ir.load(path))


def test_an_operator_that_is_too_young_is_refused(tmp_path: Path) -> None:
    path = one_layer(lambda net, x: net.op.Mish(x), 2, random(3, 16)).save(tmp_path)
    with pytest.raises(UnsupportedError, match="Mish is not in opset 16"):
        lowered(path, 16)


def test_an_unknown_opset_is_refused(tmp_path: Path) -> None:
    path = one_layer(mean, 2, random(3, 16)).save(tmp_path)
    with pytest.raises(UnsupportedError, match="opset 11"):
        lowered(path, 11)
