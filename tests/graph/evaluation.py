"""One-layer graphs: written, checked, and run in ONNX Runtime."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from numpy_reference.layers import Part

from edgepack.bundle.stages import Use
from edgepack.graph.net import FLOAT, INT64, Graph, Net
from edgepack.graph.weights import Weights

Tensors = Mapping[str, np.ndarray]
TOLERANCE = 1e-5


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Standard normal float32 values."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def module(**tensors: np.ndarray) -> tuple[Weights, Part]:
    """The same module for the layer under test and for the numpy layer."""
    state = {f"m.{name}": value for name, value in tensors.items()}
    return Weights.of("m.pt", state) / "m", Part(state, "m")


def one_layer(layer: Callable[..., ir.Value], rank: int, *inputs: np.ndarray) -> Graph:
    """A graph whose inputs `x0`, `x1` … have no fixed axis and whose output is `y`."""
    net = Net("layer", Use(role="vocoder"))
    values = []
    for i, array in enumerate(inputs):
        axes: list[int | str] = [f"x{i}_{axis}" for axis in range(array.ndim)]
        values.append(net.input(f"x{i}", axes, FLOAT if array.dtype == np.float32 else INT64))
    result = net.op.Cast(layer(net, *values), to=FLOAT)
    net.output("y", result, [f"y_{axis}" for axis in range(rank)])
    return net.finish(())


def run(model: onnx.ModelProto, *inputs: np.ndarray) -> np.ndarray:
    """The output of a one-layer graph, after the checker has accepted it."""
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(["y"], {f"x{i}": array for i, array in enumerate(inputs)})
    return result


def evaluate(layer: Callable[..., ir.Value], rank: int, *inputs: np.ndarray) -> np.ndarray:
    """What a layer makes of its inputs, as float32 of the given rank."""
    return run(ir.to_proto(one_layer(layer, rank, *inputs).model), *inputs)


def check(
    layer: Callable[..., ir.Value],
    wanted: np.ndarray,
    *inputs: np.ndarray,
    tolerance: float = TOLERANCE,
) -> None:
    """Compare a layer with the wanted result."""
    found = evaluate(layer, wanted.ndim, *inputs)
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)
