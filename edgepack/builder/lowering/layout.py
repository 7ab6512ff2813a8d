"""How values lie in memory: in ONNX order, or as images; and pieces of them."""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from edgepack.builder.lowering.flatbuffer import Dims, Tensor
from edgepack.builder.lowering.lower import Lowering, integers

EXCHANGED = [0, 1, 3, 2]  # a transposition of matrices


def image_dims(dims: Dims) -> Dims:
    """[B, C, T] as it lies in an image."""
    batch, channels, time = dims
    return batch, 1, time, channels


def aligned(c: Lowering, values: Sequence[ir.Value | None]) -> tuple[list[Tensor], bool]:
    """Tensors of values that broadcast with each other in one layout, and whether it is images."""
    tensors = [c.get(value) for value in values]
    if not any(tensor.image for tensor in tensors):
        return tensors, False
    if any(tensor.rank > 3 and not tensor.image for tensor in tensors):
        return [c.plain(value) for value in values], False
    return [_as_image(c, v, t) for v, t in zip(values, tensors, strict=True)], True


def _as_image(c: Lowering, value: ir.Value | None, tensor: Tensor) -> Tensor:
    constant = c.array(value)
    if tensor.image or math.prod(n or 0 for n in tensor.dims) == 1:
        return tensor
    if constant is None:
        return c.image(value)
    wide = constant.reshape((1,) * (3 - constant.ndim) + constant.shape)
    return c.model.constant(np.ascontiguousarray(wide.transpose(0, 2, 1)[:, None]))


def broadcast(tensors: Sequence[Tensor]) -> Dims:
    """Axes of values that broadcast with each other; a known length beats an unknown one."""
    rank = max(tensor.rank for tensor in tensors)
    wide = [(1,) * (rank - tensor.rank) + tensor.dims for tensor in tensors]
    return tuple(_longest(lengths) for lengths in zip(*wide, strict=True))


def _longest(lengths: Sequence[int | None]) -> int | None:
    known = max((n for n in lengths if n is not None), default=1)
    return None if known == 1 and None in lengths else known


def slice_range(
    c: Lowering, x: Tensor, axes: Sequence[int], starts: Sequence[int], stops: Sequence[int]
) -> Tensor:
    """`x[start:stop]` along axes as they lie in memory; negative ones count from the end."""
    begin, end, dims = [0] * x.rank, [0] * x.rank, list(x.dims)
    open_end = set(range(x.rank))
    for axis, start, stop in zip(axes, starts, stops, strict=True):
        begin[axis] = start
        dims[axis] = _length(x.dims[axis], start, stop)
        if stop < np.iinfo(np.int32).max:
            end[axis] = stop
            open_end.discard(axis)
    return c.emit(
        "STRIDED_SLICE",
        [x, integers(begin), integers(end), integers([1] * x.rank)],
        tuple(dims),
        image=x.image,
        beginMask=0,
        endMask=sum(1 << axis for axis in open_end),
    )


def _length(whole: int | None, start: int, stop: int) -> int | None:
    if whole is not None:
        return len(range(whole)[start:stop])
    return stop - start if 0 <= start < stop < np.iinfo(np.int32).max else None
