"""LiteRT on CPU with XNNPACK, for `.tflite` files.

Its interpreter is that of the package ai-edge-litert, or TensorFlow's where only that is installed:
the same code at another version, with the same calls.
"""

import importlib
import os
import threading
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgepack.bundle.manifest import State
from edgepack.errors import UnsupportedError
from edgepack.runtime import cancellation
from edgepack.runtime.engines.installed import choose
from edgepack.runtime.engines.session import Feeds, Options, Session, translated

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

PACKAGES = ("ai_edge_litert", "tensorflow")  # the first of them that is installed

_TENSORFLOW = "tensorflow"
_INTERPRETERS = {
    "ai_edge_litert": "ai_edge_litert.interpreter",
    _TENSORFLOW: "tensorflow.lite.python.interpreter",
}
_TOOLS = {"ai_edge_litert": "ai_edge_litert.tools", _TENSORFLOW: "tensorflow.lite.tools"}
# The warning that TensorFlow's interpreter gives whenever it is created.
_DEPRECATED = r"\s*Warning: tf\.lite\.Interpreter is deprecated"

_USED = "used"  # the input that says how many slots of the caches are filled
_FEWEST_SLOTS = 256
_STDERR = 2
_IMAGE = ":image"  # ends the name of a value that lies as [B, 1, T, C] instead of [B, C, T]

_Shapes = dict[str, tuple[int, ...]]


class _Network:
    """An interpreter. It has one set of tensors, so sessions that share it take turns."""

    def __init__(
        self,
        interpreter: "Interpreter",
        states: Sequence[State],
        taps: Mapping[str, str],
        path: Path,
    ) -> None:
        self.interpreter = interpreter
        self.path = path
        self.states = states
        self.empty = {s.input: s.shape for s in states}
        self.taps = taps
        self.inputs = {d["name"]: d for d in interpreter.get_input_details()}
        cached = {state.output for state in states}
        found = {d["name"]: d["index"] for d in interpreter.get_output_details()}
        self.rows = {s.input: found.pop(s.output) for s in states}
        if lacking := self.empty.keys() - self.inputs.keys():
            raise ValueError(f"there is no cache {min(lacking)}")
        self.outputs = {taps.get(n, n): i for n, i in found.items() if n not in cached}
        self.shapes: _Shapes = {}
        self.slots = _FEWEST_SLOTS
        self.lock = threading.RLock()
        self.owner: _LiteRtSession | None = None  # whose caches are in the tensors

    def allocate(self, shapes: _Shapes) -> None:
        """Resize the inputs; their content is lost."""
        for name, shape in shapes.items():
            self.interpreter.resize_tensor_input(self.inputs[name]["index"], shape)
        self.interpreter.allocate_tensors()
        self.shapes = shapes

    def set(self, name: str, value: np.ndarray) -> None:
        """Set the value of an input."""
        details = self.inputs[name]
        self.interpreter.set_tensor(details["index"], np.asarray(value, details["dtype"]))

    def range(self, name: str, start: int, stop: int) -> tuple[slice, ...]:
        """The index of slots `start` to `stop` of a cache."""
        return tuple(slice(None) if n else slice(start, stop) for n in self.empty[name])

    def filled(self, name: str, count: int) -> np.ndarray:
        """A copy of the first `count` slots of a cache."""
        if not count:
            return np.zeros(self.empty[name], np.float32)
        whole = self.interpreter.get_tensor(self.inputs[name]["index"])
        return whole[self.range(name, 0, count)].copy()


class _LiteRtSession(Session):
    """A network whose caches are inputs with a fixed number of slots; a call fills some in place.

    The number of slots doubles when they are full, which allocates and copies once. When another
    session over the same network is called in between, the caches are saved and restored.
    """

    batches = False
    restorable = True

    def __init__(self, network: _Network) -> None:
        self._network = network
        self._used = 0
        self._aside: dict[str, np.ndarray] = {}

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        with (
            cancellation.uninterrupted(),  # as the interpreter offers no way to end a call
            translated(self._network.path, "LiteRT cannot run"),
        ):
            return self._run(feeds)

    def _run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        net = self._network
        shapes: _Shapes = {name: value.shape for name, value in feeds.items()}
        with cancellation.holding(net.lock):
            if net.states:
                new = self._positions(feeds)
                self._prepare(shapes, self._used + new)
                net.set(_USED, np.array([self._used]))
            elif shapes != net.shapes:
                net.allocate(shapes)
            for name, value in feeds.items():
                net.set(name, value)
            net.interpreter.invoke()
            if net.states:
                for name, rows in net.rows.items():
                    slots = net.interpreter.tensor(net.inputs[name]["index"])()
                    place = net.range(name, self._used, self._used + new)
                    slots[place] = net.interpreter.get_tensor(rows)
                    del slots  # the interpreter does not run while a view of its memory exists
                self._used += new
            results = {name: net.interpreter.get_tensor(i) for name, i in net.outputs.items()}
        taps = net.taps.values()
        return {n: _in_order(v) if n in taps else v for n, v in results.items()}

    def reset(self) -> None:
        self._used = 0
        self._aside = {}

    def caches(self) -> dict[str, np.ndarray]:
        with self._network.lock:
            held = self._held()
        return {s.output: held[s.input] for s in self._network.states}

    def restore(self, caches: Mapping[str, np.ndarray]) -> None:
        states = self._network.states
        first = states[0]
        with self._network.lock:
            self._aside = {s.input: np.asarray(caches[s.output], np.float32) for s in states}
            self._used = self._aside[first.input].shape[first.shape.index(0)]
            if self._network.owner is self:
                self._network.owner = None

    def fork(self) -> Session:
        """Another set of caches for the same interpreter."""
        return _LiteRtSession(self._network)

    def shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return {
            name: tuple(None if n < 0 else int(n) for n in details["shape_signature"])
            for name, details in self._network.inputs.items()
        }

    def turn(self) -> AbstractContextManager[object]:
        """A lock that keeps other sessions from this interpreter, its caches and its shapes."""
        return cancellation.holding(self._network.lock)

    @staticmethod
    def _positions(feeds: Feeds) -> int:
        """How many positions a call adds: a decoder's inputs are [1, n, width]."""
        (value,) = feeds.values()
        return int(value.shape[1])

    def _held(self) -> dict[str, np.ndarray]:
        """The filled slots of every cache, in the interpreter or saved."""
        net = self._network
        if net.owner is not self and self._used:
            return self._aside
        return {s.input: net.filled(s.input, self._used) for s in net.states}

    def _prepare(self, shapes: _Shapes, needed: int) -> None:
        """Load our caches into the interpreter, for inputs of these shapes and `needed` slots."""
        net = self._network
        slots = net.slots
        while slots < needed:
            slots *= 2
        fits = slots == net.slots and all(
            net.shapes.get(name) == shape for name, shape in shapes.items()
        )
        if fits and net.owner is self:
            return
        if net.owner not in (self, None):
            net.owner._aside = net.owner._held()
        kept = self._held()
        if not fits:
            net.slots = slots
            for state in net.states:  # the axis of length 0 is that of the slots
                shapes[state.input] = tuple(n or slots for n in state.shape)
            net.allocate(shapes)
        for name, rows in kept.items():
            whole = np.zeros(net.shapes[name], np.float32)
            whole[net.range(name, 0, self._used)] = rows
            net.set(name, whole)
        net.owner, self._aside = self, {}


def _in_order(value: np.ndarray) -> np.ndarray:
    """Reorder axes: [B, 1, T, C] becomes [B, C, T]."""
    return value[:, 0].transpose(0, 2, 1)


@dataclass(frozen=True)
class _LiteRt:
    batches: bool = False
    reads_onnx: bool = False

    @property
    def distribution(self) -> str:
        return choose(PACKAGES)

    def version(self) -> str:
        from importlib.metadata import version

        if self.distribution == _TENSORFLOW:  # its distributions have several names
            return f"{importlib.import_module(_TENSORFLOW).__version__} (TensorFlow)"
        return version("ai-edge-litert")

    def hush(self, path: Path) -> None:
        """Let it announce XNNPACK, which it does once a process, while stderr is redirected."""
        if self.distribution == _TENSORFLOW:
            warnings.filterwarnings("ignore", _DEPRECATED, UserWarning)
        interpreter = self._interpreter()
        kept, nowhere = os.dup(_STDERR), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, _STDERR)
            with suppress(ValueError, RuntimeError):  # `open` says so better
                interpreter(str(path)).allocate_tensors()
        finally:
            os.dup2(kept, _STDERR)
            os.close(kept)
            os.close(nowhere)

    def open(self, path: Path, states: Sequence[State], options: Options) -> Session:
        if path.suffix != ".tflite":
            raise UnsupportedError(f"{path}: LiteRT runs .tflite files only")
        source: dict[str, Any] = {"model_path": str(path)}
        images: dict[str, str] = {}
        with translated(path, "LiteRT cannot load"):
            if options.taps:
                content, images = _with_outputs(path, options.taps)
                source = {"model_content": content}
            interpreter = self._interpreter()(**source, num_threads=options.threads)
            return _LiteRtSession(_Network(interpreter, states, images, path))

    def _interpreter(self) -> "type[Interpreter]":
        return importlib.import_module(_INTERPRETERS[self.distribution]).Interpreter


def _with_outputs(path: Path, names: Sequence[str]) -> tuple[bytes, dict[str, str]]:
    """The model with inner values as further outputs, and the names of those that are images."""
    flatbuffer_utils = importlib.import_module(f"{_TOOLS[choose(PACKAGES)]}.flatbuffer_utils")
    model = flatbuffer_utils.read_model(str(path))
    (graph,) = model.subgraphs
    places = {tensor.name.decode(): index for index, tensor in enumerate(graph.tensors)}
    images = {f"{name}{_IMAGE}": name for name in names if f"{name}{_IMAGE}" in places}
    for name in names:
        stored = f"{name}{_IMAGE}" if f"{name}{_IMAGE}" in images else name
        if stored not in places:
            raise UnsupportedError(f"{path}: has no inner value {name}")
        if places[stored] not in graph.outputs:
            graph.outputs = [*graph.outputs, places[stored]]  # an array at first, or a list
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)), images


ENGINE = _LiteRt()
