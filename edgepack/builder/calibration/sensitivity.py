"""How much a network's answers change when one of its weights is rounded, and widths that follow.

NNCF's criteria for mixed widths look at a layer alone; what a layer's error does to the answers
differs by orders of magnitude between layers, so here the whole network answers.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgepack.builder.calibration.gptq import Rounded
from edgepack.builder.calibration.moments import opened
from edgepack.bundle.manifest import State
from edgepack.graph.storage import values
from edgepack.runtime.engines.session import Feeds


def sensitivities(
    model: ir.Model,
    folder: Path,
    rounded: Mapping[str, Rounded],
    calls: Iterable[Feeds],
    states: Sequence[State],
) -> dict[str, float]:
    """By name of a weight, what changes on average over the calls when it alone is rounded.

    `folder` has the model's external data. For a network with caches that is the variance of the
    log-probabilities' errors, each as much as its id is probable: twice the KL divergence where it
    is small. For others it is the squared error of all outputs by their square.
    """
    changed = model.clone()
    cached = {state.output for state in states}
    kept = [value for value in changed.graph.outputs if value.name not in cached]
    changed.graph.outputs.clear()
    changed.graph.outputs.extend(kept)
    weights = {}
    for name in rounded:  # inputs, so that one session answers with each of them rounded
        value = changed.graph.initializers.pop(name)
        if value.const_value is None:
            raise ValueError(f"{name}: has no value")
        weights[name] = np.ascontiguousarray(values(value.const_value), np.float32)
        value.const_value = None
        value.dtype, value.shape = ir.DataType.FLOAT, ir.Shape(weights[name].shape)
        changed.graph.inputs.append(value)
    run = opened(changed, folder, [str(value.name) for value in kept], states)
    missed, count = dict.fromkeys(rounded, 0.0), 0
    distance = _of_probabilities if states else _of_values
    for call in calls:
        exact = _flat(run({**call, **weights}))
        for name, weight in rounded.items():
            error = _flat(run({**call, **weights, name: weight.values()})) - exact
            missed[name] += distance(exact, error)
        count += 1
    return {name: value / count for name, value in missed.items()}


def most_sensitive(
    sensitivity: Mapping[str, float], sizes: Mapping[str, int], share: float
) -> set[str]:
    """Weights that gain most a value when they have more bits, at most `share` of all values."""
    left = share * sum(sizes[name] for name in sensitivity)
    chosen = set()
    for name in sorted(sensitivity, key=lambda name: -sensitivity[name] / sizes[name]):
        if sizes[name] <= left:
            chosen.add(name)
            left -= sizes[name]
    return chosen


def _flat(answers: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(answer).astype(np.float64) for answer in answers])


def _of_probabilities(exact: np.ndarray, error: np.ndarray) -> float:
    """For logits [V] and their errors; what is added to all of them changes nothing."""
    shares = np.exp(exact - exact.max())
    shares /= shares.sum()
    return float(shares @ (error - shares @ error) ** 2)


def _of_values(exact: np.ndarray, error: np.ndarray) -> float:
    return float(error @ error / max(exact @ exact, 1e-30))
