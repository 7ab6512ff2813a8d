"""Quantization for ONNX Runtime, by its own tools."""

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx_ir as ir

from edgepack.builder.backend import Job, quietly, require_quantized
from edgepack.builder.backends._ort_compensated import compensate
from edgepack.builder.calibration.samples import read_calls
from edgepack.errors import UnsupportedError, UsageError
from edgepack.graph.net import BATCH, save_model
from edgepack.graph.rows import has_tables, quantize_rows
from edgepack.graph.storage import store_as_float16

_INTEGERS = {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4}
_SMALLEST_BLOCK = 32
_KERNELS = {"MatMulNBits", "MatMulInteger", "DequantizeLinear"}
_QUANTIZED = _KERNELS | {"Gather"}


def quantize(job: Job, model: Path, target: Path) -> None:
    """Write the model with the weights that the recipe asks for.

    Its embedding tables become rows of 8 bits, other large weights float16.
    """
    method = _METHODS.get(job.recipe.method)
    if method is None:
        raise UnsupportedError(f"ONNX Runtime has no method {job.recipe.method!r}")
    with quietly(logging.WARNING):
        if job.options.container == "ort":  # its engine would unpack halves at every call
            method(job, model, target)
        else:
            whole, rows = (target.with_name(f"{name}.{target.name}") for name in ("whole", "rows"))
            method(job, model, whole)
            if has_tables(whole):
                whole = quantize_rows(whole, rows)
            store_as_float16(whole, target, leave=_KERNELS)
    require_quantized(job, quantized_operators(target))


def quantized_operators(model: Path) -> int:
    """How many operators of an `.onnx` file read an integer weight."""
    return sum(
        node.op_type in _QUANTIZED and any(map(_is_integer_weight, node.inputs))
        for node in ir.load(model).graph
    )


def _is_integer_weight(value: ir.Value | None) -> bool:
    tensor = value.const_value if value is not None else None
    return tensor is not None and tensor.dtype in _INTEGERS and tensor.size > 1


def _rows(job: Job, model: Path, target: Path) -> None:
    quantize_rows(model, target)


def _blocks(job: Job, model: Path, target: Path) -> None:
    """Weights of MatMul in blocks along the reduced axis, smaller ones if none would be filled."""
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    options = job.recipe.options
    quantizer = MatMulNBitsQuantizer(
        onnx.load(model),
        bits=options["bits"],
        block_size=_block(model, int(cast(int, options["block"]))),
        is_symmetric=options["symmetric"],
        accuracy_level=options["accuracy"],
        nodes_to_exclude=_left(job, model),
    )
    quantizer.process()
    raw = target.with_suffix(".raw.onnx")
    quantizer.model.save_model_to_file(str(raw), True)
    _rewrite(raw, target)


def _block(model: Path, largest: int) -> int:
    """The largest block that divides the reduced axis of every weight, at least 32."""
    weights = (n.inputs[1] for n in ir.load(model).graph if n.op_type == "MatMul")
    tensors = [w.const_value.numpy() for w in weights if w is not None and w.const_value]
    depths = {tensor.shape[0] for tensor in tensors}
    while largest > _SMALLEST_BLOCK and any(depth % largest for depth in depths):
        largest //= 2
    return largest


def _dynamic(job: Job, model: Path, target: Path) -> None:
    """8-bit weights a channel, activations quantized at each call."""
    from onnxruntime.quantization import quantize_dynamic

    raw = target.with_suffix(".raw.onnx")
    quantize_dynamic(
        model,
        raw,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=bool(job.recipe.options["reduce_range"]),
        weight_type=_type(job.recipe.options["weights"]),
        nodes_to_exclude=_left(job, model),
        use_external_data_format=True,
        extra_options={"MatMulConstBOnly": True},
    )
    _rewrite(raw, target)


def _static(job: Job, model: Path, target: Path) -> None:
    """Quantize-dequantize pairs with ranges of recorded inputs."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    if job.samples is None:
        raise UsageError(f"{job.stage}: recipe {job.recipe.method!r} needs recorded inputs")

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # its base has no types
        def __init__(self, calls: Iterator[Mapping[str, np.ndarray]]) -> None:
            self.calls = calls

        def get_next(self) -> dict[str, np.ndarray] | None:
            call = next(self.calls, None)
            return None if call is None else {**call, **_nothing_before(model, call)}

    options = job.recipe.options
    raw = target.with_suffix(".raw.onnx")
    quantize_static(
        model,
        raw,
        Reader(read_calls(job.samples, job.stage)),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=bool(options["reduce_range"]),
        activation_type=_type(options["activations"]),
        weight_type=_type(options["weights"]),
        nodes_to_exclude=_left(job, model),
        use_external_data_format=True,
        extra_options={
            "ActivationSymmetric": options["activations"] == "int8",
            "WeightSymmetric": True,
            "MatMulConstBOnly": True,
            "QDQKeepRemovableActivations": False,
        },
    )
    _rewrite(raw, target)


def _nothing_before(model: Path, call: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs that a recorded call lacks: of a form that goes on from earlier frames, none here."""
    batch = max(len(value) for value in call.values())
    lengths = {BATCH: batch}
    return {
        str(value.name): np.zeros(
            [n if isinstance(n, int) else lengths.get(str(n), 0) for n in value.shape], np.float32
        )
        for value in ir.load(model).graph.inputs
        if value.name not in call and value.shape is not None
    }


def _left(job: Job, model: Path) -> list[str]:
    """Names of the nodes whose weight the recipe leaves in floating point."""
    return [
        str(node.name)
        for node in ir.load(model).graph
        if any(value is not None and job.recipe.leaves(str(value.name)) for value in node.inputs)
    ]


def _type(name: Any) -> Any:
    from onnxruntime.quantization import QuantType

    return {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}[name]


def _rewrite(raw: Path, target: Path) -> None:
    """A tool's file as one of ours: the same order and layout each time."""
    save_model(ir.load(raw), target)
    for part in raw.parent.glob(f"{raw.name}*"):
        part.unlink()


_METHODS: Mapping[str, Callable[[Job, Path, Path], None]] = {
    "rows": _rows,
    "nbits": _blocks,
    "dynamic": _dynamic,
    "static": _static,
    "gptq": compensate,
}
