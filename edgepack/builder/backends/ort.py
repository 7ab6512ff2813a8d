"""ONNX Runtime: `.onnx` with external weights, or `.ort` by its own converter.

fp16 weights of what runs for every token are written as `.onnx` in either case: ONNX Runtime
unpacks them once when it loads that format, but at every call from `.ort`.
"""

import logging
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from edgepack.builder.backend import Job, quietly
from edgepack.builder.backends._ort_attention import fuse_attention
from edgepack.builder.backends._ort_continuing import write_continuing
from edgepack.builder.backends._ort_decoder import fuse_decoder
from edgepack.builder.backends._ort_half import compute_in_half
from edgepack.builder.backends._ort_order import sort_kernel_types
from edgepack.builder.backends._ort_quantize import quantize
from edgepack.errors import ResourceError, UnsupportedError
from edgepack.graph.net import batched_of, continuing_of, save_model
from edgepack.graph.opset import lowered
from edgepack.graph.storage import parts, store_as_float16, unlinked
from edgepack.process import shortage
from edgepack.profiles.recipe import QUANTIZED

REQUIRED_OPERATORS = "required_operators_and_types.config"
_FLATBUFFER_LIMIT = 2**31 - 2**20
# Activations that are quantized by one scale for all rows, so that each depends on the others.
_MIXING = frozenset({"dynamic"})
_FATAL_SEVERITY = 4  # what is less is an exception too


class _Ort:
    containers = ("onnx", "ort")
    caches = "grown"

    def convert(self, job: Job) -> list[Path]:
        if job.options.batched and job.recipe.method not in _MIXING:
            several = batched_of(job.model)
            if several.exists():
                with tempfile.TemporaryDirectory(dir=job.folder) as folder:
                    form = _named(several, job.model, folder)
                    return self._lowered(replace(job, model=form, hub=job.recorded))
        return self._lowered(job)

    def _lowered(self, job: Job) -> list[Path]:
        _require_support(job)
        if job.options.opset:
            with tempfile.TemporaryDirectory(dir=job.folder) as folder:
                older = Path(folder, "older", job.model.name)
                older.parent.mkdir()
                own = unlinked(job.model, Path(folder))
                save_model(lowered(own, job.options.opset), older)
                return self._convert(replace(job, model=older, hub=job.recorded))
        return self._convert(job)

    def _convert(self, job: Job) -> list[Path]:
        if job.recipe.method == "none" and job.options.container == "onnx":
            files = [_place(path, job.folder) for path in parts(job.model)]
            if job.options.fuse:
                _fuse(job, files[0])
            return files
        with tempfile.TemporaryDirectory(dir=job.folder) as folder:
            model = unlinked(job.model, Path(folder))
            if job.recipe.method == "islands":
                changed = Path(folder, "changed", model.name)
                changed.parent.mkdir()
                files = compute_in_half(job, model, changed)
                return [_place(path, job.folder) for path in files]
            half = job.recipe.method == "half"
            changed = Path(folder, "changed", model.name)
            changed.parent.mkdir()
            if job.recipe.method == "none":
                for path in parts(model):
                    _place(path, changed.parent)
            elif half:
                store_as_float16(model, changed)
            else:
                quantize(job, model, changed)
            if job.options.fuse:
                _fuse(job, changed)
            if job.options.container == "ort" and not (half and _runs_every_token(job, model)):
                return [_converted(job, changed)]
            return [_place(path, job.folder) for path in parts(changed)]

    def continuing(self, job: Job, model: Path) -> list[Path]:
        """Keys and values are float16 beside integer weights.

        An `.ort` file has its weights within, so there they would be there twice.
        """
        other = continuing_of(job.model)
        if not job.options.continuing or job.options.container != "onnx" or not other.exists():
            return []
        with tempfile.TemporaryDirectory(dir=job.folder) as folder:
            source, made = Path(folder, "source"), Path(folder, "made")
            source.mkdir()
            made.mkdir()
            form = _named(other, job.model, str(source))
            files = self._lowered(replace(job, model=form, folder=made, hub=job.recorded))
            target = continuing_of(model)
            write_continuing(files[0], model, target, half=job.recipe.precision in QUANTIZED)
            return [target]

    def complete(self, folder: Path) -> None:
        """For .ort files, the operators and types that a reduced ONNX Runtime has to have.

        It is what `build.py --include_ops_by_config` takes. Networks that stayed .onnx need a
        complete runtime, and so have no such file.
        """
        from onnxruntime.tools.ort_format_model import create_config_from_models

        models = sorted(folder.glob("*.ort"))
        if models and not any(folder.glob("*.onnx")):
            config = folder / REQUIRED_OPERATORS
            create_config_from_models(models, config, True)
            lines = config.read_text("utf-8").splitlines()  # comments name paths of this machine
            kept = sorted(line for line in lines if line and not line.startswith("#"))
            config.write_text("\n".join([*kept, ""]), "utf-8")


def _fuse(job: Job, model: Path) -> None:
    """Put operators of ONNX Runtime alone into a file: a decoder's, or attention without caches."""
    if not (job.options.fuse_decoder and fuse_decoder(model, model, job.states)):
        fuse_attention(model, model)


def _named(graph: Path, model: Path, folder: str) -> Path:
    """Another graph over a model's weights, in a folder under the model's name."""
    whole = parts(model)
    shutil.copyfile(graph, Path(folder, model.name))
    for weights in whole[1:]:
        _place(weights, Path(folder))
    return Path(folder, model.name)


def _runs_every_token(job: Job, model: Path) -> bool:
    """Whether it is the decoder, or a table that is looked up for it."""
    return bool(job.states) or {node.op_type for node in ir.load(model).graph} == {"Gather"}


def _require_support(job: Job) -> None:
    """Raise UnsupportedError unless ONNX Runtime knows every operator; weights stay on disk."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.add_session_config_entry("session.disable_prepacking", "1")
    settings.log_severity_level = _FATAL_SEVERITY
    try:
        onnxruntime.InferenceSession(str(job.model), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # the engine's own exceptions share no base class
        if shortage.of_memory(error):
            raise ResourceError(
                f"{job.stage}: memory ran out ({error}); close other programs"
            ) from None
        raise UnsupportedError(f"{job.stage}: ONNX Runtime cannot run it: {error}") from None


def _place(path: Path, folder: Path) -> Path:
    """A hub file in the bundle: the same file under a second name, or a copy."""
    target = folder / path.name
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
    return target


def _converted(job: Job, model: Path) -> Path:
    """A model in ORT format, optimized for the target platform."""
    from onnxruntime.tools import convert_onnx_models_to_ort as converter

    size = sum(path.stat().st_size for path in parts(model))
    if size > _FLATBUFFER_LIMIT:
        raise UnsupportedError(
            f"{job.stage}: {size / 1e9:.1f} GB of weights do not fit an .ort file (2 GB); "
            "choose a target that stores .onnx"
        )
    with quietly(logging.INFO):
        converter.convert_onnx_models_to_ort(
            model,
            output_dir=job.folder,
            optimization_styles=[converter.OptimizationStyle.Fixed],
            target_platform=job.options.platform or None,
        )
    for config in job.folder.glob(f"{job.model.stem}*.config"):
        config.unlink()
    path = job.folder / f"{job.model.stem}.ort"
    sort_kernel_types(path)
    return path


BACKEND = _Ort()
