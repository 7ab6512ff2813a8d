"""Where TensorRT engines of this device are kept."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from edgepack.runtime.gpu.stack import Stack


def key(model: str, stack: Stack) -> str:
    """Stands for everything an engine depends on: model, TensorRT, CUDA, GPU, ONNX Runtime."""
    parts = {"model": model, **asdict(stack)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def folder(model: str, stack: Stack) -> Path:
    """The folder of a model's engines (XDG_CACHE_HOME); other versions have others."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "edgepack", "engines", key(model, stack))
