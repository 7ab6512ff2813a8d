"""Modules of a state dict, and the layers that the networks share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
State = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Part:
    """One module of a network: the entries of a state dict below a dotted path."""

    state: State
    path: str = ""

    def __getitem__(self, name: str | int) -> "Part":
        """The submodule of this name."""
        return Part(self.state, f"{self.path}.{name}" if self.path else str(name))

    def has(self, name: str) -> bool:
        """Whether this module owns the tensor."""
        return self[name].path in self.state

    def tensor(self, name: str) -> Array:
        """A tensor of this module."""
        return np.asarray(self.state[self[name].path], np.float64)

    def children(self) -> "list[Part]":
        """The numbered submodules, in order; numbers without tensors are skipped."""
        start = f"{self.path}."
        tails = (key.removeprefix(start) for key in self.state if key.startswith(start))
        return [self[index] for index in sorted({int(tail.split(".")[0]) for tail in tails})]

    def weight(self) -> Array:
        """The weight, put together from magnitude and direction where it is weight-normed."""
        if self.has("weight"):
            return self.tensor("weight")
        magnitude = self.tensor("parametrizations.weight.original0")
        direction = self.tensor("parametrizations.weight.original1")
        return magnitude * direction / np.sqrt((direction**2).sum((1, 2), keepdims=True))

    def bias(self) -> Array:
        """The bias, zero where the layer has none."""
        return self.tensor("bias") if self.has("bias") else np.zeros(1)


def linear(part: Part, x: Array) -> Array:
    """Affine map of the last axis."""
    return x @ part.weight().T + part.bias()


def conv(
    part: Part, x: Array, *, pad: tuple[int, int] = (0, 0), stride: int = 1, dilation: int = 1
) -> Array:
    """Convolution along time, channels first, as a sum over the taps of the kernel."""
    weight = part.weight()
    x = np.pad(x, ((0, 0), (0, 0), pad))
    last = x.shape[-1] - (weight.shape[2] - 1) * dilation
    taps = (x[:, :, k * dilation : k * dilation + last : stride] for k in range(weight.shape[2]))
    total: Array = sum((weight[:, :, k] @ tap for k, tap in enumerate(taps)), np.zeros(1))
    return total + part.bias()[:, None]


def causal_conv(part: Part, x: Array) -> Array:
    """Convolution that sees the past only."""
    return conv(part, x, pad=(part.weight().shape[2] - 1, 0))


def same_conv(part: Part, x: Array, *, dilation: int = 1) -> Array:
    """Convolution with centred kernel that keeps the length."""
    side = (part.weight().shape[2] - 1) * dilation // 2
    return conv(part, x, pad=(side, side), dilation=dilation)


def transposed_conv(part: Part, x: Array, *, stride: int, padding: int) -> Array:
    """Transposed convolution: every frame adds a scaled kernel, the ends are trimmed."""
    weight = part.weight()
    batch, _, frames = x.shape
    spread = (frames - 1) * stride + 1
    out = np.zeros((batch, weight.shape[1], spread - 1 + weight.shape[2]))
    for k in range(weight.shape[2]):
        out[:, :, k : k + spread : stride] += weight[:, :, k].T @ x
    return out[:, :, padding : out.shape[2] - padding] + part.bias()[:, None]


def layer_norm(part: Part, x: Array, eps: float = 1e-5) -> Array:
    """Normalisation of the last axis to mean 0 and variance 1, then scale and shift."""
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    return x * part.weight() + part.bias()


def rms_norm(part: Part, x: Array, eps: float) -> Array:
    """Division of the last axis by its root mean square, then scale."""
    return part.weight() * x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def silu(x: Array) -> Array:
    """`x sigmoid(x)`."""
    return x * (1 + np.tanh(x / 2)) / 2


def mish(x: Array) -> Array:
    """`x tanh(softplus(x))`."""
    return x * np.tanh(np.logaddexp(0, x))


def gelu(x: Array) -> Array:
    """`x Phi(x)`, with the exact normal distribution function."""
    erf: Array = np.vectorize(math.erf, otypes=[np.float64])(x / math.sqrt(2))
    return x * (1 + erf) / 2


def leaky_relu(x: Array, slope: float) -> Array:
    """Identity above zero, a slope below."""
    return np.where(x > 0, x, slope * x)


def split_heads(x: Array, heads: int) -> Array:
    """[.., n, heads * d] to [.., heads, n, d]."""
    return np.swapaxes(x.reshape(*x.shape[:-1], heads, -1), -2, -3)


def merge_heads(x: Array) -> Array:
    """[.., heads, n, d] to [.., n, heads * d]."""
    x = np.swapaxes(x, -2, -3)
    return x.reshape(*x.shape[:-2], -1)


def chunk_mask(length: int, chunk: int | None) -> Mask:
    """True where query i may see key j: up to the end of its own chunk, or everything."""
    position = np.arange(length)
    if chunk is None:
        return np.ones((length, length), np.bool_)
    return position[None, :] < (position[:, None] // chunk + 1) * chunk


def attend(scores: Array, values: Array, visible: Mask) -> Array:
    """Softmax over the visible keys, then the weighted mean of the values."""
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ values
