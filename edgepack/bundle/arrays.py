"""Named arrays of a safetensors file, as data that may be wrong."""

from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from edgepack.errors import IntegrityError

Shape = tuple[int | None, ...]  # None is any length


def parse(data: bytes, where: object, what: str) -> dict[str, np.ndarray]:
    """The arrays of a file's content; raises IntegrityError if it is none, or has NaN in it.

    `where` and `what` are for the message: which file, and what it should be.
    """
    try:
        found = load(data)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise IntegrityError(f"{where}: not {what} ({error})") from None
    for name, array in found.items():
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            raise IntegrityError(f"{where}: not {what} ({name} has NaN or infinity in it)")
    return found


def mismatch(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[str, Shape]]) -> str:
    """The first array that has not the wanted kind ("f", "i") and shape, in words; empty if none.

    Raises KeyError if one is missing.
    """
    for name, (kind, shape) in wanted.items():
        array = arrays[name]
        if array.dtype.kind != kind or not fits(array.shape, shape):
            lengths = ", ".join("any" if n is None else str(n) for n in shape)
            return f"{name} is {array.dtype} {list(array.shape)}, expected {kind} [{lengths}]"
    return ""


def fits(shape: tuple[int, ...], wanted: Shape) -> bool:
    """Whether a shape has as many axes as wanted, of these lengths."""
    return len(shape) == len(wanted) and all(
        b is None or a == b for a, b in zip(shape, wanted, strict=True)
    )


def within(ids: np.ndarray, count: int) -> bool:
    """Whether all ids are from 0 to `count` - 1."""
    return not ids.size or (int(ids.min()) >= 0 and int(ids.max()) < count)
