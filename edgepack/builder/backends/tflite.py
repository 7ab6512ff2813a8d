"""LiteRT: `.tflite` files by our own lowering, quantized by ai-edge-quantizer."""

import contextlib
import io
import logging
import re
import tempfile
from pathlib import Path
from typing import Any

from edgepack.builder.backend import Job, quietly, require_quantized
from edgepack.builder.lowering.lower import lower
from edgepack.errors import UnsupportedError
from edgepack.graph.net import slots_of
from edgepack.graph.rows import quantize_rows
from edgepack.graph.storage import unlinked

DECODER_SIGNATURES = ("prefill", "decode")
SIGNATURES = ("serving_default",)


class _LiteRt:
    containers = ("tflite",)
    caches = "slots"

    def convert(self, job: Job) -> list[Path]:
        target = job.folder / f"{job.model.stem}.tflite"
        signatures = DECODER_SIGNATURES if job.states else SIGNATURES
        with tempfile.TemporaryDirectory(dir=job.folder) as folder:
            source = slots_of(job.model) if job.states else job.model
            whole = Path(folder, target.name)
            if job.recipe.method == "rows":
                (Path(folder) / "rows").mkdir()
                rows = Path(folder, "rows", source.name)
                source = quantize_rows(unlinked(source, Path(folder)), rows)
            lower(job.stage, source, whole, signatures)
            if job.recipe.method in ("none", "rows"):
                whole.replace(target)
            else:
                _quantize(job, whole, target)
        return [target]

    def continuing(self, job: Job, model: Path) -> list[Path]:
        """None: what earlier frames leave is only handed on in ONNX Runtime."""
        return []

    def complete(self, folder: Path) -> None:
        """Nothing to write: the files are complete by themselves."""


def _quantize(job: Job, model: Path, target: Path) -> None:
    """Write the model with the weights that the recipe asks for."""
    from ai_edge_quantizer import quantizer

    done = quantizer.Quantizer(str(model), _recipe(job, model))
    with quietly(logging.WARNING), contextlib.redirect_stderr(io.StringIO()):
        result = done.quantize()
        result.export_model(str(target))
    if job.recipe.quantized:
        require_quantized(job, quantized_weights(target))


def _recipe(job: Job, model: Path) -> list[dict[str, Any]]:
    """The recipe in the words of ai-edge-quantizer, for every operator that it can quantize.

    Weights that stay in floating point are of operators whose outputs are named here.
    """
    from ai_edge_quantizer import qtyping, recipe_manager

    options = job.recipe.options
    manager = recipe_manager.RecipeManager()
    everything: dict[str, Any] = {
        "regex": ".*",
        "operation_name": qtyping.TFLOperationName.ALL_SUPPORTED,
    }
    if job.recipe.method == "half":
        manager.add_quantization_config(
            **everything,
            op_config=qtyping.OpQuantizationConfig(
                weight_tensor_config=qtyping.TensorQuantizationConfig(
                    num_bits=16, dtype=qtyping.TensorDataType.FLOAT
                ),
                compute_precision=qtyping.ComputePrecision.FLOAT,
                explicit_dequantize=True,
            ),
            algorithm_key="float_casting",
        )
        return manager.get_quantization_recipe()
    block = options.get("block")
    granularity = qtyping.QuantGranularity(f"BLOCKWISE_{block}" if block else "CHANNELWISE")
    add = {"dynamic": manager.add_dynamic_config, "weights": manager.add_weight_only_config}
    if job.recipe.method not in add:
        raise UnsupportedError(f"LiteRT has no method {job.recipe.method!r}")
    add[job.recipe.method](**everything, num_bits=options["bits"], granularity=granularity)
    for name in _left(job, model):
        manager.add_quantization_config(
            regex=f"(^|;){re.escape(name)}(;|$)",
            operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
            algorithm_key="no_quantize",
        )
    return manager.get_quantization_recipe()


def _left(job: Job, model: Path) -> list[str]:
    """Outputs of the operators that read a weight which the recipe leaves in floating point."""
    from ai_edge_litert.tools import flatbuffer_utils

    (graph, *_) = flatbuffer_utils.read_model(str(model)).subgraphs
    names = [tensor.name.decode() for tensor in graph.tensors]
    return [
        names[operator.outputs[0]]
        for operator in graph.operators
        if any(index >= 0 and job.recipe.leaves(names[index]) for index in operator.inputs)
    ]


def quantized_weights(model: Path) -> int:
    """The number of quantized weights in a file: integer constants with a scale."""
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    integers = {schema.TensorType.INT8, schema.TensorType.INT4}
    loaded = flatbuffer_utils.read_model(str(model))
    return sum(
        tensor.type in integers and tensor.quantization is not None and tensor.buffer != 0
        for graph in loaded.subgraphs
        for tensor in graph.tensors
    )


BACKEND = _LiteRt()
