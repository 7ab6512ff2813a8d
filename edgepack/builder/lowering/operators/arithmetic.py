"""Products, convolutions, norms and sums."""

import math

import numpy as np
import onnx_ir as ir

from edgepack.builder.lowering.flatbuffer import StoredWeight, Tensor
from edgepack.builder.lowering.layout import EXCHANGED, image_dims, slice_range
from edgepack.builder.lowering.lower import Lowering, Node, integers, lowers, present
from edgepack.errors import UnsupportedError
from edgepack.graph.storage import values

_SAME, _VALID = 0, 1


def _weight(c: Lowering, value: ir.Value | None) -> ir.TensorProtocol:
    tensor = present(value).const_value
    if tensor is None:
        raise UnsupportedError(f"{c.stage}: LiteRT lowering: {value} is not a constant weight")
    return tensor


def _vector(c: Lowering, value: ir.Value | None, size: int) -> np.ndarray | None:
    """A constant bias of that many values, or None."""
    found = c.array(value)
    return found if found is not None and found.shape == (size,) else None


@lowers("MatMul")
def matmul(c: Lowering, node: Node) -> Tensor:
    """A product with a weight and its bias, or of two computed matrices."""
    first, second = node.inputs
    if second is None or second.const_value is None:
        return _batched(c, node)
    inputs, out = (int(n) for n in _weight(c, second).shape.numpy())
    tensor = _weight(c, second)
    weight = c.model.weight(
        StoredWeight(
            str(second.name),
            "transposed",
            (out, inputs),
            np.dtype(np.float32),
            lambda: values(tensor).T,
        )
    )
    result, bias = node.outputs[0], None
    add = c.only_user(result, "Add")
    if add is not None:
        other = add.inputs[1] if add.inputs[0] is result else add.inputs[0]
        bias = _vector(c, other, out)
        if bias is not None and other is not None:
            c.done.add(add)
            result = add.outputs[0]
    x = c.plain(first)
    made = c.emit(
        "FULLY_CONNECTED",
        [x, weight, bias],
        (*x.dims[:-1], out),
        keepNumDims=True,
    )
    c.tensors[result] = made
    return made


def _batched(c: Lowering, node: Node) -> Tensor:
    first, second = node.inputs
    source = second.producer() if second is not None else None
    exchanged = (
        source is not None
        and source.op_type == "Transpose"
        and list(source.attributes.get_ints("perm")) == EXCHANGED
    )
    y = c.plain(source.inputs[0] if exchanged and source else second)
    x = c.plain(first)
    dims = (*x.dims[:-2], x.dims[-2], y.dims[-2 if exchanged else -1])
    return c.emit("BATCH_MATMUL", [x, y], dims, adjX=False, adjY=exchanged)


@lowers("Conv")
def convolution(c: Lowering, node: Node) -> Tensor:
    """A convolution along time, `weight` [out, in / groups, k].

    LiteRT takes the number of groups from the channels that a kernel has.
    """
    x = c.image(node.inputs[0])
    weight = _weight(c, node.inputs[1])
    out, inputs, taps = (int(n) for n in weight.shape.numpy())
    if out % (group := node.attributes.get_int("group", 1)) or x.dims[3] != group * inputs:
        raise c.refuse(node, f"{group} groups of {inputs} channels, of {x.dims[3]} in all")
    stride = (node.attributes.get_ints("strides", [1]))[0]
    dilation = (node.attributes.get_ints("dilations", [1]))[0]
    before, after = node.attributes.get_ints("pads", [0, 0])
    span = (taps - 1) * dilation
    same = stride == 1 and before == after and before + after == span
    if not same and (before or after):
        widths = np.array([[0, 0], [0, 0], [before, after], [0, 0]], np.int32)
        x = c.emit("PAD", [x, widths], (*x.dims[:2], None, x.dims[3]), image=True)
    kernel = c.model.weight(
        StoredWeight(
            str(present(node.inputs[1]).name),
            "kernel",
            (out, 1, taps, inputs),
            np.dtype(np.float32),
            lambda: values(weight).transpose(0, 2, 1)[:, None],
        )
    )
    return c.emit(
        "CONV_2D",
        [x, kernel, _bias(c, node, out)],
        image_dims(c.dims(node.outputs[0])),
        image=True,
        padding=_SAME if same else _VALID,
        strideW=stride,
        strideH=1,
        dilationWFactor=dilation,
        dilationHFactor=1,
    )


@lowers("ConvTranspose")
def transposed_convolution(c: Lowering, node: Node) -> Tensor:
    """A transposed convolution as one plain convolution for all samples between two frames.

    `y[s·t + r] = Σⱼ x[t - j] w[s·j + r]`: `s` outputs a frame, read one after the other. XNNPACK
    runs its own transposed convolution only where all lengths are known.
    """
    x = c.image(node.inputs[0])
    weight = _weight(c, node.inputs[1])
    inputs, out, taps = (int(n) for n in weight.shape.numpy())
    stride = node.attributes.get_ints("strides", [1])[0]
    before, after = node.attributes.get_ints("pads", [0, 0])
    reach = math.ceil(taps / stride)  # frames that reach a sample
    if before + after != taps - stride and (before, after) != (0, 0) and reach * stride < taps:
        raise c.refuse(node, f"padding {before}, {after} of {taps} taps")

    def load() -> np.ndarray:
        full = np.zeros((inputs, out, reach * stride), np.float32)
        full[:, :, :taps] = values(weight)
        phases = full.reshape(inputs, out, reach, stride)[:, :, ::-1]  # j = reach - 1 … 0
        kernel = phases.transpose(3, 1, 2, 0)  # [s, out, j, in]
        return kernel.reshape(stride * out, 1, reach, inputs)

    kernel = c.model.weight(
        StoredWeight(
            str(present(node.inputs[1]).name),
            "phases",
            (stride * out, 1, reach, inputs),
            np.dtype(np.float32),
            load,
        )
    )
    batch = x.dims[0]
    widths = np.array([[0, 0], [0, 0], [reach - 1, reach - 1], [0, 0]], np.int32)
    padded = c.emit("PAD", [x, widths], (batch, 1, None, inputs), image=True)
    bias = _bias(c, node, out)
    phases = c.emit(
        "CONV_2D",
        [padded, kernel, np.tile(bias, stride)],
        (batch, 1, None, stride * out),
        image=True,
        padding=_VALID,
        strideW=1,
        strideH=1,
        dilationWFactor=1,
        dilationHFactor=1,
    )
    samples = c.reshape(phases, (batch, 1, None, out), image=True)
    surplus = reach * stride - taps  # samples at the end that no tap reaches
    stop = -(after + surplus) or np.iinfo(np.int32).max
    return slice_range(c, samples, [2], [before], [stop])


def _bias(c: Lowering, node: Node, size: int) -> np.ndarray:
    bias = c.array(node.inputs[2]) if len(node.inputs) > 2 else None
    return np.zeros(size, np.float32) if bias is None else bias


@lowers("Softmax")
def softmax(c: Lowering, node: Node) -> Tensor:
    """Softmax over the last axis."""
    x = c.plain(node.inputs[0])
    if node.attributes.get_int("axis", -1) not in (-1, x.rank - 1):
        raise c.refuse(node, "an axis before the last")
    return c.emit("SOFTMAX", [x], x.dims, beta=1.0)


_REDUCTIONS = {"ReduceMean": "MEAN", "ReduceSum": "SUM", "ReduceMax": "REDUCE_MAX"}


@lowers(*_REDUCTIONS)
def reduction(c: Lowering, node: Node) -> Tensor:
    """A mean, sum or maximum over axes."""
    axes = c.array(node.inputs[1])
    if axes is None:
        raise c.refuse(node, "computed axes")
    x = c.plain(node.inputs[0])
    keep = bool(node.attributes.get_int("keepdims", 1))
    places = [int(axis) % x.rank for axis in axes]
    dims = (1 if axis in places else n for axis, n in enumerate(x.dims))
    left = tuple(n for axis, n in enumerate(dims) if keep or axis not in places)
    return c.emit(_REDUCTIONS[node.op_type], [x, integers(places)], left, keepDims=keep)


@lowers("LayerNormalization")
def layer_normalization(c: Lowering, node: Node) -> Tensor:
    """`(x - mean) / √(variance + ε) · scale + bias` over the last axis."""
    x = c.plain(node.inputs[0])
    if node.attributes.get_int("axis", -1) not in (-1, x.rank - 1):
        raise c.refuse(node, "an axis before the last")
    row, last = (*x.dims[:-1], 1), integers([x.rank - 1])
    mean = c.emit("MEAN", [x, last], row, keepDims=True)
    centred = c.emit("SUB", [x, mean], x.dims)
    squares = c.emit("MUL", [centred, centred], x.dims)
    variance = c.emit("MEAN", [squares, last], row, keepDims=True)
    epsilon = np.array(node.attributes.get_float("epsilon", 1e-5), np.float32)
    scaled = c.emit("ADD", [variance, epsilon], row)
    unit = c.emit("MUL", [centred, c.emit("RSQRT", [scaled], row)], x.dims)
    result = c.emit("MUL", [unit, c.get(node.inputs[1])], x.dims)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        result = c.emit("ADD", [result, c.get(node.inputs[2])], x.dims)
    return result


@lowers("CumSum")
def cumulative_sum(c: Lowering, node: Node) -> Tensor:
    """Sums of everything up to a place."""
    x = c.plain(node.inputs[0])
    axis = c.array(node.inputs[1])
    if axis is None:
        raise c.refuse(node, "a computed axis")
    place = integers([int(axis.reshape(-1)[0]) % x.rank])
    return c.emit("CUMSUM", [x, place], x.dims, exclusive=False, reverse=False)
