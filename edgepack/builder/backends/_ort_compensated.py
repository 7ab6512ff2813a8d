"""MatMulNBits over weights whose rounding errors make up for each other (GPTQ)."""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
import onnx_ir as ir

from edgepack.builder.backend import Job
from edgepack.builder.calibration import gptq
from edgepack.builder.calibration.gptq import Rounded
from edgepack.builder.calibration.moments import moments, products, weight_of
from edgepack.builder.calibration.samples import read_calls
from edgepack.builder.calibration.sensitivity import most_sensitive, sensitivities
from edgepack.bundle.manifest import State
from edgepack.errors import UnsupportedError, UsageError
from edgepack.graph.net import save_model
from edgepack.graph.rewrite import constant, drop_unread
from edgepack.profiles.recipe import Recipe
from edgepack.runtime.engines.session import Feeds

_DOMAIN = "com.microsoft"
_FEW, _MANY = 4, 8  # bits
_SMALLEST_BLOCK = 16
_ASKED = 24  # calls that sensitivities are averaged over


@dataclass(frozen=True)
class _Weights:
    """Weights of a network by name: rounded to 4 bits, to 8, and what each gains by the latter."""

    few: Mapping[str, Rounded]
    many: Mapping[str, Rounded]
    sensitivity: Mapping[str, float]

    def with_share(self, share: float) -> Mapping[str, Rounded]:
        """Weights of which at most this share of all values has 8 bits."""
        sizes = {name: weight.codes.size for name, weight in self.few.items()}
        raised = most_sensitive(self.sensitivity, sizes, share)
        return {name: (self.many if name in raised else self.few)[name] for name in self.few}


def compensate(job: Job, model: Path, target: Path) -> None:
    """Write `model` with the weights of its products in blocks of few bits.

    What they are multiplied with is taken from the hub's own graph, so every form of a network has
    the same weights.
    """
    folder = job.sentences if job.states else job.samples
    if folder is None:
        raise UsageError(f"{job.stage}: recipe {job.recipe.method!r} needs recorded inputs")
    weights = _weights(job.recorded, folder, job.stage, job.states, _Options.of(job.recipe))
    rounded = weights.with_share(float(cast(float, job.recipe.options["share8"])))
    changed = ir.load(model)
    accuracy = int(cast(int, job.recipe.options["accuracy"]))
    for node in list(changed.graph):
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is not None and weight.name in rounded:
            _replace(changed.graph, node, rounded[str(weight.name)], accuracy)
    drop_unread(changed.graph)
    changed.graph.opset_imports.setdefault(_DOMAIN, 1)
    save_model(changed, target)


@dataclass(frozen=True)
class _Options:
    block: int
    damping: float
    leave: tuple[str, ...]

    @staticmethod
    def of(recipe: Recipe) -> "_Options":
        block, damping = (recipe.options[name] for name in ("block", "damping"))
        return _Options(int(cast(int, block)), float(cast(float, damping)), recipe.leave)


@functools.lru_cache(
    maxsize=1
)  # recipes of a network that differ in widths alone follow each other
def _weights(
    hub: Path, folder: Path, stage: str, states: tuple[State, ...], options: _Options
) -> _Weights:
    model = ir.load(hub)
    wanted = products(model.graph, lambda name: any(re.search(p, name) for p in options.leave))
    if not wanted:
        raise UnsupportedError(f"{stage}: no product with a stored matrix in it")
    block = options.block
    while block > _SMALLEST_BLOCK and any(product.rows % block for product in wanted):
        block //= 2
    if any(product.rows % block for product in wanted):
        raise UnsupportedError(f"{stage}: has weights that no block of {block} rows fits")
    few, many = {}, {}
    calls = functools.partial(read_calls, folder, stage)
    for product, seen in moments(model, hub.parent, wanted, calls, states):
        weight, importance = weight_of(model, product), np.diag(seen)
        grid = gptq.grid_of(weight, importance, _FEW, block)
        few[product.weight] = gptq.compensated(weight, seen, grid, options.damping)
        many[product.weight] = gptq.nearest(weight, gptq.grid_of(weight, importance, _MANY, block))
    asked = islice(_cut(calls()) if states else calls(), _ASKED)
    found = sensitivities(model, hub.parent, few, asked, states)
    return _Weights(few, many, found)


def _cut(calls: Iterable[Feeds]) -> Iterator[Feeds]:
    """Sentences that end anywhere, as only what follows their last row is answered."""
    draws = np.random.default_rng(0)
    for call in calls:
        rows = min(value.shape[1] for value in call.values())
        end = int(draws.integers(rows // 4, rows)) + 1
        yield {name: value[:, :end] for name, value in call.items()}


def _replace(graph: ir.Graph, node: ir.Node, weight: Rounded, accuracy: int) -> None:
    grid, name = weight.grid, str(node.inputs[1].name)  # type: ignore[union-attr]
    rows, columns = weight.codes.shape
    inputs = {
        "codes": _packed(weight.codes.T.reshape(columns, -1, grid.block), grid.bits),
        "scales": np.ascontiguousarray(grid.scales.T),
        "zeros": _packed(grid.zeros.T, grid.bits),
    }
    attributes = {"K": rows, "N": columns, "bits": grid.bits, "block_size": grid.block}
    made = ir.node(
        "MatMulNBits",
        [node.inputs[0], *(constant(graph, f"{name}.{n}", array) for n, array in inputs.items())],
        {**attributes, "accuracy_level": accuracy},
        domain=_DOMAIN,
        name=node.name,
    )
    ir.convenience.replace_nodes_and_values(graph, node, [node], [made], node.outputs, made.outputs)


def _packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes uint8 with as many along the last axis in a byte as fit, the first in the low bits."""
    each = 8 // bits
    missing = -codes.shape[-1] % each
    padded = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, missing)])
    parts = padded.reshape(*codes.shape[:-1], -1, each)
    shifts = np.arange(each, dtype=np.uint8) * np.uint8(bits)
    return np.bitwise_or.reduce(parts << shifts, axis=-1).astype(np.uint8)
