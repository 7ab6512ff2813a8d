"""A LiteRT model while it is being written.

Source: tensorflow/compiler/mlir/lite/schema/schema.fbs; `ai_edge_litert` carries its Python code.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import update_packed_buffer

from edgepack.errors import UnsupportedError

Dims = tuple[int | None, ...]  # None is an axis whose length is known when it runs

_ALIGNMENT = 64
_INLINE_BYTES = 1024
_IDENTIFIER = b"TFL3"
_NO_BUFFER = 0

# The version of an operator is the least LiteRT that has what we use of it.
_VERSIONS = {"FULLY_CONNECTED": 5, "BROADCAST_TO": 2}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model being written.

    `dims` are as they lie in memory: those of the ONNX value it stands for, unless it is an
    `image`, which holds [B, C, T] as [B, 1, T, C]. `value` is that of a constant.
    """

    index: int
    dims: Dims
    dtype: np.dtype[Any]
    image: bool = False
    value: np.ndarray | None = None

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.dims)


@dataclass(frozen=True)
class StoredWeight:
    """A constant that is loaded when the file is written.

    `layout` is how it lies there, in one word: what `load` makes of the weight of that name.
    """

    name: str
    layout: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    load: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass
class Model:
    """Tensors, operators and weights of one subgraph, which every signature shares."""

    _tensors: list[Any] = field(default_factory=list)
    _operators: list[Any] = field(default_factory=list)
    _codes: dict[str, int] = field(default_factory=dict)
    _buffers: list[np.ndarray | StoredWeight] = field(default_factory=list)
    _known: dict[tuple[Any, ...], Tensor] = field(default_factory=dict)

    def tensor(self, name: str, dims: Dims, dtype: Any = np.float32) -> Tensor:
        """A tensor that is computed; unknown axes are 1 until it is resized.

        Names are unique; without one it gets a number.
        """
        return self._add(name, dims, np.dtype(dtype), _NO_BUFFER)

    def constant(self, value: np.ndarray) -> Tensor:
        """A small constant; equal ones are stored once."""
        value = np.asarray(value)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._known:
            self._buffers.append(value)
            name = f"constant_{len(self._buffers)}"
            made = self._add(name, value.shape, value.dtype, len(self._buffers))
            self._known[key] = replace(made, value=value)
        return self._known[key]

    def weight(self, weight: StoredWeight) -> Tensor:
        """A constant that is loaded late; a name is stored once in each layout."""
        key = (weight.name, weight.layout, weight.shape)
        if key not in self._known:
            self._buffers.append(weight)
            taken = any(tensor.name == weight.name for tensor in self._tensors)
            name = f"{weight.name}:{weight.layout}" if taken else weight.name
            self._known[key] = self._add(name, weight.shape, weight.dtype, len(self._buffers))
        return self._known[key]

    def operator(
        self, code: str, inputs: Sequence[Tensor | None], output: Tensor, **options: Any
    ) -> None:
        """Append an operator; `options` are those of the schema's table for it."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes.setdefault(code, len(self._codes))
        operator.inputs = [-1 if tensor is None else tensor.index for tensor in inputs]
        operator.outputs = [output.index]
        kind = _OPTIONS.get(code)
        if kind is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = getattr(schema, f"{kind}T")()
            for name, value in options.items():
                setattr(operator.builtinOptions, name, value)
        self._operators.append(operator)

    def rename(self, tensor: Tensor, name: str) -> None:
        """Give a tensor a name that it can be found by."""
        self._tensors[tensor.index].name = name

    def _add(self, name: str, dims: Dims, dtype: np.dtype[Any], buffer: int) -> Tensor:
        made = schema.TensorT()
        made.name = name or f"tensor_{len(self._tensors)}"
        made.buffer, made.hasRank = buffer, True
        made.type = element_type(dtype)
        made.shape = [1 if n is None else n for n in dims]
        if None in dims:
            made.shapeSignature = [-1 if n is None else n for n in dims]
        self._tensors.append(made)
        return Tensor(len(self._tensors) - 1, tuple(dims), dtype)

    def save(
        self,
        path: Path,
        signatures: Sequence[str],
        inputs: Mapping[str, Tensor],
        outputs: Mapping[str, Tensor],
    ) -> None:
        """Write the file; each signature has these inputs and outputs by name."""
        graph = schema.SubGraphT()
        graph.name, graph.tensors, graph.operators = "main", self._tensors, self._operators
        graph.inputs = [tensor.index for tensor in inputs.values()]
        graph.outputs = [tensor.index for tensor in outputs.values()]
        model = schema.ModelT()
        model.version, model.description, model.subgraphs = 3, "edgepack", [graph]
        model.operatorCodes = [_operator_code(code) for code in self._codes]
        model.signatureDefs = [_signature(name, inputs, outputs) for name in signatures]
        model.buffers = [schema.BufferT(), *(_buffer(value) for value in self._buffers)]
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), file_identifier=_IDENTIFIER)
        head = builder.Output()
        packed = schema.Model.GetRootAs(head, 0)
        large = [(n, b) for n, b in enumerate(self._buffers, 1) if _is_large(b)]
        position = _aligned(len(head))
        for number, value in large:
            update_packed_buffer(packed.Buffers(number), position, value.nbytes)
            position = _aligned(position + value.nbytes)
        with path.open("wb") as file:
            file.write(head)
            for _, value in large:
                file.write(bytes(_aligned(file.tell()) - file.tell()))
                loaded = value.load() if isinstance(value, StoredWeight) else value
                np.ascontiguousarray(loaded).tofile(file)
            file.write(bytes(_aligned(file.tell()) - file.tell()))


def _is_large(value: np.ndarray | StoredWeight) -> bool:
    return isinstance(value, StoredWeight) or value.nbytes > _INLINE_BYTES


def _buffer(value: np.ndarray | StoredWeight) -> Any:
    """A buffer with its bytes, or with room for where in the file they are."""
    buffer = schema.BufferT()
    if isinstance(value, StoredWeight) or _is_large(value):
        buffer.offset = buffer.size = 1
    else:
        buffer.data = np.frombuffer(value.tobytes(), np.uint8)
    return buffer


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT


def _operator_code(name: str) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = _VERSIONS.get(name, 1)
    return code


def _signature(key: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = key, 0
    signature.inputs = [_named(name, tensor) for name, tensor in inputs.items()]
    signature.outputs = [_named(name, tensor) for name, tensor in outputs.items()]
    return signature


def _named(name: str, tensor: Tensor) -> Any:
    pair = schema.TensorMapT()
    pair.name, pair.tensorIndex = name, tensor.index
    return pair


def element_type(dtype: Any) -> int:
    """The schema's number of an element type; raises UnsupportedError if it has none."""
    found = _TYPES.get(np.dtype(dtype).str)
    if found is None:
        raise UnsupportedError(f"LiteRT files cannot hold {np.dtype(dtype)} here")
    return found


_TYPES: dict[str, int] = {
    np.dtype(dtype).str: getattr(schema.TensorType, name)
    for dtype, name in (
        (np.float32, "FLOAT32"),
        (np.int64, "INT64"),
        (np.int32, "INT32"),
        (np.int8, "INT8"),
        (np.bool_, "BOOL"),
    )
}

_OPTIONS = {
    "ABS": "AbsOptions",
    "ADD": "AddOptions",
    "BATCH_MATMUL": "BatchMatMulOptions",
    "BROADCAST_TO": "BroadcastToOptions",
    "CAST": "CastOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "COS": "CosOptions",
    "CUMSUM": "CumsumOptions",
    "DIV": "DivOptions",
    "EXP": "ExpOptions",
    "EXPAND_DIMS": "ExpandDimsOptions",
    "FLOOR_DIV": "FloorDivOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "GATHER": "GatherOptions",
    "GELU": "GeluOptions",
    "GREATER": "GreaterOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "LESS": "LessOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MEAN": "ReducerOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "MIRROR_PAD": "MirrorPadOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "RANGE": "RangeOptions",
    "REDUCE_MAX": "ReducerOptions",
    "RESHAPE": "ReshapeOptions",
    "SELECT_V2": "SelectV2Options",
    "SHAPE": "ShapeOptions",
    "SLICE": "SliceOptions",
    "SOFTMAX": "SoftmaxOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
    "SQUEEZE": "SqueezeOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "SUB": "SubOptions",
    "SUM": "ReducerOptions",
    "TRANSPOSE": "TransposeOptions",
}
