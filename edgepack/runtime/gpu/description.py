"""`trt.json`: how the networks of a bundle run on a GPU, and on which releases of its software.

Options are those of ONNX Runtime's execution providers, by its names. Some of these could load code
or write files, so only options about arithmetic and shapes are accepted. A bundle contains no
TensorRT engine, as an engine works on one GPU with one TensorRT only; it is built on the device.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from edgepack.bundle.bundle import Bundle
from edgepack.bundle.manifest import Release
from edgepack.bundle.ranges import Count, FileName, Line, Name, Precision, Sha256, Struct
from edgepack.errors import IntegrityError

FILE = "trt.json"
SCHEMA = "edgepack.trt/1"
CACHE = "{cache}"  # stands for the folder of engines on the device

_FLAG = r"[01]"
_LENGTHS = r"[A-Za-z_]\w*:\d{1,8}(x\d{1,8}){0,7}"
_SHAPES = rf"{_LENGTHS}(,{_LENGTHS}){{0,63}}"
# By provider, the options that a bundle may set and what they may be; {stage} is its network.
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "cpu": {},
    "cuda": {
        "use_tf32": _FLAG,
        "cudnn_conv_algo_search": "EXHAUSTIVE|HEURISTIC|DEFAULT",
        "cudnn_conv1d_pad_to_nc1d": _FLAG,
        "arena_extend_strategy": "kNextPowerOfTwo|kSameAsRequested",
    },
    "tensorrt": {
        "trt_fp16_enable": _FLAG,
        "trt_int8_enable": _FLAG,
        "trt_layer_norm_fp32_fallback": _FLAG,
        "trt_op_types_to_exclude": r"(\w{1,40}(,\w{1,40}){0,99})?",
        "trt_max_workspace_size": r"\d{1,12}",
        "trt_engine_cache_enable": _FLAG,
        "trt_engine_cache_path": rf"{re.escape(CACHE)}/{{stage}}",
        "trt_timing_cache_enable": _FLAG,
        "trt_timing_cache_path": re.escape(CACHE),
        "trt_profile_min_shapes": _SHAPES,
        "trt_profile_opt_shapes": _SHAPES,
        "trt_profile_max_shapes": _SHAPES,
    },
}


class StageOnGpu(Struct, frozen=True):
    """A network: the provider it is promised to run on, and each provider's options.

    `model` is a hash of its files. `fp16_nodes` and `fp32_nodes` count nodes that compute with
    floats; the file `islands`, if there is one, lists those that stay fp32, and why.
    """

    provider: Annotated[str, Meta(pattern=r"^(tensorrt|cuda|cpu)\Z")]
    files: tuple[FileName, ...]
    model: Sha256
    precision: Precision
    fp16_nodes: Count
    fp32_nodes: Count
    islands: Line
    options: dict[Name, dict[Name, str]]


class Description(Struct, frozen=True):
    """How a bundle runs on GPUs of one architecture, such as sm_87; "" means any.

    `releases` are the releases of JetPack that it is for, empty for machines that are no Jetson.
    """

    schema: Line
    architecture: Line
    releases: tuple[Release, ...]
    stages: dict[Name, StageOnGpu]


def encode(description: Description) -> bytes:
    """The content of the file for a description."""
    tree = msgspec.to_builtins(description)
    return (json.dumps(tree, indent=1, ensure_ascii=False) + "\n").encode()


def read(bundle: Bundle) -> Description | None:
    """A bundle's description, or None; raises IntegrityError if it is not one of its networks."""
    if FILE not in bundle.manifest.files:
        return None
    path = bundle.path(FILE)
    found = parse(bundle.read(FILE), path)
    for name, on_gpu in found.stages.items():
        stage = bundle.manifest.stages.get(name)
        if not stage or not any(v.files == on_gpu.files for v in stage.variants.values()):
            raise IntegrityError(f"{path}: {name} is not a network of this bundle")
        if on_gpu.model != of_files(bundle.manifest.files[f].sha256 for f in on_gpu.files):
            raise IntegrityError(f"{path}: {name} is not about the files of this bundle")
    return found


def of_files(hashes: Iterable[str]) -> str:
    """The hash of a network from those of its files, in order."""
    return hashlib.sha256(b"".join(map(bytes.fromhex, hashes))).hexdigest()


def parse(data: bytes, path: Path) -> Description:
    """A description from the content of its file."""
    try:
        found = msgspec.json.decode(data, type=Description)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise IntegrityError(f"{path}: not a description of GPU use ({error})") from None
    if found.schema != SCHEMA:
        raise IntegrityError(f"{path}: schema {found.schema!r}, this edgepack reads {SCHEMA!r}")
    for name, on_gpu in found.stages.items():
        for problem in _refused(name, on_gpu):
            raise IntegrityError(f"{path}: {name}: {problem}; refused")
    return found


def _refused(stage: str, on_gpu: StageOnGpu) -> Iterator[str]:
    """Options of a stage that a bundle may not set, in words."""
    for provider, options in on_gpu.options.items():
        known = _OPTIONS.get(provider)
        if known is None:
            yield f"no provider {provider!r}"
            return
        for option, value in options.items():
            pattern = known.get(option)
            if pattern is None:
                yield f"{provider} may not be given {option!r}"
            elif not re.fullmatch(pattern.replace("{stage}", re.escape(stage)), value, re.ASCII):
                yield f"{provider} may not be given {option} {value[:40]!r}"
