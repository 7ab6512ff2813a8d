"""LiteRT on CPU with XNNPACK, for `.tflite` files."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgepack.errors import IntegrityError, UnsupportedError
from edgepack.manifest import State
from edgepack.runtime.session import Feeds, Options, Session

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

_USED = "used"  # the input that says how many slots of the caches are filled
_FEWEST_SLOTS = 256
_IMAGE = ":image"  # ends the name of a value that lies as [B, 1, T, C] instead of [B, C, T]

Shapes = dict[str, tuple[int, ...]]


class _LiteRtSession:
    """Caches are inputs with a fixed number of slots; each call adds rows in place.

    The number of slots doubles when they are full, which allocates and copies once.
    """

    def __init__(
        self, interpreter: "Interpreter", states: Sequence[State], taps: Mapping[str, str]
    ) -> None:
        self._interpreter = interpreter
        self._states = states
        self._empty = {s.input: s.shape for s in states}
        self._taps = taps
        self._inputs = {d["name"]: d for d in interpreter.get_input_details()}
        cached = {state.output for state in states}
        found = {d["name"]: d["index"] for d in interpreter.get_output_details()}
        self._rows = {s.input: found.pop(s.output) for s in states}
        self._outputs = {taps.get(n, n): i for n, i in found.items() if n not in cached}
        self._shapes: Shapes = {}
        self._used = 0
        self._slots = _FEWEST_SLOTS

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        shapes: Shapes = {name: value.shape for name, value in feeds.items()}
        if self._states:
            new = self._positions(feeds)
            self._prepare(shapes, self._used + new)
            self._set(_USED, np.array([self._used]))
        elif shapes != self._shapes:
            self._allocate(shapes)
        for name, value in feeds.items():
            self._set(name, value)
        self._interpreter.invoke()
        if self._states:
            for name, rows in self._rows.items():
                slots = self._interpreter.tensor(self._inputs[name]["index"])()
                place = self._range(name, self._used, self._used + new)
                slots[place] = self._interpreter.get_tensor(rows)
                del slots  # the interpreter refuses to run while somebody looks at its memory
            self._used += new
        results = {name: self._interpreter.get_tensor(i) for name, i in self._outputs.items()}
        return {n: _in_order(v) if n in self._taps.values() else v for n, v in results.items()}

    def reset(self) -> None:
        self._used = 0

    def caches(self) -> dict[str, np.ndarray]:
        return {s.output: self._filled(s.input) for s in self._states}

    @staticmethod
    def _positions(feeds: Feeds) -> int:
        """How many positions a call adds: a decoder's inputs are [1, n, width]."""
        (value,) = feeds.values()
        return int(value.shape[1])

    def _prepare(self, shapes: Shapes, needed: int) -> None:
        """Make room for the inputs and for that many filled slots, keeping those that are."""
        slots = self._slots
        while slots < needed:
            slots *= 2
        fits = slots == self._slots and self._shapes
        if fits and all(self._shapes[name] == shape for name, shape in shapes.items()):
            return
        kept = {s.input: self._filled(s.input) for s in self._states}
        self._slots = slots
        for state in self._states:  # the axis of no length is that of the slots
            shapes[state.input] = tuple(n or slots for n in state.shape)
        self._allocate(shapes)
        for name, rows in kept.items():
            whole = np.zeros(shapes[name], np.float32)
            whole[self._range(name, 0, self._used)] = rows
            self._set(name, whole)

    def _range(self, name: str, start: int, stop: int) -> tuple[slice, ...]:
        """Some slots of a cache."""
        shape = self._empty[name]
        return tuple(slice(None) if n else slice(start, stop) for n in shape)

    def _filled(self, name: str) -> np.ndarray:
        """A copy of the slots in use."""
        if not self._used:
            return np.zeros(self._empty[name], np.float32)
        whole = self._interpreter.get_tensor(self._inputs[name]["index"])
        return whole[self._range(name, 0, self._used)].copy()

    def _allocate(self, shapes: Shapes) -> None:
        for name, shape in shapes.items():
            self._interpreter.resize_tensor_input(self._inputs[name]["index"], shape)
        with _without_stderr():  # XNNPACK announces itself
            self._interpreter.allocate_tensors()
        self._shapes = shapes

    def _set(self, name: str, value: np.ndarray) -> None:
        details = self._inputs[name]
        self._interpreter.set_tensor(details["index"], np.asarray(value, details["dtype"]))


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Send what the engine's C++ writes to stderr nowhere; its errors are exceptions too."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _in_order(value: np.ndarray) -> np.ndarray:
    """[B, 1, T, C] as [B, C, T]."""
    return value[:, 0].transpose(0, 2, 1)


@dataclass(frozen=True)
class _LiteRt:
    distribution: str = "ai_edge_litert"
    batches: bool = False
    reads_onnx: bool = False

    def version(self) -> str:
        from importlib.metadata import version

        return version("ai-edge-litert")

    def open(self, path: Path, states: Sequence[State], options: Options) -> Session:
        from ai_edge_litert.interpreter import Interpreter

        if path.suffix != ".tflite":
            raise UnsupportedError(f"{path}: LiteRT runs .tflite files only")
        source: dict[str, Any] = {"model_path": str(path)}
        images: dict[str, str] = {}
        try:
            if options.taps:
                content, images = _with_outputs(path, options.taps)
                source = {"model_content": content}
            interpreter = Interpreter(**source, num_threads=options.threads)
            return _LiteRtSession(interpreter, states, images)
        except (ValueError, RuntimeError, KeyError, OSError) as error:
            raise IntegrityError(f"{path}: LiteRT cannot load it: {error}") from None


def _with_outputs(path: Path, names: Sequence[str]) -> tuple[bytes, dict[str, str]]:
    """The model with inner values as further outputs, and the names of those that are images."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    (graph,) = model.subgraphs
    places = {tensor.name.decode(): index for index, tensor in enumerate(graph.tensors)}
    images = {f"{name}{_IMAGE}": name for name in names if f"{name}{_IMAGE}" in places}
    for name in names:
        stored = f"{name}{_IMAGE}" if f"{name}{_IMAGE}" in images else name
        if stored not in places:
            raise UnsupportedError(f"{path}: has no inner value {name}")
        if places[stored] not in graph.outputs:
            graph.outputs.append(places[stored])
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)), images


ENGINE = _LiteRt()
