"""What `trt.json` says of a bundle: each network's provider, its options, the shapes to expect."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from edgepack.builder.hub import HubStage
from edgepack.bundle.bundle import stored
from edgepack.bundle.host import HostLoops
from edgepack.bundle.manifest import Variant
from edgepack.errors import UsageError
from edgepack.graph.net import BATCH
from edgepack.profiles.recipe import named
from edgepack.profiles.target import Gpu, Span
from edgepack.runtime.gpu.description import (
    CACHE,
    FILE,
    SCHEMA,
    Description,
    StageOnGpu,
    encode,
    of_files,
)
from edgepack.runtime.gpu.placement import RUNTIME

_ISLANDS = ".islands.json"
_KINDS = ("alone", "growing", "exact", "angles")
_ROWS = (1, 2, 2)  # of the estimator: with guidance it has two
# In fp32 all bits count. Every utterance has a new length, and cuDNN's heuristics take longer to
# prepare a convolution for one than they save, and find none for some lengths in fp16.
_CUDA = {
    "use_tf32": "0",
    "cudnn_conv_algo_search": "DEFAULT",
    "cudnn_conv1d_pad_to_nc1d": "1",
    "arena_extend_strategy": "kSameAsRequested",
}


def write(
    folder: Path,
    stages: Sequence[HubStage],
    variants: Mapping[str, Mapping[str, Variant]],
    host: HostLoops,
    gpu: Gpu,
) -> None:
    """Write the description of a bundle's networks to its folder."""
    found = {stage.name: _stage(folder, stage, variants[stage.name], host, gpu) for stage in stages}
    described = Description(
        schema=SCHEMA, architecture=gpu.architecture, releases=gpu.releases, stages=found
    )
    (folder / FILE).write_bytes(encode(described))


def _stage(
    folder: Path, stage: HubStage, variants: Mapping[str, Variant], host: HostLoops, gpu: Gpu
) -> StageOnGpu:
    variant = variants[RUNTIME]
    islands = next((file for file in variant.files if file.endswith(_ISLANDS)), "")
    counts = json.loads((folder / islands).read_text("utf-8")) if islands else {}
    hashes = [stored(folder / file).sha256 for file in variant.files]
    provider = gpu.provider(stage.use.role)
    options = {"cuda": _CUDA} if provider != "cpu" else {}
    if provider == "tensorrt":
        shapes = _shapes(stage, host, gpu)
        options["tensorrt"] = _tensorrt(stage.name, variant, gpu, shapes)
    return StageOnGpu(
        provider=provider,
        files=variant.files,
        model=of_files(hashes),
        precision=variant.precision,
        fp16_nodes=counts.get("fp16_nodes", 0),
        fp32_nodes=counts.get("fp32_nodes", 0),
        islands=islands,
        options=options,
    )


def _tensorrt(
    name: str, variant: Variant, gpu: Gpu, shapes: Mapping[str, Sequence[Sequence[int]]]
) -> dict[str, str]:
    """Options of the TensorRT provider.

    It may compute anything in fp16 once it may at all, so the operators that islands are for are
    left to CUDA.
    """
    recipe = named(RUNTIME, variant.recipe)
    profiles = {
        f"trt_profile_{key}_shapes": ",".join(
            f"{value}:{'x'.join(map(str, ends[position]))}" for value, ends in shapes.items()
        )
        for position, key in enumerate(("min", "opt", "max"))
    }
    half = variant.precision in ("fp16", "int8")
    kept = sorted({str(k) for kind in _KINDS for k in _listed(recipe.options.get(kind, []))})
    return {
        "trt_fp16_enable": str(int(half)),
        "trt_int8_enable": str(int(variant.precision == "int8")),
        "trt_layer_norm_fp32_fallback": str(int(half)),
        "trt_op_types_to_exclude": ",".join(kept if recipe.method == "islands" else []),
        "trt_max_workspace_size": str(gpu.workspace_mb << 20),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": f"{CACHE}/{name}",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": CACHE,
        **profiles,
    }


def _listed(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _shapes(stage: HubStage, host: HostLoops, gpu: Gpu) -> dict[str, list[list[int]]]:
    """Least, usual and greatest shape of every input that has an axis that changes."""
    found = {}
    for value in ir.load(stage.model).graph.inputs:
        axes = [n if isinstance(n, int) else str(n.value) for n in value.shape or ()]
        if all(isinstance(n, int) for n in axes):
            continue
        ends = [[_length(stage.name, n, which, host, gpu) for n in axes] for which in range(3)]
        found[str(value.name)] = ends
    return found


def _length(stage: str, axis: int | str, which: int, host: HostLoops, gpu: Gpu) -> int:
    """The least (0), usual (1) or greatest (2) length of an axis of a network."""
    if isinstance(axis, int):
        return axis
    text, speech = _end(gpu.text, which), _end(gpu.speech, which)
    frames = host.flow.frames(speech)
    rows = (1, 1, text + speech)[which]
    lengths = {
        **host.flow.axes(speech),
        **host.vocoder.axes(frames),
        "T": frames,
        "frames": frames,
        "samples": frames * host.vocoder.frame,
        "n": rows,
        BATCH: _ROWS[which],
        "past": (0, text + speech // 2, text + speech)[which],
    }
    if axis not in lengths:
        raise UsageError(f"{stage}: no length is known for its axis {axis!r}")
    return int(lengths[axis])


def _end(span: Span, which: int) -> int:
    return (span.least, span.usual, span.most)[which]
