"""Operators that work value by value, in any layout."""

import math

import numpy as np
import onnx_ir as ir

from edgepack.builder.lowering.flatbuffer import Tensor
from edgepack.builder.lowering.layout import aligned, broadcast
from edgepack.builder.lowering.lower import Lowering, Node, lowers

_SQUARE_ROOT_OF_2 = math.sqrt(2.0)
_TANH_SCALE = math.sqrt(2.0 / math.pi)


def _same(c: Lowering, node: Node, code: str, **options: object) -> Tensor:
    tensors, image = aligned(c, node.inputs)
    return c.emit(code, tensors, broadcast(tensors), image=image, **options)


_UNARY = {
    "Abs": "ABS",
    "Ceil": "CEIL",
    "Cos": "COS",
    "Elu": "ELU",
    "Exp": "EXP",
    "Floor": "FLOOR",
    "Log": "LOG",
    "Neg": "NEG",
    "Relu": "RELU",
    "Sigmoid": "LOGISTIC",
    "Sin": "SIN",
    "Sqrt": "SQRT",
    "Tanh": "TANH",
}
_BINARY = {"Add": "ADD", "Max": "MAXIMUM", "Min": "MINIMUM", "Mul": "MUL", "Sub": "SUB"}


@lowers(*_UNARY)
def unary(c: Lowering, node: Node) -> Tensor:
    """A function of one value. LiteRT's ELU has alpha 1."""
    if node.attributes.get_float("alpha", 1.0) != 1.0:
        raise c.refuse(node, "alpha is not 1")
    return _same(c, node, _UNARY[node.op_type])


@lowers(*_BINARY)
def binary(c: Lowering, node: Node) -> Tensor:
    """A function of two values that broadcast."""
    if len(node.inputs) != 2:
        raise c.refuse(node, f"{len(node.inputs)} inputs")
    return _same(c, node, _BINARY[node.op_type])


@lowers("Div")
def divide(c: Lowering, node: Node) -> Tensor:
    """Division; of integers, which are not negative here, rounded down. GELU begins with one."""
    fused = _gelu(c, node)
    if fused is not None:
        return fused
    return _same(c, node, "DIV" if c.get(node.inputs[0]).dtype == np.float32 else "FLOOR_DIV")


@lowers("Sum")
def add_all(c: Lowering, node: Node) -> Tensor:
    """A sum of several values of one shape."""
    tensors, image = aligned(c, node.inputs)
    total = tensors[0]
    for tensor in tensors[1:]:
        total = c.emit("ADD", [total, tensor], total.dims, image=image)
    return total


@lowers("LeakyRelu")
def leaky_relu(c: Lowering, node: Node) -> Tensor:
    """`x` if it is positive, else `alpha · x`."""
    return _same(c, node, "LEAKY_RELU", alpha=node.attributes.get_float("alpha", 0.01))


@lowers("Pow")
def power(c: Lowering, node: Node) -> Tensor:
    """The square or the cube of a value. GELU by a tanh begins with a cube."""
    exponent = _number(c, node.inputs[1])
    if exponent not in (2.0, 3.0):
        raise c.refuse(node, "only squares and cubes")
    fused = _tanh_gelu(c, node) if exponent == 3.0 else None
    if fused is not None:
        return fused
    x = c.get(node.inputs[0])
    square = c.emit("MUL", [x, x], x.dims, image=x.image)
    return square if exponent == 2.0 else c.emit("MUL", [square, x], x.dims, image=x.image)


@lowers("Greater", "Less")
def compare(c: Lowering, node: Node) -> Tensor:
    """A comparison, as bool."""
    return _same(c, node, node.op_type.upper(), dtype=np.bool_)


@lowers("Where")
def where(c: Lowering, node: Node) -> Tensor:
    """One of two values by a condition."""
    tensors = [c.plain(value) for value in node.inputs]
    return c.emit("SELECT_V2", tensors, broadcast(tensors), dtype=tensors[1].dtype)


@lowers("Cast")
def cast(c: Lowering, node: Node) -> Tensor:
    """Another element type; 64-bit integers are 32-bit."""
    dtype = ir.DataType(node.attributes.get_int("to")).numpy()
    dtype = np.dtype(np.int32) if dtype == np.int64 else dtype
    x = c.get(node.inputs[0])
    return x if x.dtype == dtype else c.emit("CAST", [x], x.dims, dtype=dtype, image=x.image)


@lowers("Clip")
def clip(c: Lowering, node: Node) -> Tensor:
    """A value held between two constants."""
    x = c.get(node.inputs[0])
    for code, bound in zip(("MAXIMUM", "MINIMUM"), node.inputs[1:], strict=False):
        if bound is not None:
            x = c.emit(code, [x, c.get(bound)], x.dims, image=x.image)
    return x


@lowers("Erf")
def error_function(c: Lowering, node: Node) -> Tensor:
    """LiteRT has it only as a part of GELU."""
    raise c.refuse(node, "it is not part of a GELU")


def _gelu(c: Lowering, divide: Node) -> Tensor | None:
    """GELU for `x · (1 + erf(x / √2)) · ½`, found at its division; None if this is another one."""
    erf = c.only_user(divide.outputs[0], "Erf")
    plus = erf and c.only_user(erf.outputs[0], "Add")
    times = plus and c.only_user(plus.outputs[0], "Mul")
    half = times and c.only_user(times.outputs[0], "Mul")
    if not (erf and plus and times and half) or divide.inputs[0] not in times.inputs:
        return None
    numbers = [_number(c, v) for v in (divide.inputs[1], plus.inputs[1], half.inputs[1])]
    if numbers != [round(_SQUARE_ROOT_OF_2, 6), 1.0, 0.5]:
        return None
    x = c.get(divide.inputs[0])
    made = c.emit("GELU", [x], x.dims, image=x.image, approximate=False)
    c.done.update((erf, plus, times, half))
    c.tensors[half.outputs[0]] = made
    return made


def _tanh_gelu(c: Lowering, cube: Node) -> Tensor | None:
    """GELU for `½x · (1 + tanh(√(2/π) (x + 0.044715 x³)))`, found at its cube; None if it is none.

    Constants are the second inputs.
    """
    value = cube.inputs[0]
    small = c.only_user(cube.outputs[0], "Mul")
    inner = small and c.only_user(small.outputs[0], "Add")
    scaled = inner and c.only_user(inner.outputs[0], "Mul")
    tanh = scaled and c.only_user(scaled.outputs[0], "Tanh")
    plus = tanh and c.only_user(tanh.outputs[0], "Add")
    times = plus and c.only_user(plus.outputs[0], "Mul")
    if not (small and inner and scaled and tanh and plus and times):
        return None
    half = next(
        (v.producer() for v in times.inputs if v is not None and v is not plus.outputs[0]), None
    )
    if half is None or half.op_type != "Mul" or half in c.done or value not in inner.inputs:
        return None
    constants = (small.inputs[1], scaled.inputs[1], plus.inputs[1], half.inputs[1])
    if [_number(c, v) for v in constants] != [0.044715, round(_TANH_SCALE, 6), 1.0, 0.5]:
        return None
    if half.inputs[0] is not value or c.only_user(half.outputs[0], "Mul") is not times:
        return None
    x = c.get(value)
    made = c.emit("GELU", [x], x.dims, image=x.image, approximate=True)
    c.done.update((small, inner, scaled, tanh, plus, times, half))
    c.tensors[times.outputs[0]] = made
    return made


def _number(c: Lowering, value: ir.Value | None) -> float | None:
    """A constant of one number, to six decimals."""
    found = c.array(value)
    if found is None or found.size != 1:
        return None
    return round(float(found.reshape(-1)[0]), 6)
