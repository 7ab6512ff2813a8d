"""Quantization for OpenVINO, by NNCF."""

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgepack.builder.backend import Job, quietly, require_quantized
from edgepack.builder.calibration.samples import read_calls
from edgepack.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    import openvino

_INTEGERS = ("i8", "u8", "i4", "u4")


def quantize(job: Job, model: "openvino.Model") -> "openvino.Model":
    """The model with the weights that the recipe asks for; it has to be without states yet."""
    import nncf

    method = _METHODS.get(job.recipe.method)
    if method is None:
        raise UnsupportedError(f"OpenVINO has no method {job.recipe.method!r}")
    with quietly(logging.WARNING):  # it draws progress bars
        changed = method(nncf, job, model)
    require_quantized(job, quantized_weights(changed))
    return changed


def quantized_weights(model: "openvino.Model") -> int:
    """How many integer constants of more than one value a model has that are converted."""
    return sum(
        node.get_type_name() == "Constant"
        and node.get_element_type().get_type_name() in _INTEGERS
        and node.get_output_size() > 0
        and len(node.get_output_shape(0)) > 1
        for node in model.get_ops()
    )


def _compressed(nncf: Any, job: Job, model: "openvino.Model") -> "openvino.Model":
    options = job.recipe.options
    mode = nncf.CompressWeightsMode(options["mode"])
    left = _left(nncf, job, model)
    if mode in (nncf.CompressWeightsMode.INT8_SYM, nncf.CompressWeightsMode.INT8_ASYM):
        return nncf.compress_weights(model, mode=mode, ignored_scope=left)
    return nncf.compress_weights(
        model,
        mode=mode,
        group_size=options["group"],
        ratio=1.0,
        all_layers=True,
        ignored_scope=left,
    )


def _left(nncf: Any, job: Job, model: "openvino.Model") -> Any:
    """The operators whose weight the recipe leaves in floating point."""
    names = [
        node.get_friendly_name()
        for node in model.get_ops()
        if any(job.recipe.leaves(i.get_node().get_friendly_name()) for i in node.input_values())
    ]
    return nncf.IgnoredScope(names=names)


def _calibrated(nncf: Any, job: Job, model: "openvino.Model") -> "openvino.Model":
    if job.samples is None:
        raise UsageError(f"{job.stage}: recipe {job.recipe.method!r} needs recorded inputs")
    calls = [dict(call) for call in read_calls(job.samples, job.stage)]
    return nncf.quantize(
        model,
        nncf.Dataset(calls),
        preset=nncf.QuantizationPreset(job.recipe.options["preset"]),
        subset_size=len(calls),
        ignored_scope=_left(nncf, job, model),
    )


_METHODS: Mapping[str, Callable[[Any, Job, "openvino.Model"], "openvino.Model"]] = {
    "compress": _compressed,
    "quantize": _calibrated,
}
