"""Choosing the next speech token: repetition-aware sampling over a nucleus.

Source: cosyvoice/utils/common.py (`ras_sampling`, `nucleus_sampling`); RAS is from VALL-E 2
(Chen et al., 2024), the nucleus from Holtzman et al. (2020).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from edgepack.bundle.host import Sampling

# Index drawn from unnormalised probabilities of candidates.
Draw = Callable[[np.ndarray], int]


class Sampler(Protocol):
    """Picks an id from log-probabilities [V], given the ids chosen so far."""

    def __call__(self, log_probabilities: np.ndarray, history: Sequence[int]) -> int:
        """The chosen id."""
        ...


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities of logits [V], in float32."""
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum(dtype=np.float32))


def greedy(log_probabilities: np.ndarray, history: Sequence[int]) -> int:
    """The most probable id."""
    return int(log_probabilities.argmax())


def inverse_cdf(uniform: Callable[[], float]) -> Draw:
    """Draws the first index whose share of the cumulative weight exceeds a uniform number."""

    def draw(weights: np.ndarray) -> int:
        share = np.cumsum(weights, dtype=np.float64)
        index = int(np.searchsorted(share, uniform() * share[-1], side="right"))
        return min(index, weights.size - 1)

    return draw


def repetition_aware(settings: Sampling, draw: Draw) -> Sampler:
    """The sampler of the checkpoint; `draw` is its only randomness.

    A nucleus draw that occurs too often in the last `window` ids is replaced by one draw over
    all other ids.
    """

    def sample(log_probabilities: np.ndarray, history: Sequence[int]) -> int:
        probabilities = _softmax(log_probabilities)
        ids = nucleus(probabilities, settings.top_p, settings.top_k)
        chosen = int(ids[draw(probabilities[ids])])
        repeats = list(history[-settings.window :]).count(chosen)
        if repeats < settings.window * settings.repetition:
            return chosen
        others = log_probabilities.copy()
        others[chosen] = -np.inf
        return draw(_softmax(others))

    return sample


def nucleus(probabilities: np.ndarray, top_p: float, top_k: int) -> np.ndarray:
    """Ids by falling probability, until `top_p` is reached or there are `top_k`; at least one.

    Ties keep id order, as in a stable sort. The sum is accumulated in float32.
    """
    top_k = min(top_k, probabilities.size)
    least = np.partition(probabilities, probabilities.size - top_k)[probabilities.size - top_k]
    candidates = np.flatnonzero(probabilities >= least)
    ranked = candidates[np.argsort(-probabilities[candidates], kind="stable")][:top_k]
    reached = np.cumsum(probabilities[ranked], dtype=np.float32)
    return ranked[: 1 + int(np.count_nonzero(reached[:-1] < np.float32(top_p)))]


def _softmax(log_probabilities: np.ndarray) -> np.ndarray:
    e = np.exp(log_probabilities - log_probabilities.max())
    return e / e.sum(dtype=np.float32)
