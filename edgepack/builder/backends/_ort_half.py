"""float16 computation for ONNX Runtime's GPU providers, float32 where ranges ask for it."""

import json
from pathlib import Path

import onnx_ir as ir

from edgepack.builder.backend import Job, require_half
from edgepack.builder.calibration.activations import largest
from edgepack.builder.calibration.islands import Policy, decide
from edgepack.builder.calibration.samples import read_calls
from edgepack.errors import UsageError
from edgepack.graph.half import (
    compute_in_float16,
    limit_exponents,
    precision_of_nodes,
    saturate,
    twin_of,
)
from edgepack.graph.storage import parts

ISLANDS = ".islands.json"
_CALLS = 8  # of those recorded; ranges of more change little


def compute_in_half(job: Job, model: Path, target: Path) -> list[Path]:
    """Write `target`, its fp32 twin and the map of what stays fp32; returns all files.

    Ranges are those of recorded calls. Raises UnsupportedError if nothing became fp16.
    """
    if job.samples is None:
        raise UsageError(f"{job.stage}: recipe {job.recipe.method!r} needs recorded inputs")
    graph = ir.load(model)
    changed = [*saturate(graph), *limit_exponents(graph)]
    calls = read_calls(job.samples, job.stage)
    ranges = largest(graph, model.parent, calls, job.states, _CALLS)
    cached = {name for state in job.states for name in (state.input, state.output)}
    islands = decide(graph, ranges, Policy.of(job.recipe.options), cached)
    compute_in_float16(graph, ir.load(model), target, islands.reasons, cached)
    kinds = [kind for _, kind in precision_of_nodes(graph)]
    require_half(job, kinds.count("fp16"))
    record = target.with_suffix(ISLANDS)
    record.write_text(
        json.dumps(
            {
                "fp16_nodes": kinds.count("fp16"),
                "fp32_nodes": kinds.count("fp32"),
                "largest": max(ranges.values(), default=0.0),
                "limited": changed,
                "reasons": islands.counts(),
                "islands": islands.reasons,
            },
            indent=1,
            sort_keys=True,
        )
        + "\n",
        "utf-8",
    )
    return [*parts(target), twin_of(target), record]
