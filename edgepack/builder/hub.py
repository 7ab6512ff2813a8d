"""The fp32 hub: every network of a checkpoint as ONNX, with its answers to the self-test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgepack.bundle.manifest import State
from edgepack.bundle.stages import Use
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.model.family import recognise
from edgepack.report import Step
from edgepack.runtime.engines.session import Options, engine
from edgepack.verification.selftest import Call, answered

REFEREE = "ort"


@dataclass(frozen=True)
class HubStage:
    """One network of the hub, without its weights."""

    name: str
    use: Use
    model: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    states: tuple[State, ...]
    parameters: int
    operators: dict[str, int]
    feeds: tuple[Mapping[str, np.ndarray], ...]


def author(
    checkpoint: Checkpoint, text_rows: np.ndarray | None, hub: Path, step: Step
) -> list[HubStage]:
    """Write the networks of a checkpoint to the folder `hub`, with some rows of its text."""
    _, family = recognise(checkpoint)
    stages = []
    for graph in family.graphs(checkpoint, text_rows):
        step(f"writing {graph.name}")
        cached = {name for s in graph.states for name in (s.input, s.output)}
        stages.append(
            HubStage(
                graph.name,
                graph.use,
                graph.save(hub),
                tuple(str(v.name) for v in graph.model.graph.inputs if v.name not in cached),
                tuple(str(v.name) for v in graph.model.graph.outputs if v.name not in cached),
                graph.states,
                graph.parameters,
                graph.operators,
                graph.calls,
            )
        )
    return stages


def answers(stages: Sequence[HubStage], step: Step) -> dict[str, list[Call]]:
    """What each network of the hub returns for its self-test feeds.

    On one thread, so that sums are always taken in the same order.
    """
    found = {}
    for stage in stages:
        step(f"running {stage.name}")
        session = engine(REFEREE).open(stage.model, stage.states, Options(1, mapped=True))
        found[stage.name] = answered(session, stage.feeds)
    return found
