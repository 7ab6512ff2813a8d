"""Reading and checking named arrays of a safetensors file that may be damaged."""

from collections.abc import Mapping

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from edgepack.errors import IntegrityError

Feeds = Mapping[str, np.ndarray]  # arrays that a network is given, by input
AnyShape = tuple[int | None, ...]  # None is any length


def parse(data: bytes, where: object, what: str) -> dict[str, np.ndarray]:
    """The arrays in a file's content; raises IntegrityError if it is invalid or contains NaN.

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


def mismatch(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[str, AnyShape]]) -> str:
    """The first array of a wrong kind ("f" or "i") or shape, in words; empty if all are right.

    Raises KeyError if one is missing.
    """
    for name, (kind, shape) in wanted.items():
        array = arrays[name]
        if array.dtype.kind != kind or not fits(array.shape, shape):
            lengths = ", ".join("any" if n is None else str(n) for n in shape)
            return f"{name} is {array.dtype} {list(array.shape)}, expected {kind} [{lengths}]"
    return ""


def fits(shape: tuple[int, ...], wanted: AnyShape) -> bool:
    """Whether a shape has the wanted axes, None standing for any length."""
    return len(shape) == len(wanted) and all(
        b is None or a == b for a, b in zip(shape, wanted, strict=True)
    )


def within(ids: np.ndarray, count: int) -> bool:
    """Whether all ids are from 0 to `count` - 1."""
    return not ids.size or (int(ids.min()) >= 0 and int(ids.max()) < count)
