"""Where TensorRT engines of this device are kept."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from edgepack.files import caches
from edgepack.machine.gpu_stack import Stack


def key(model: str, options: Mapping[str, str], stack: Stack) -> str:
    """A hash of all that an engine depends on: files, options, TensorRT, CUDA, GPU, ONNX Runtime.

    `model` is the hash of the network's files, computed from the files themselves.
    """
    parts = {"model": model, "options": dict(options), **asdict(stack)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def folder(model: str, options: Mapping[str, str], stack: Stack) -> Path:
    """The folder of a model's engines; every key has its own."""
    return caches.folder() / "engines" / key(model, options, stack)
