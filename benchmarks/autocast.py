"""NVIDIA ModelOpt's AutoCast against our islands of float32: the same networks, the same calls.

    python benchmarks/autocast.py FOLDER --modelopt PYTHON

PYTHON is the interpreter of an environment with `pip install "nvidia-modelopt[onnx]"`, which needs
an onnx that edgepack is too new for. FOLDER keeps the demo voice built at fp32 for the targets
nvidia-gpu, whose networks are the hub's own, and intel-cpu-avx2, which speaks while its calls are
recorded: every second one gives both the ranges they decide by, and the others judge what they
made, in ONNX Runtime on the CPU: there float16 is what values are rounded to between operators,
while sums are of float32, as on a GPU. Seconds are of a processor. The error is the largest
difference from fp32 of the worst call as a share of the largest output. "Louder" is the same calls
with signals that many times as large, as calibration did not show them; a call with an output that
is not finite is counted instead.
"""

import argparse
import os
import resource
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from safetensors.numpy import save_file

from edgepack.builder import pipeline
from edgepack.builder.backend import Job
from edgepack.builder.backends._ort_half import compute_in_half
from edgepack.builder.calibration.corpus import of_languages
from edgepack.builder.calibration.observe import observe
from edgepack.builder.calibration.samples import read_calls
from edgepack.builder.planning import BuildRequest
from edgepack.bundle.bundle import Bundle
from edgepack.graph.half import precision_of_nodes
from edgepack.profiles.recipe import named
from edgepack.profiles.target import RuntimeOptions
from edgepack.report import silent
from edgepack.runtime.engines.session import Feeds

# Networks, and the inputs that a louder or larger signal would change.
SIGNALS = {"flow_estimator": ("x", "mu"), "hift": ("mel",)}
CALLS, LOUDER = 8, 4.0
DATA_MAX = (512, 8192)  # AutoCast's own, and what our margin of 8 comes to


@dataclass(frozen=True)
class Made:
    """A network in float16 by one of the two, and the processor seconds it took."""

    by: str
    model: Path
    seconds: float


def reference(folder: Path, target: str) -> Bundle:
    """The demo voice at fp32 for ONNX Runtime, built if it is not there."""
    request = BuildRequest("demo", [target], folder, formats=["ort"], precision="fp32")
    return pipeline.build(request)[0].bundle


def ours(stage: str, model: Path, samples: Path, folder: Path) -> Made:
    """What a build for a GPU makes."""
    folder.mkdir(parents=True, exist_ok=True)
    options = RuntimeOptions(container="onnx", fuse=False)
    job = Job(stage, model, folder, (), named("ort", "fp16-islands"), options, samples)
    start = time.process_time()
    path = compute_in_half(job, model, folder / model.name)[0]
    return Made("islands", path, time.process_time() - start)


def autocast(python: Path, model: Path, calls: Path, folder: Path, data_max: float) -> Made:
    """What AutoCast makes, by its command line; seconds include its start."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / model.name
    options = {
        "onnx_path": model, "output_path": target, "calibration_data": calls,
        "data_max": data_max, "low_precision_type": "fp16", "log_level": "WARNING",
    }  # fmt: skip
    command = [str(python), "-m", "modelopt.onnx.autocast", "--keep_io_types"]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    start = _children()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return Made(f"AutoCast {data_max}", target, _children() - start)


def _children() -> float:
    """Processor seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def session(model: Path) -> onnxruntime.InferenceSession:
    """The network on the CPU."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])


def judged(model: Path, reference: Path, calls: Sequence[Feeds]) -> tuple[float, int]:
    """The worst error of the finite calls, and the number of the others."""
    theirs, right = session(model), session(reference)
    worst, broken = 0.0, 0
    for call in calls:
        for found, wanted in zip(
            theirs.run(None, dict(call)), right.run(None, dict(call)), strict=True
        ):
            if not np.isfinite(found).all():
                broken += 1
                break
            worst = max(worst, float(np.abs(found - wanted).max() / np.abs(wanted).max()))
    return worst, broken


def precisions(model: Path) -> tuple[Counter[str], Counter[str], int]:
    """Operators in fp16 and in fp32, and the number of casts."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load(model))
    graph = ir.from_proto(inferred)
    kinds = list(precision_of_nodes(graph))
    half, full = (Counter(op for op, kind in kinds if kind == k) for k in ("fp16", "fp32"))
    return half, full, sum(node.op_type == "Cast" for node in graph.graph)


def rows(stage: str, bundle: Bundle, samples: Path, folder: Path, python: Path) -> Iterator[str]:
    """A row of the table for each way to make a network float16, then what stays fp32."""
    model = bundle.folder / bundle.manifest.stages[stage].variants["ort"].files[0]
    recorded = list(read_calls(samples, stage))
    known, unseen = recorded[0::2][:CALLS], recorded[1::2][:CALLS]
    inputs = {value.name for value in session(model).get_inputs()}
    known, unseen = ([{n: c[n] for n in inputs} for c in calls] for calls in (known, unseen))
    for number, call in enumerate(known):
        for place in (folder / "ours" / stage, folder / "npz" / stage):
            place.mkdir(parents=True, exist_ok=True)
        save_file(call, folder / "ours" / stage / f"{number:04d}.safetensors")
        np.savez(folder / "npz" / stage / f"{number:04d}.npz", **cast(dict[str, Any], call))
    louder = [
        {n: v * np.float32(LOUDER) if n in SIGNALS[stage] else v for n, v in call.items()}
        for call in unseen
    ]
    made = [ours(stage, model, folder / "ours", folder / "islands")]
    for limit in DATA_MAX:
        place = folder / f"autocast-{limit}"
        made.append(autocast(python, model, folder / "npz" / stage, place, limit))
    details = []
    for one in made:
        half, full, casts = precisions(one.model)
        size = sum(f.stat().st_size for f in one.model.parent.glob(f"{stage}.onnx*")) / 1e6
        error, broken = judged(one.model, model, unseen)
        loud, loud_broken = judged(one.model, model, louder)
        yield (
            f"| {stage} | {one.by} | {half.total()} | {full.total()} | {casts} | {size:.2f} "
            f"| {one.seconds:.1f} | {error:.1e} | {broken} of {len(unseen)} "
            f"| {loud:.1e} | {loud_broken} of {len(unseen)} |"
        )
        details.append(f"{stage}, {one.by}, in fp32: {dict(full.most_common())}")
    yield from details


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--modelopt", type=Path, required=True, metavar="PYTHON")
    arguments = parser.parse_args()
    folder = arguments.folder.absolute()
    bundle, speaking = (reference(folder, target) for target in ("nvidia-gpu", "intel-cpu-avx2"))
    samples = observe(speaking.folder, of_languages(("zh", "en")).calibration, "autocast", silent)
    print("| network | by | fp16 | fp32 | casts | MB | s | error | not finite", end="")
    print(f" | error, {LOUDER:g} × louder | not finite |\n|{'---|' * 11}")
    found = [
        line
        for stage in SIGNALS
        for line in rows(stage, bundle, samples, folder, arguments.modelopt)
    ]
    print("\n".join(sorted(found, key=lambda line: not line.startswith("|"))))


if __name__ == "__main__":
    main()
