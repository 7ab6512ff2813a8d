"""Which mel frames belong to which speech tokens, where frames are no multiple of tokens.

Source: cosyvoice/flow/length_regulator.py (`InterpolateRegulator.inference`).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Places(NamedTuple):
    """Where frames lie between tokens: frame i at `share[i]` of the way from `left` to `right`.

    `left` and `right` are int64 [frames], `share` is float32 [frames] in [0, 1].
    """

    left: np.ndarray
    right: np.ndarray
    share: np.ndarray


@dataclass(frozen=True)
class FrameRate:
    """Speech tokens a second, and mel frames of `hop` samples at `sample_rate` Hz.

    A sequence of more than two `margin`s of tokens has a margin at each end with a length of its
    own in frames: there, pieces of a stream that overlap by a margin meet.
    """

    tokens: int
    sample_rate: int
    hop: int
    margin: int

    def frames(self, tokens: int) -> int:
        """Whole mel frames of so many tokens, rounded as the original does."""
        return int(tokens / self.tokens * self.sample_rate / self.hop)

    def places(self, tokens: int, prompt_tokens: int = 0, prompt_frames: int = 0) -> Places:
        """Frames of a prompt of given lengths, then those of the tokens after it."""
        lengths = [(prompt_tokens, prompt_frames)] if prompt_tokens else []
        whole = self.frames(tokens)
        if tokens > 2 * self.margin:
            edge = self.frames(self.margin)
            inner = (tokens - 2 * self.margin, whole - 2 * edge)
            lengths += [(self.margin, edge), inner, (self.margin, edge)]
        else:
            lengths.append((tokens, whole))
        parts, first = [], 0
        for count, frames in lengths:
            left, right, share = stretched(count, frames)
            parts.append((left + first, right + first, share))
            first += count
        return Places(*(np.concatenate(of) for of in zip(*parts, strict=True)))


def stretched(count: int, frames: int) -> Places:
    """`count` values as `frames` by linear interpolation, as torch's without aligned corners."""
    at = (np.arange(frames, dtype=np.float32) + 0.5) * np.float32(count / max(frames, 1)) - 0.5
    at = np.maximum(at, 0).astype(np.float32)
    left = np.minimum(at.astype(np.int64), count - 1)
    return Places(left, np.minimum(left + 1, count - 1), at - left.astype(np.float32))
