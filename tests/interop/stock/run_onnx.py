"""Networks in ONNX Runtime, with numpy and nothing else: what to run is on standard input."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def run(model: str, folder: Path, states: list[Any]) -> None:
    """The calls of one network; what comes out as caches goes in again."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    caches = {name: np.zeros(shape, np.float32) for name, _, shape in states}
    names = [output.name for output in session.get_outputs()]
    for number in range(len(list(folder.glob("*.in.npz")))):
        with np.load(folder / f"{number}.in.npz") as feeds:
            values = session.run(names, {**feeds, **caches})
        outputs = dict(zip(names, values, strict=True))
        caches = {name: outputs.pop(output) for name, output, _ in states}
        np.savez(folder / f"{number}.out.npz", **outputs)


for job in json.load(sys.stdin):
    run(job["model"], Path(job["folder"]), job["states"])
print("edgepack:", sorted(name for name in sys.modules if name.startswith("edgepack")))
