"""Usage: run_onnx.py MODEL FOLDER STATES. ONNX Runtime and numpy, nothing else."""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

model, folder, states = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
caches = {name: np.zeros(shape, np.float32) for name, _, shape in states}
names = [output.name for output in session.get_outputs()]
for number in range(len(list(folder.glob("*.in.npz")))):
    with np.load(folder / f"{number}.in.npz") as feeds:
        values = session.run(names, {**feeds, **caches})
    outputs = dict(zip(names, values, strict=True))
    caches = {name: outputs.pop(output) for name, output, _ in states}
    np.savez(folder / f"{number}.out.npz", **outputs)
print("edgepack:", sorted(name for name in sys.modules if name.startswith("edgepack")))
