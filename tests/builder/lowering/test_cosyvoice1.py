"""CosyVoice 1's networks in LiteRT: what XNNPACK leaves out is small and listed."""

from pathlib import Path

import pytest
import random_cosyvoice1
from ai_edge_litert.interpreter import Interpreter
from converted import convert

from edgepack.graph.net import Graph
from edgepack.model.checkpoint.folder import open_checkpoint
from edgepack.model.families.cosyvoice import FAMILY
from lowering.test_lower import OUTSIDE, outside

# What is reshaped to lengths that are computed, and the trimming of a doubled odd length.
MORE = {
    "speech_lm": {"CONCATENATION"},
    "text_encoder": OUTSIDE["flow_encoder"],
    "flow_encoder": set(),
    "flow_estimator": {"CONCATENATION", "SLICE"},
    "hift_source": set(),
    "hift": set(),
}
SLOTS = 64


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Graph]:
    folder = tmp_path_factory.mktemp("tiny")
    random_cosyvoice1.write(folder, random_cosyvoice1.TINY)
    return {graph.name: graph for graph in FAMILY.graphs(open_checkpoint(folder))}


def shape(graph: Graph, name: str) -> tuple[int, ...]:
    """The shape of an input in the first call, or of a cache with some slots."""
    if name in graph.calls[0]:
        return graph.calls[0][name].shape
    states = {state.input: state.shape for state in graph.states}
    return tuple(n or SLOTS for n in states[name]) if name in states else (1,)


@pytest.mark.parametrize("stage", MORE)
def test_only_listed_operators_run_outside_xnnpack(
    graphs: dict[str, Graph], tmp_path: Path, stage: str
) -> None:
    graph = graphs[stage]
    converted = convert([graph], tmp_path, "tflite")[stage]
    interpreter = Interpreter(str(converted.path))
    for details in interpreter.get_input_details():
        interpreter.resize_tensor_input(details["index"], shape(graph, details["name"]))
    interpreter.allocate_tensors()
    assert outside(interpreter) <= OUTSIDE.get(stage, set()) | MORE[stage]
