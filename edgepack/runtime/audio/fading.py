"""Fades between pieces that overlap."""

import numpy as np


def cross_fade(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`after` [..., n] with its start faded in over all of `before`.

    The weights are the halves of a symmetric Hamming window, which add up to about 1.08, as in the
    original (`fade_in_out` in cosyvoice/utils/common.py).
    """
    count = before.shape[-1]
    if not count:
        return after
    window = np.hamming(2 * count)
    faded = after.copy()
    faded[..., :count] = after[..., :count] * window[:count] + before * window[count:]
    return faded
