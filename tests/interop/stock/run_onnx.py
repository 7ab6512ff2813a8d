"""Networks in ONNX Runtime, with numpy and nothing else: what to run is on standard input.

A cache grows with every call. Or, where there is an input `used`, it has as many slots as one
likes, of which that says how many are filled, and a call returns the rows of its new positions, or
all slots with those rows in their place.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

SLOTS = 64


def run(model: str, folder: Path, states: list[Any]) -> None:
    """The calls of one network; what comes out as caches goes in again."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    slots = SLOTS if any(given.name == "used" for given in session.get_inputs()) else 0
    axes = {name: shape.index(0) for name, _, shape in states}
    caches = {name: np.zeros([n or slots for n in shape], np.float32) for name, _, shape in states}
    names = [output.name for output in session.get_outputs()]
    used = 0
    for number in range(len(list(folder.glob("*.in.npz")))):
        with np.load(folder / f"{number}.in.npz") as stored:
            feeds: dict[str, Any] = {**stored, **caches}
        if slots:
            feeds["used"] = np.array([used])
            positions = feeds["embeddings"].shape[1] if "embeddings" in feeds else 0
        outputs = dict(zip(names, session.run(names, feeds), strict=True))
        new = 0
        for name, output, _ in states:
            rows = outputs.pop(output)
            if slots:
                new = rows.shape[axes[name]]
                if new == slots:
                    caches[name], new = rows, positions
                    continue
                place = [slice(None)] * rows.ndim
                place[axes[name]] = slice(used, used + new)
                caches[name][tuple(place)] = rows
            else:
                caches[name] = rows
        used += new
        np.savez(folder / f"{number}.out.npz", **outputs)


for job in json.load(sys.stdin):
    run(job["model"], Path(job["folder"]), job["states"])
print("edgepack:", sorted(name for name in sys.modules if name.startswith("edgepack")))
