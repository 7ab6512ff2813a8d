"""safetensors files as numpy arrays."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from edgepack.errors import IntegrityError


def load(path: Path) -> Mapping[str, np.ndarray]:
    """Every tensor of a file, memory-mapped; raises IntegrityError if it is not safetensors."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, AttributeError) as error:  # the last for a dtype of torch's
        raise IntegrityError(
            f"{path}: not a readable safetensors file ({error}); download it again"
        ) from None
