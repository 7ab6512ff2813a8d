"""safetensors files as numpy arrays."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open

from edgepack.errors import IntegrityError

_MAX_HEADER_BYTES = 4 << 20  # of 20,000 tensors
_LENGTH_BYTES = 8
_KINDS = "biufV"  # of dtypes: the last is bfloat16's


def load(path: Path) -> Mapping[str, np.ndarray]:
    """Every tensor of a file; raises IntegrityError if it is not safetensors."""
    try:
        with path.open("rb") as start:
            header = int.from_bytes(start.read(_LENGTH_BYTES), "little")
        if header > _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {header:,} bytes")
        with safe_open(path, framework="numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, value in found.items():
            if value.dtype.kind not in _KINDS:
                raise ValueError(f"{name} has the dtype {value.dtype}")
    except Exception as error:  # the library raises its own, AttributeError for a dtype, and more
        raise IntegrityError(
            f"{path}: not a readable safetensors file ({error}); download it again"
        ) from None
    return found
