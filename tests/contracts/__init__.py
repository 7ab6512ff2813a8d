"""What every plug-in has to do, whichever are found."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgepack import discovery
from edgepack.builder.backend import PACKAGE, Job, backend
from edgepack.bundle.manifest import State
from edgepack.bundle.stages import Use
from edgepack.graph import net
from edgepack.profiles.recipe import named
from edgepack.profiles.target import RuntimeOptions

# Every way to write a network without quantizing it: runtime, container, precision.
FORMATS = [
    (runtime, container, precision)
    for runtime in discovery.names(PACKAGE)
    for container in backend(runtime).containers
    for precision in ("fp32", "fp16")
]
STATES = (State(input="past", output="present", shape=(1, 0, 2)),)
WEIGHTS = np.random.default_rng(0).normal(size=(2, 600)).astype(np.float32)
TAP = "wide"


def totals(folder: Path) -> Path:
    """A small hub network: the sum over all inputs x [1, n, 2] so far of x · WEIGHTS."""
    graph = net.Net("totals", Use(role="vocoder"))
    op = graph.op
    x, past = graph.input("x", [1, "n", 2]), graph.input("past", [1, "p", 2])
    present = op.Concat(past, x, axis=1)
    wide = graph.tap(TAP, op.MatMul(present, graph.constant("weights", WEIGHTS)))
    graph.output("y", op.ReduceSum(wide, [1], keepdims=0), [1, 600])
    graph.output("present", present, [1, "m", 2])
    finished = graph.finish((), (STATES[0],))
    return replace(finished, slots=_totals_of_slots().model).save(folder)


def _totals_of_slots() -> net.Graph:
    """The same with the inputs so far in the first `used` of p slots."""
    graph = net.Net("totals", Use(role="vocoder"))
    op = graph.op
    x, past = graph.input("x", [1, "n", 2]), graph.input("past", [1, "p", 2])
    used = graph.input("used", [1], net.INT64)
    weights = graph.constant("weights", WEIGHTS)
    slots = op.Range(0, op.Squeeze(op.Shape(past, start=1, end=2), [0]), 1)
    filled = op.Unsqueeze(op.Less(slots, used), [0, 2])
    before = op.MatMul(op.Where(filled, past, 0.0), weights)
    wide = graph.tap(TAP, op.MatMul(x, weights))
    both = (op.ReduceSum(part, [1], keepdims=0) for part in (before, wide))
    graph.output("y", op.Add(*both), [1, 600])
    graph.output("present", op.Mul(x, 1.0), [1, "n", 2])
    return graph.finish(())


def job(model: Path, folder: Path, container: str, precision: str) -> Job:
    """An order to convert `model`."""
    folder.mkdir()
    states = STATES if model.stem == "totals" else ()
    runtime = next(name for name, known, _ in FORMATS if known == container)
    recipe = named(runtime, precision)
    return Job(model.stem, model, folder, states, recipe, RuntimeOptions(container))
