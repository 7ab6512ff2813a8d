"""Where TensorRT engines of this device are kept."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from edgepack import caches
from edgepack.runtime.gpu.stack import Stack


def key(model: str, options: Mapping[str, str], stack: Stack) -> str:
    """Stands for all that an engine depends on: files, options, TensorRT, CUDA, GPU, ONNX Runtime.

    `model` is a hash of the network's files as they are, not what a bundle says of them.
    """
    parts = {"model": model, "options": dict(options), **asdict(stack)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def folder(model: str, options: Mapping[str, str], stack: Stack) -> Path:
    """The folder of a model's engines; other versions have others."""
    return caches.folder() / "engines" / key(model, options, stack)
