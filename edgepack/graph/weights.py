"""A view of a state dict that records which tensors are read, and loads them when written."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edgepack.errors import IntegrityError, UnsupportedError, UsageError

Shape = tuple[int, ...]

_NUMBER = re.compile(r"0|[1-9][0-9]{0,5}")  # of a child

# Magnitude and direction of a normalised weight, in the style of torch 2 and of before.
_WEIGHT_NORM = (
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ("weight_g", "weight_v"),
)


@dataclass(frozen=True)
class Parameter:
    """A named weight that is read from the checkpoint when the graph is written, as float32."""

    name: str
    shape: Shape
    load: Callable[[], np.ndarray]

    def map(self, shape: Shape, change: Callable[[np.ndarray], np.ndarray]) -> "Parameter":
        """The same weight in another layout of the given shape."""
        return Parameter(self.name, shape, lambda: change(self.load()))

    @property
    def transposed(self) -> "Parameter":
        """Axes in reverse order: `[out, in]` becomes the `[in, out]` a MatMul multiplies by."""
        return self.map(self.shape[::-1], np.transpose)


def stack(name: str, parameters: list[Parameter], axis: int) -> Parameter:
    """Several weights joined along one axis, so that one MatMul or Gather serves them all."""
    shape = list(parameters[0].shape)
    shape[axis] = sum(p.shape[axis] for p in parameters)
    return Parameter(
        name, tuple(shape), lambda: np.concatenate([p.load() for p in parameters], axis)
    )


@dataclass(frozen=True)
class Weights:
    """Tensors of one checkpoint part below a dotted scope.

    `w / "encoders" / 0` descends, `w["weight"]` reads; `source` is the file named in errors.
    """

    source: str
    tensors: Mapping[str, np.ndarray]
    read: set[str]
    scope: str = ""

    @staticmethod
    def of(source: str, tensors: Mapping[str, np.ndarray]) -> "Weights":
        """The root view of a state dict."""
        return Weights(source, tensors, set())

    def __truediv__(self, name: str | int) -> "Weights":
        return Weights(self.source, self.tensors, self.read, f"{self.scope}{name}.")

    def __contains__(self, leaf: str) -> bool:
        return f"{self.scope}{leaf}" in self.tensors

    def __iter__(self) -> Iterator["Weights"]:
        """The numbered children `0`, `1`, … in order, as of a ModuleList or Sequential."""
        found = {
            int(head)
            for key in self.tensors
            if key.startswith(self.scope)
            and _NUMBER.fullmatch(head := key[len(self.scope) :].split(".", 1)[0])
        }
        return iter([self / number for number in sorted(found)])

    def __getitem__(self, leaf: str) -> Parameter:
        return self.get(leaf)

    def get(self, leaf: str, *shape: int | None) -> Parameter:
        """The weight `leaf`; a given shape must match, None standing for any length."""
        name = f"{self.scope}{leaf}"
        if name not in self.tensors:
            raise UsageError(f"{self.source}: tensor {name} is missing; is this the right model?")
        value = self.tensors[name]
        if shape and not _fits(value.shape, shape):
            wanted = "×".join("?" if n is None else str(n) for n in shape)
            actual = "×".join(map(str, value.shape)) or "a scalar"
            raise UsageError(
                f"{self.source}: {name} has shape {actual}, its configuration says {wanted}"
            )
        self.read.add(name)
        return Parameter(name, value.shape, lambda: _finite(self.source, name, value))

    def convolution(self, *shape: int | None) -> Parameter:
        """The `weight` of a convolution, with either style of weight normalisation merged.

        `weight = g · v / ‖v‖`, the norm over every axis but the first, without an epsilon.
        Source: torch.nn.utils.parametrizations.weight_norm.
        """
        for magnitude, direction in _WEIGHT_NORM:
            if direction in self:
                v = self.get(direction, *shape)
                g = self.get(magnitude, v.shape[0], *[1] * (len(v.shape) - 1))
                return _merged(self.source, f"{self.scope}weight", g, v)
        return self.get("weight", *shape)

    def assert_all_read(self, dropped: Iterable[str]) -> None:
        """Raise UnsupportedError if a tensor was neither read nor is one of `dropped`."""
        left = sorted(self.tensors.keys() - self.read - set(dropped))
        if left:
            raise UnsupportedError(
                f"{self.source}: {len(left)} tensors are not understood, first {left[0]}; "
                "this is not a network this version knows"
            )


def numbered(weights: Weights, scope: str, count: int | None = None) -> list[Weights]:
    """The children of `scope`.

    Raises UsageError if there are none, a number is skipped, or they are not the `count` that the
    configuration says.
    """
    children = list(weights / scope)
    numbers = [int(re.findall(r"\d+", child.scope)[-1]) for child in children]
    if numbers != list(range(len(numbers))) or not numbers:
        raise UsageError(f"{weights.source}: {weights.scope}{scope}.* is missing or incomplete")
    if count is not None and count != len(children):
        raise UsageError(
            f"{weights.source}: {weights.scope}{scope} has {len(children)} layers, its "
            f"configuration says {count}"
        )
    return children


def _fits(actual: Shape, wanted: tuple[int | None, ...]) -> bool:
    return len(actual) == len(wanted) and all(
        w is None or a == w for a, w in zip(actual, wanted, strict=True)
    )


def _finite(source: str, name: str, value: np.ndarray) -> np.ndarray:
    """The value as float32; raises an error if that has NaN or infinity."""
    with np.errstate(over="ignore"):  # what is too large for float32 is found below
        found = value.astype(np.float32, copy=False)
    if not np.isfinite(np.add.reduce(found, axis=None, dtype=np.float64)):
        raise IntegrityError(
            f"{source}: {name} has NaN or infinite values as float32; download it again"
        )
    return found


def _merged(source: str, name: str, g: Parameter, v: Parameter) -> Parameter:
    def load() -> np.ndarray:
        direction = v.load()
        axes = tuple(range(1, direction.ndim))
        norm = np.sqrt(np.sum(np.square(direction, dtype=np.float64), axes, keepdims=True))
        with np.errstate(invalid="ignore"):  # a direction of length zero
            return _finite(source, name, g.load() * (direction / norm))

    return Parameter(name, v.shape, load)
