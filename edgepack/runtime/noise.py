"""The fixed start noise of the flow decoder: PyTorch's `manual_seed(s); randn(...)` in numpy.

Source: ATen/native/cpu/DistributionTemplates.h (`normal_fill`). The generator is MT19937 with the
scalar seeding of `numpy.random.RandomState`, and a float32 uniform is its low 24 bits.
"""

import functools

import numpy as np

_LANE = 8


@functools.lru_cache(maxsize=2)
def standard_normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """`torch.manual_seed(seed); torch.randn(shape)` on a CPU, float32, to within 1e-6.

    The number of values must be a multiple of 16, where PyTorch's vectorised fill has no rest.
    The array is kept for the next caller, and cannot be written to.
    """
    count = int(np.prod(shape))
    if count % (2 * _LANE):
        raise ValueError(f"{count} values are not a multiple of {2 * _LANE}")
    raw = np.random.RandomState(seed).randint(0, 2**32, count, np.uint32)
    uniform = (raw & 0xFFFFFF).astype(np.float32) * np.float32(2.0**-24)
    lanes = uniform.reshape(-1, 2, _LANE)
    radius = np.sqrt(np.float32(-2.0) * np.log(np.float32(1.0) - lanes[:, 0]))
    angle = np.float32(2.0 * np.pi) * lanes[:, 1]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    noise = pairs.astype(np.float32).reshape(shape)
    noise.setflags(write=False)
    return noise
