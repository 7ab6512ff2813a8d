"""`host_loop.json`: what a program in another language needs to drive a bundle's networks.

It says the same as the manifest, spelled out: types and shapes of every input and output, the ODE's
steps as numbers and caches by runtime. docs/host-loop.md explains it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import onnx_ir as ir

from edgepack.builder.backend import backend
from edgepack.builder.hub import HubStage
from edgepack.bundle.host import HostLoops
from edgepack.bundle.manifest import Calibrated, Variant
from edgepack.bundle.stages import of_role
from edgepack.runtime.engines.session import engine
from edgepack.runtime.stages.solver import euler

FILE = "host_loop.json"
SCHEMA = "edgepack.host-loop/2"


@dataclass(frozen=True)
class ContractContents:
    """What is told besides the networks: the loops, and files by their names in the bundle.

    `voices` are files by name, `solvers` by runtime; a runtime without one has the checkpoint's.
    """

    sample_rate: int
    host: HostLoops
    tokenizer: str
    voices: Mapping[str, str]
    solvers: Mapping[str, Calibrated]


def write(
    folder: Path,
    stages: Sequence[HubStage],
    variants: Mapping[str, Mapping[str, Variant]],
    told: ContractContents,
) -> None:
    """Write the contract of a bundle to its folder."""
    host, solvers = told.host, told.solvers
    estimator = of_role({stage.name: stage.use for stage in stages}, "estimator")
    runtimes = sorted({runtime for by_runtime in variants.values() for runtime in by_runtime})
    tables = {r: solvers[r].solver if r in solvers else euler(host.flow) for r in runtimes}
    flow = msgspec.to_builtins(host.flow)
    for field in ("steps", "schedule", "guidance"):  # the tables say it
        del flow[field]
    document = {
        "schema": SCHEMA,
        "engines": {runtime: engine(runtime).version() for runtime in runtimes},
        "caches": {runtime: backend(runtime).caches for runtime in runtimes},
        "rows": {r: _rows(r, variants[estimator][r]) for r in runtimes},
        "sample_rate": told.sample_rate,
        "networks": {stage.name: _network(stage, variants[stage.name]) for stage in stages},
        "text": {"tokenizer": told.tokenizer, **msgspec.to_builtins(host.text)},
        "language_model": msgspec.to_builtins(host.language_model),
        "flow": {**flow, "solvers": {r: msgspec.to_builtins(t.steps) for r, t in tables.items()}},
        "vocoder": msgspec.to_builtins(host.vocoder),
        "stream": msgspec.to_builtins(host.schedule),
        "voices": dict(told.voices),
    }
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    (folder / FILE).write_text(text, "utf-8")


def _rows(runtime: str, estimator: Variant) -> str:
    """How many rows of a batch the only network that has any takes in one call."""
    return "any" if engine(estimator.engine or runtime).batches else "one"


def _network(stage: HubStage, variants: Mapping[str, Variant]) -> dict[str, Any]:
    graph = ir.load(stage.model).graph
    return {
        "files": {runtime: variant.files[0] for runtime, variant in variants.items()},
        "inputs": [_value(v) for v in graph.inputs if v.name in stage.inputs],
        "outputs": [_value(v) for v in graph.outputs if v.name in stage.outputs],
        "caches": [msgspec.to_builtins(state) for state in stage.states],
    }


def _value(value: ir.Value) -> dict[str, Any]:
    """Name, element type and axes; a name in place of a length is one that changes."""
    axes = value.shape or ()
    return {
        "name": value.name,
        "type": str(value.dtype.numpy()) if value.dtype else "float32",
        "shape": [n if isinstance(n, int) else str(n.value) for n in axes],
    }
