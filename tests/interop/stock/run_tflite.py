"""Networks in TensorFlow's interpreter, with numpy alone: what to run is on standard input.

A cache is an input of as many slots as one likes; the input `used` says how many are filled, and
what a call returns is the rows of its new positions.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.lite.python.interpreter import Interpreter

SLOTS = 64


def run(model: str, folder: Path, states: list[Any]) -> None:
    """The calls of one network, with lengths as they come."""
    interpreter = Interpreter(model)
    inputs = {details["name"]: details for details in interpreter.get_input_details()}
    outputs = {details["name"]: details["index"] for details in interpreter.get_output_details()}
    axes = {name: shape.index(0) for name, _, shape in states}
    caches = {name: np.zeros([n or SLOTS for n in shape], np.float32) for name, _, shape in states}
    used = 0
    for number in range(len(list(folder.glob("*.in.npz")))):
        with np.load(folder / f"{number}.in.npz") as stored:
            feeds: dict[str, Any] = {**stored, **caches}
        if states:
            feeds["used"] = np.array([used])
        for name, value in feeds.items():
            interpreter.resize_tensor_input(inputs[name]["index"], value.shape)
        interpreter.allocate_tensors()
        for name, value in feeds.items():
            details = inputs[name]
            interpreter.set_tensor(details["index"], value.astype(details["dtype"]))
        interpreter.invoke()
        found = {name: interpreter.get_tensor(index) for name, index in outputs.items()}
        new = 0
        for name, output, _ in states:
            rows = found.pop(output)
            new = rows.shape[axes[name]]
            place = [slice(None)] * rows.ndim
            place[axes[name]] = slice(used, used + new)
            caches[name][tuple(place)] = rows
        used += new
        np.savez(folder / f"{number}.out.npz", **found)


for job in json.load(sys.stdin):
    run(job["model"], Path(job["folder"]), job["states"])
print("edgepack:", sorted(name for name in sys.modules if name.startswith("edgepack")))
