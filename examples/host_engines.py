"""A network in either engine, its caches kept, for `examples/host_loop.py`."""

from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


class Ort:
    """A network in ONNX Runtime: caches are outputs that become inputs."""

    def __init__(self, path: Path, caches: list[dict[str, Any]]) -> None:
        import onnxruntime

        self.session = onnxruntime.InferenceSession(str(path))
        self.names = [output.name for output in self.session.get_outputs()]
        self.caches = caches
        self.reset()

    def reset(self) -> None:
        self.held = {c["input"]: np.zeros(c["shape"], np.float32) for c in self.caches}

    def run(self, **feeds: np.ndarray) -> Arrays:
        found = dict(zip(self.names, self.session.run(None, feeds | self.held), strict=True))
        self.held = {c["input"]: found.pop(c["output"]) for c in self.caches}
        return found


class LiteRt:
    """A network in LiteRT: caches are inputs with slots, of which `used` are filled."""

    slots = 1024
    shapes: dict[str, tuple[int, ...]] = {}  # noqa: RUF012

    def __init__(self, path: Path, caches: list[dict[str, Any]]) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.net = Interpreter(str(path), num_threads=2)
        self.inputs = {d["name"]: d for d in self.net.get_input_details()}
        self.outputs = {d["name"]: d["index"] for d in self.net.get_output_details()}
        self.caches = caches
        self.reset()

    def reset(self) -> None:
        self.used = 0
        shapes = {c["input"]: [n or self.slots for n in c["shape"]] for c in self.caches}
        self.held = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    def run(self, **feeds: np.ndarray) -> Arrays:
        new = feeds["embeddings"].shape[1] if self.caches else 0
        if self.caches:
            feeds |= self.held | {"used": np.array([self.used])}
        shapes = {name: value.shape for name, value in feeds.items()}
        if shapes != self.shapes:
            for name, shape in shapes.items():
                self.net.resize_tensor_input(self.inputs[name]["index"], shape)
            self.net.allocate_tensors()
            self.shapes = shapes
        for name, value in feeds.items():
            self.net.set_tensor(self.inputs[name]["index"], value)
        self.net.invoke()
        found = {name: self.net.get_tensor(index) for name, index in self.outputs.items()}
        for cache in self.caches:
            rows = found.pop(cache["output"])
            self.held[cache["input"]][:, :, self.used : self.used + new] = rows
        self.used += new
        return found
