"""Operators that move values: shapes, slices, joins, rows."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgepack.builder.lowering.flatbuffer import Dims, Tensor
from edgepack.builder.lowering.layout import EXCHANGED, aligned, slice_range
from edgepack.builder.lowering.lower import Lowering, Node, integers, lowers

_MOST_JOINED = 4  # tensors that XNNPACK concatenates at a time
_IMAGE_AXES = (0, 3, 2)
_CHANNELS_AND_TIME = [0, 2, 1]
_WANT_IMAGES = ("Conv", "ConvTranspose")


def _axis(tensor: Tensor, axis: int, rank: int) -> int:
    """Where an ONNX axis lies in memory."""
    axis %= rank
    return _IMAGE_AXES[axis] if tensor.image else axis


def _constant(c: Lowering, node: Node, number: int) -> np.ndarray:
    value = c.array(node.inputs[number])
    if value is None:
        raise c.refuse(node, f"input {number} is not a constant")
    return value


@lowers("Reshape")
def reshape(c: Lowering, node: Node) -> Tensor:
    """Other axes. What has two unknown ones takes its shape from a tensor."""
    x, dims, shape = c.plain(node.inputs[0]), c.dims(node.outputs[0]), node.inputs[1]
    constant = c.array(shape)
    if constant is not None:
        kept = [x.dims[axis] if n == 0 else dims[axis] for axis, n in enumerate(constant)]
        return c.reshape(x, tuple(kept))
    return c.emit("RESHAPE", [x, c.plain(shape)], _known_lengths(c, shape, len(dims)))


def _known_lengths(c: Lowering, shape: ir.Value | None, rank: int) -> Dims:
    """The lengths in a shape that was joined from constants and computed ones."""
    source = shape.producer() if shape is not None else None
    dims: list[int | None] = []
    for part in source.inputs if source is not None and source.op_type == "Concat" else ():
        constant = c.array(part)
        dims += [None] if constant is None else [int(n) if n >= 0 else None for n in constant]
    return tuple(dims) if len(dims) == rank else (None,) * rank


@lowers("Unsqueeze", "Squeeze")
def squeeze(c: Lowering, node: Node) -> Tensor:
    """Axes of length 1 that come or go."""
    dims = c.dims(node.outputs[0])
    x = c.plain(node.inputs[0])
    if dims.count(None) <= 1:
        return c.reshape(x, dims)
    if node.op_type == "Squeeze":
        axes = sorted(int(a) % x.rank for a in _constant(c, node, 1))
        return c.emit("SQUEEZE", [x], dims, squeezeDims=axes)
    axes = sorted(int(a) % len(dims) for a in _constant(c, node, 1))
    for axis in axes:
        wider = (*x.dims[:axis], 1, *x.dims[axis:])
        x = c.emit("EXPAND_DIMS", [x, integers([axis])], wider)
    return x


@lowers("Transpose")
def transpose(c: Lowering, node: Node) -> Tensor:
    """Axes in another order; exchanging channels and time of an image moves nothing."""
    order = node.attributes.get_ints("perm")
    value = node.inputs[0]
    x = c.get(value)
    if list(order) == _CHANNELS_AND_TIME:
        if x.image:
            batch, _, time, channels = x.dims
            return c.reshape(x, (batch, time, channels))
        if any(user.op_type in _WANT_IMAGES for user, _ in node.outputs[0].uses()):
            batch, time, channels = x.dims
            return c.reshape(x, (batch, 1, time, channels), image=True)
    x = c.plain(value)
    if list(order) == EXCHANGED and all(
        user.op_type == "MatMul" and place == 1 for user, place in node.outputs[0].uses()
    ):
        return x  # the product reads it the other way round
    return c.emit("TRANSPOSE", [x, integers(order)], tuple(x.dims[axis] for axis in order))


@lowers("Expand")
def expand(c: Lowering, node: Node) -> Tensor:
    """Repetition along axes of length 1."""
    return c.emit(
        "BROADCAST_TO",
        [c.plain(node.inputs[0]), c.plain(node.inputs[1])],
        c.dims(node.outputs[0]),
    )


@lowers("Concat")
def concat(c: Lowering, node: Node) -> Tensor:
    """Tensors joined along an axis, a few at a time."""
    values = node.inputs
    rank = len(c.dims(node.outputs[0]))
    tensors, image = aligned(c, values) if rank == 3 else ([c.plain(v) for v in values], False)
    axis = _axis(tensors[0] if not image else next(t for t in tensors if t.image),
                 node.attributes.get_int("axis"), rank)  # fmt: skip
    while len(tensors) > 1:
        groups = [tensors[i : i + _MOST_JOINED] for i in range(0, len(tensors), _MOST_JOINED)]
        tensors = [_joined(c, group, axis, image) for group in groups]
    return tensors[0]


def _joined(c: Lowering, tensors: Sequence[Tensor], axis: int, image: bool) -> Tensor:
    if len(tensors) == 1:
        return tensors[0]
    lengths = [tensor.dims[axis] for tensor in tensors]
    total = None if None in lengths else sum(n for n in lengths if n is not None)
    merged = [
        next((n for n in axes if n is not None), None)
        for axes in zip(*(tensor.dims for tensor in tensors), strict=True)
    ]
    merged[axis] = total
    return c.emit("CONCATENATION", tensors, tuple(merged), image=image, axis=axis)


@lowers("Slice")
def cut(c: Lowering, node: Node) -> Tensor:
    """A range along axes, by constants; or by a computed end along one axis."""
    x = c.get(node.inputs[0])
    rank = len(c.dims(node.inputs[0]))
    axes = [_axis(x, int(axis), rank) for axis in _constant(c, node, 3)]
    starts = [int(n) for n in _constant(c, node, 1)]
    if len(node.inputs) > 4 and any(n != 1 for n in _constant(c, node, 4)):
        raise c.refuse(node, "a step other than 1")
    stops = c.array(node.inputs[2])
    if stops is None:
        return _cut_to(c, node, x, axes, starts)
    return slice_range(c, x, axes, starts, [int(n) for n in stops])


def _cut_to(
    c: Lowering, node: Node, x: Tensor, axes: Sequence[int], starts: Sequence[int]
) -> Tensor:
    if len(axes) != 1 or starts != [0]:
        raise c.refuse(node, "a computed end of more than one axis, or after a start")
    (axis,) = axes
    stop = c.plain(node.inputs[2])
    sizes: list[Tensor | np.ndarray] = [integers([-1] * axis)] if axis else []
    sizes.append(stop)
    if axis + 1 < x.rank:
        sizes.append(integers([-1] * (x.rank - axis - 1)))
    size = c.emit("CONCATENATION", sizes, (x.rank,), dtype=np.int32, axis=0)
    dims = (*x.dims[:axis], None, *x.dims[axis + 1 :])
    return c.emit("SLICE", [x, integers([0] * x.rank), size], dims, image=x.image)


@lowers("Split")
def split(c: Lowering, node: Node) -> list[Tensor]:
    """Consecutive ranges of an axis of known length."""
    x = c.get(node.inputs[0])
    dims = c.dims(node.inputs[0])
    onnx_axis = node.attributes.get_int("axis", 0) % len(dims)
    length, axis = dims[onnx_axis], _axis(x, onnx_axis, len(dims))
    if length is None:
        raise c.refuse(node, "an axis of unknown length")
    count = len(node.outputs)
    sizes = [int(n) for n in _constant(c, node, 1)] if len(node.inputs) > 1 else (
        [length // count] * count
    )  # fmt: skip
    made, start = [], 0
    for size in sizes:
        made.append(slice_range(c, x, [axis], [start], [start + size]))
        start += size
    return made


_MODES = {"reflect": 0}


@lowers("Pad")
def pad(c: Lowering, node: Node) -> Tensor:
    """Zeros, or a mirror image, before and after axes."""
    x = c.get(node.inputs[0])
    amounts = _constant(c, node, 1).reshape(2, -1).T
    if x.image:
        amounts = np.stack([amounts[0], np.zeros_like(amounts[0]), amounts[2], amounts[1]])
    widths = np.ascontiguousarray(amounts.astype(np.int32))
    mode = node.attributes.get_string("mode", "constant")
    sums = [int(a + b) for a, b in widths]
    dims = tuple(None if n is None else n + s for n, s in zip(x.dims, sums, strict=True))
    if mode == "constant":
        if len(node.inputs) > 2 and node.inputs[2] is not None and _constant(c, node, 2).any():
            raise c.refuse(node, "a value other than 0")
        return c.emit("PAD", [x, widths], dims, image=x.image)
    if mode not in _MODES:
        raise c.refuse(node, f"mode {mode}")
    return c.emit("MIRROR_PAD", [x, widths], dims, image=x.image, mode=_MODES[mode])


@lowers("Gather")
def gather(c: Lowering, node: Node) -> Tensor:
    """Rows of a table, or ranges of another axis by their numbers."""
    axis = node.attributes.get_int("axis", 0)
    table, ids = c.plain(node.inputs[0]), c.plain(node.inputs[1])
    axis %= table.rank
    dims = (*table.dims[:axis], *ids.dims, *table.dims[axis + 1 :])
    return c.emit("GATHER", [table, ids], dims, axis=axis, batchDims=0)


@lowers("Shape")
def shape(c: Lowering, node: Node) -> Tensor:
    """Lengths of axes, known before anything is computed."""
    x = c.get(node.inputs[0])
    rank = len(c.dims(node.inputs[0]))
    start = node.attributes.get_int("start", 0) % (rank + 1)
    stop = min(node.attributes.get_int("end", rank), rank)
    whole = c.emit("SHAPE", [x], (x.rank,), dtype=np.int32, outType=2)
    places = [_axis(x, axis, rank) for axis in range(start, stop)]
    parts = [slice_range(c, whole, [0], [place], [place + 1]) for place in places]
    return _joined(c, parts, 0, image=False)


@lowers("Range")
def count_up(c: Lowering, node: Node) -> Tensor:
    """Integers from a first to before a last."""
    return c.emit("RANGE", [c.plain(value) for value in node.inputs], c.dims(node.outputs[0]))
