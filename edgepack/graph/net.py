"""One ONNX graph while it is being written, and the finished graph."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common as passes
from onnxscript import GraphBuilder, OpBuilder

from edgepack.bundle.arrays import Feeds
from edgepack.bundle.manifest import State
from edgepack.bundle.stages import Use
from edgepack.graph.weights import Parameter

OPSET = 18
IR_VERSION = 10
FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64
BATCH = "B"  # the axis of rows that are computed independently of each other
END = np.iinfo(np.int64).max  # a Slice up to the end of an axis
Value = ir.Value

_INLINE_BYTES = 1024
_PAGE = 4096


@dataclass(frozen=True)
class Graph:
    """A finished network: its stage's use, the model, its caches, and feeds that exercise it.

    `calls` are made in order on one session, the caches carried from each to the next. `slots`
    is the same network with caches of a fixed length, for engines that want that, and `batched` is
    that for several rows at once. `continuing` is one that goes on from earlier frames
    (`graph.continuing`).
    """

    name: str
    use: Use
    model: ir.Model
    states: tuple[State, ...]
    calls: tuple[Feeds, ...]
    slots: ir.Model | None = None
    batched: ir.Model | None = None
    continuing: ir.Model | None = None

    def save(self, folder: Path) -> Path:
        """Write `<name>.onnx` and, for its larger weights, `<name>.onnx.data`.

        The network with slots goes to `slots_of` that path, that for several rows to `batched_of`
        it, and that which goes on to `continuing_of` it, with the same weights.
        """
        path = folder / f"{self.name}.onnx"
        save_model(self.model, path)
        for other, place in (
            (self.slots, slots_of(path)),
            (self.batched, batched_of(path)),
            (self.continuing, continuing_of(path)),
        ):
            if other is not None:
                stored = ir.load(path).graph.initializers
                for name, value in other.graph.initializers.items():
                    weight = stored[name].const_value if name in stored else None
                    if isinstance(weight, ir.ExternalTensor):
                        value.const_value = weight
                ir.save(other, place)
        return path

    @property
    def parameters(self) -> int:
        """Number of weights."""
        tensors = (v.const_value for v in self.model.graph.initializers.values())
        return sum(int(t.size) for t in tensors if t is not None and t.dtype == FLOAT)

    @property
    def operators(self) -> dict[str, int]:
        """Nodes by operator type, the most frequent first."""
        return dict(Counter(node.op_type for node in self.model.graph).most_common())


def slots_of(model: Path) -> Path:
    """Where the network with caches of a fixed length lies, beside the one whose caches grow."""
    return model.with_suffix(".slots.onnx")


def batched_of(model: Path) -> Path:
    """Where the network for several rows lies, beside the one whose caches grow."""
    return model.with_suffix(".batched.onnx")


def continuing_of(model: Path) -> Path:
    """Where the network that goes on from earlier frames lies, beside the one that does not."""
    return model.with_suffix(".continuing.onnx")


def save_model(model: ir.Model, path: Path) -> None:
    """Write a model, its larger weights in `<path>.data`, those over 1 MiB aligned to pages."""
    ir.save(
        model,
        path,
        external_data=f"{path.name}.data",
        size_threshold_bytes=_INLINE_BYTES,
        alignment=_PAGE,
    )


class Net:
    """A graph under construction; layers are functions that take it first."""

    def __init__(self, name: str, use: Use) -> None:
        """Start an empty graph of opset 18, of a stage that is used so."""
        self.name, self.use = name, use
        self._graph = ir.Graph([], [], nodes=[], opset_imports={"": OPSET}, name=name)
        self._builder = GraphBuilder(self._graph)
        self._initializers: dict[str, Value] = {}

    @property
    def op(self) -> OpBuilder:
        """ONNX operators as methods."""
        return self._builder.op

    def input(self, name: str, shape: list[int | str], dtype: ir.DataType = FLOAT) -> Value:
        """Declare a graph input; a string in the shape is a dynamic axis."""
        return self._builder.input(name, dtype, shape)

    def reshape_input(self, value: Value, shape: Sequence[int | str]) -> None:
        """Declare an input's shape anew, once it is known."""
        value.shape = ir.Shape(shape)

    def output(self, name: str, value: Value, shape: list[int | str]) -> None:
        """Declare a graph output of type float."""
        self._builder.add_output(value, name)
        value.type, value.shape = ir.TensorType(FLOAT), ir.Shape(shape)

    def parameter(self, parameter: Parameter) -> Value:
        """The weight as an initializer, stored once however often it is asked for."""
        tensor = ir.LazyTensor(
            lambda: ir.tensor(np.ascontiguousarray(parameter.load())),
            dtype=FLOAT,
            shape=ir.Shape(parameter.shape),
            name=parameter.name,
        )
        return self._initializer(parameter.name, tensor)

    def constant(self, name: str, value: np.ndarray) -> Value:
        """A computed table as an initializer; a name stands for one table."""
        return self._initializer(name, ir.tensor(value, name=name))

    def _initializer(self, name: str, tensor: ir.TensorProtocol) -> Value:
        if name not in self._initializers:
            self._initializers[name] = self._builder.initializer(tensor, name, qualify=False)
        return self._initializers[name]

    def tap(self, name: str, value: Value) -> Value:
        """Give an inner value the name of the module it leaves, so that it can be looked at."""
        value.name = name
        return value

    def finish(self, calls: tuple[Feeds, ...], states: tuple[State, ...] = ()) -> Graph:
        """The finished graph."""
        model = ir.Model(self._graph, ir_version=IR_VERSION, producer_name="edgepack")
        for clean in (
            passes.CommonSubexpressionEliminationPass(),
            passes.DeduplicateInitializersPass(),
            passes.RemoveUnusedNodesPass(),
            passes.ClearMetadataAndDocStringPass(),
        ):
            clean(model)
        return Graph(self.name, self.use, model, states, calls)
