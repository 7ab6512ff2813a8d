"""Tensors of PyTorch's modules and random weights for them, as random checkpoints need them."""

import math
from collections.abc import Callable

import numpy as np
import torch_zip_writer as writer

Shapes = dict[str, tuple[int, ...]]
Draw = Callable[[str, tuple[int, ...], int], np.ndarray]


def linear(name: str, out: int, inputs: int, bias: bool = True) -> Shapes:
    """A Linear module's tensors."""
    return {f"{name}.weight": (out, inputs)} | ({f"{name}.bias": (out,)} if bias else {})


def norm(name: str, width: int) -> Shapes:
    """A LayerNorm module's tensors."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def conv(name: str, out: int, inputs: int, taps: int) -> Shapes:
    """A Conv1d module's tensors."""
    return {f"{name}.weight": (out, inputs, taps), f"{name}.bias": (out,)}


def weight_norm(name: str, shape: tuple[int, int, int], bias: int) -> Shapes:
    """A weight-normalised convolution's tensors."""
    return {
        f"{name}.bias": (bias,),
        f"{name}.parametrizations.weight.original0": (shape[0], 1, 1),
        f"{name}.parametrizations.weight.original1": shape,
    }


def values(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random values of the usual initial scale, so that activations stay of order one."""
    rng = np.random.default_rng(seed)
    if name.endswith(("alpha", "original0")):
        return np.ones(shape, np.float32)
    if len(shape) == 1:
        return np.full(shape, 1.0 if name.endswith("weight") else 0.0, np.float32)
    scale = 0.02 if "embed" in name else math.prod(shape[1:]) ** -0.5
    value = rng.standard_normal(shape, np.float32)
    value *= np.float32(scale)
    if name == "f0_predictor.classifier.weight":
        value *= 200
    if name.endswith("estimator.time_mlp.linear_1.weight"):
        value *= smooth_in_time(shape[1])
    return value


def smooth_in_time(width: int) -> np.ndarray:
    """Factors [width] that take the fast sinusoids of the time embedding back.

    A trained estimator changes steadily with time. With all of them a random one is noise in time:
    its ODE has no trajectory that any number of steps comes close to.
    """
    turns = 1000 * np.exp(np.arange(width // 2) * -(math.log(10000) / (width // 2 - 1)))
    return np.tile(np.minimum(1, 3 / turns), 2).astype(np.float32)


def state_dict(shapes: Shapes, draw: Draw | None = None) -> dict[str, writer.Tensor]:
    """Lazy tensors for a table of shapes, drawn as `values` has it unless otherwise."""
    drawn = draw or values

    def make(name: str, shape: tuple[int, ...], seed: int) -> Callable[[], np.ndarray]:
        return lambda: drawn(name, shape, seed)

    return {
        name: writer.Tensor(
            writer.Storage(np.dtype(np.float32), math.prod(shape), make(name, shape, seed)), shape
        )
        for seed, (name, shape) in enumerate(shapes.items())
    }
