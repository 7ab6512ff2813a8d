"""The largest magnitudes of values inside a network on recorded calls."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgepack.bundle.manifest import State
from edgepack.graph.half import FLOAT
from edgepack.graph.rewrite import constant
from edgepack.runtime.engines.session import Feeds

_OUTPUT = "edgepack.largest"


def largest(
    model: ir.Model,
    weights: Path,
    calls: Iterable[Feeds],
    states: Sequence[State],
    most: int,
) -> dict[str, float]:
    """The largest magnitude of every float value, by name, over at most `most` calls.

    `weights` is the folder of the model's external data. Caches are recorded under the names of
    the outputs that wrote them.
    """
    import onnxruntime

    watched = model.clone()
    names = _watch(watched.graph)
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(weights)
    )
    settings.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(
        ir.to_proto(watched).SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    inputs = {value.name for value in session.get_inputs()}
    cached = {state.output: state.input for state in states}
    found = np.zeros(len(names), np.float32)
    for call in islice(calls, most):
        feeds = {cached.get(name, name): value for name, value in call.items()}
        (seen,) = session.run([_OUTPUT], {n: v for n, v in feeds.items() if n in inputs})
        found = np.fmax(found, seen)
    return dict(zip(names, found.tolist(), strict=True))


def _watch(graph: ir.Graph) -> list[str]:
    """Add one output with the largest magnitude of each float value; returns their names."""
    peaks, names = [], []
    flattened = constant(graph, "edgepack.flat", np.array([-1]))
    zero = constant(graph, "edgepack.zero", np.zeros(1, np.float32))
    values = [v for node in graph for v in node.outputs if v.dtype == FLOAT]
    for value in values:
        # An empty tensor has no maximum; zeros beside it are harmless.
        flat = ir.node("Reshape", [value, flattened])
        some = ir.node("Concat", [flat.outputs[0], zero], {"axis": 0})
        size = ir.node("Abs", [some.outputs[0]])
        peak = ir.node("ReduceMax", [size.outputs[0]], {"keepdims": 1})
        for node in (flat, some, size, peak):
            graph.append(node)
        peaks.append(peak.outputs[0])
        names.append(str(value.name))
    together = ir.node("Concat", peaks, {"axis": 0})
    graph.append(together)
    together.outputs[0].name = _OUTPUT
    together.outputs[0].type = ir.TensorType(FLOAT)
    graph.outputs.clear()
    graph.outputs.append(together.outputs[0])
    return names
