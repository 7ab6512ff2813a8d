"""Fixed noise: PyTorch's `manual_seed(s); randn(...)` and the `rand(...)` after it, in numpy.

Source: ATen/native/cpu/DistributionTemplates.h (`normal_fill`). The generator is MT19937 with the
scalar seeding of `numpy.random.RandomState`, and a float32 uniform is its low 24 bits.
"""

import functools
from typing import Any

import numpy as np

_LANE = 8
BLOCK = 2 * _LANE  # numbers that `normal_fill` makes of as many uniform ones at once
_DRAWN = 1 << 20  # numbers that are skipped at a time
_WORDS, _FRACTION, _UNIT = 2**32, 0xFFFFFF, np.float32(2.0**-24)


@functools.lru_cache(maxsize=2)
def standard_normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """`torch.manual_seed(seed); torch.randn(shape)` on a CPU, float32, to within 1e-6.

    The number of values must be a multiple of BLOCK, where PyTorch's vectorised fill has no rest.
    The array is kept for the next caller, and cannot be written to.
    """
    count = int(np.prod(shape))
    if count % BLOCK:
        raise ValueError(f"{count} values are not a multiple of {BLOCK}")
    lanes = _uniform(np.random.RandomState(seed), count).reshape(-1, 2, _LANE)
    radius = np.sqrt(np.float32(-2.0) * np.log(np.float32(1.0) - lanes[:, 0]))
    angle = np.float32(2.0 * np.pi) * lanes[:, 1]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    noise = pairs.astype(np.float32).reshape(shape)
    noise.setflags(write=False)
    return noise


def uniform(seed: int, skip: int, shape: tuple[int, ...]) -> np.ndarray:
    """`torch.rand(shape)` on a CPU, float32 in [0, 1), after `skip` numbers of the generator.

    They are those of `torch.manual_seed(seed)`. The state after them is kept for the next call.
    """
    generator = np.random.RandomState()
    generator.set_state(_skipped(seed, skip))
    return _uniform(generator, int(np.prod(shape))).reshape(shape)


def _uniform(generator: np.random.RandomState, count: int) -> np.ndarray:
    raw = generator.randint(0, _WORDS, count, np.uint32)
    return (raw & _FRACTION).astype(np.float32) * _UNIT


@functools.lru_cache(maxsize=2)
def _skipped(seed: int, skip: int) -> Any:
    """The state of a generator after some numbers."""
    generator = np.random.RandomState(seed)
    for start in range(0, skip, _DRAWN):
        generator.randint(0, _WORDS, min(_DRAWN, skip - start), np.uint32)
    return generator.get_state()
