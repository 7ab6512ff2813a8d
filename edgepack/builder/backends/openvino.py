"""OpenVINO IR: `.xml` and `.bin`, decoders with their caches as internal state."""

import functools
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgepack.builder.backend import Job
from edgepack.builder.backends._openvino_quantize import quantize
from edgepack.errors import UnsupportedError
from edgepack.graph.rows import quantize_rows
from edgepack.graph.storage import unlinked

if TYPE_CHECKING:
    import openvino

# sin(2πr) = r · P(r²) for |r| ≤ ½: least squares at Chebyshev nodes, largest error 1e-9.
_SINE = (
    6.2831852724, -41.341697038, 81.605023638, -76.701537670,
    42.016075761, -14.868322748, 3.1993388399,
)  # fmt: skip


_PLAIN = ("none", "half", "rows")  # what needs no quantizer


class _OpenVino:
    containers = ("xml",)
    caches = "inside"

    def convert(self, job: Job) -> list[Path]:
        import openvino
        from openvino._offline_transformations import apply_make_stateful_transformation

        with tempfile.TemporaryDirectory(dir=job.folder) as folder:
            source = job.model
            if job.recipe.method == "rows":
                source = _rows(job.model, Path(folder))
            try:
                model = openvino.Core().read_model(source)
            except RuntimeError as error:
                raise UnsupportedError(
                    f"{job.stage}: OpenVINO cannot convert it: {error}"
                ) from None
            _expand_sines(model)
            if job.recipe.method not in _PLAIN:
                model = quantize(job, model)
            if job.states:
                apply_make_stateful_transformation(model, {s.input: s.output for s in job.states})
            path = job.folder / f"{job.model.stem}.xml"
            openvino.save_model(model, path, compress_to_fp16=job.recipe.method == "half")
        return [path, path.with_suffix(".bin")]

    def continuing(self, job: Job, model: Path) -> list[Path]:
        """None: what earlier frames leave is only handed on in ONNX Runtime."""
        return []

    def complete(self, folder: Path) -> None:
        """Nothing to write: the files are complete by themselves."""


def _rows(model: Path, folder: Path) -> Path:
    (folder / "rows").mkdir()
    return quantize_rows(unlinked(model, folder), folder / "rows" / model.name)


def _expand_sines(model: "openvino.Model") -> None:
    """Replace Sin by arithmetic that OpenVINO vectorises; its own Sin is one value at a time.

    Whole turns are taken off first, so the argument may be of any size.
    """
    from openvino import opset13 as op

    @functools.cache
    def number(value: float) -> "openvino.Node":
        return op.constant(np.float32(value))

    for node in model.get_ordered_ops():
        if node.get_type_name() != "Sin":
            continue
        turns = op.multiply(node.input_value(0), number(1.0 / (2.0 * math.pi)))
        r = op.subtract(turns, op.floor(op.add(turns, number(0.5))))
        square = op.multiply(r, r)
        value = number(_SINE[-1])
        for coefficient in _SINE[-2::-1]:
            value = op.add(op.multiply(value, square), number(coefficient))
        sine = op.multiply(value, r)
        sine.output(0).set_names(node.output(0).get_names())
        node.output(0).replace(sine.output(0))
    model.validate_nodes_and_infer_types()


BACKEND = _OpenVino()
