"""ONNX Runtime's caches in memory that calls read where it lies: rows with lengths of their own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgepack.bundle.manifest import State

USED = "used"  # the input that says how many slots of each row are filled
_STEP = 64  # slots that are added at a time
_EVEN = 2


def as_input(array: np.ndarray) -> Any:
    """An array as an input; ONNX Runtime reads its memory."""
    import onnxruntime

    return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))


class Slots:
    """The caches of some rows, as inputs `past` [rows, …, slots, …] by name.

    The first `used` slots of a row are filled. What is in the others is finite and masked.
    """

    def __init__(self, states: Sequence[State], types: Mapping[str, Any]) -> None:
        """No rows and no slots."""
        self._states, self._types = states, types
        self._axes = {s.input: s.shape.index(0, 1) for s in states}
        self._arrays = {s.input: np.zeros((0, *s.shape[1:]), types[s.input]) for s in states}
        self._values: dict[int, dict[str, Any]] = {}
        self._bindings: dict[int, Any] = {}
        self.used = np.zeros(0, np.int64)
        self.slots = 0

    @property
    def rows(self) -> int:
        """How many rows there is room for."""
        return len(self.used)

    def reserve(self, rows: int, slots: int) -> None:
        """Have room for so many rows and slots, in steps; what is filled stays."""
        rows = max(rows, self.rows)
        slots = max(-(-slots // _STEP) * _STEP, self.slots)
        if (rows, slots) == (self.rows, self.slots):
            return
        self._values.clear()
        self._bindings.clear()
        for name, old in self._arrays.items():
            shape = list(old.shape)
            shape[0], shape[self._axes[name]] = rows, slots
            new = np.zeros(shape, old.dtype)
            new[tuple(slice(length) for length in old.shape)] = old
            self._arrays[name] = new
        self.used = np.concatenate([self.used, np.zeros(rows - self.rows, np.int64)])
        self.slots = slots

    def make_room(self, rows: int, count: int) -> None:
        """Have room for `count` more positions of each of the first `rows` rows."""
        self.reserve(rows, int(self.used[:rows].max()) + count)

    def inputs(self, rows: int) -> dict[str, Any]:
        """What a call of the first `rows` rows is given besides its feeds."""
        return {**self._of(rows), USED: as_input(self.used[:rows])}

    def _of(self, rows: int) -> dict[str, Any]:
        if rows not in self._values:
            self._values[rows] = {name: as_input(of[:rows]) for name, of in self._arrays.items()}
        return self._values[rows]

    def bound(self, rows: int, make: Callable[[], Any]) -> Any:
        """A binding from `make` with the caches of the first `rows` rows as inputs and outputs.

        It is kept until there is more room: a cache that a call reads is the one that it writes.
        """
        if rows not in self._bindings:
            binding, values = make(), self._of(rows)
            for state in self._states:
                binding.bind_ortvalue_input(state.input, values[state.input])
                binding.bind_ortvalue_output(state.output, values[state.input])
            self._bindings[rows] = binding
        return self._bindings[rows]

    def advance(self, rows: int, count: int) -> None:
        """Count slots of the first `rows` rows that a call has filled itself."""
        self.used[:rows] += count

    def append(self, fresh: Mapping[str, np.ndarray], rows: int) -> None:
        """Fill the next slot, or slots of a single row, from outputs of a call of `rows` rows."""
        (count,) = {fresh[s.output].shape[self._axes[s.input]] for s in self._states}
        self.make_room(rows, count)
        for state in self._states:
            axis = self._axes[state.input]
            into = np.moveaxis(self._arrays[state.input], axis, 1)
            new = np.moveaxis(fresh[state.output], axis, 1)
            if rows == 1:
                into[0, self.used[0] : self.used[0] + count] = new[0]
            else:
                into[np.arange(rows), self.used[:rows]] = new[:rows, 0]
        self.advance(rows, count)

    def filled(self, row: int) -> dict[str, np.ndarray]:
        """A row's caches [1, …], by the name of their output."""
        return {s.output: self._part(s.input, row, int(self.used[row])) for s in self._states}

    def fill(self, row: int, caches: Mapping[str, np.ndarray]) -> None:
        """Put caches [1, …], by the name of their output, into a row, and clear the rest of it."""
        first = self._states[0]
        count = caches[first.output].shape[self._axes[first.input]]
        self.reserve(row + 1, count)
        for state in self._states:
            self._arrays[state.input][row] = 0
            self._part(state.input, row, count)[...] = caches[state.output]
        self.used[row] = count

    def move(self, row: int, to: int) -> None:
        """Have a row in another's place, which is lost; its own is empty then."""
        if row != to:
            for state in self._states:
                count = int(self.used[row])
                self._arrays[state.input][to] = 0
                self._part(state.input, to, count)[...] = self._part(state.input, row, count)
            self.used[to] = self.used[row]
        self.used[row] = 0

    def _part(self, name: str, row: int, count: int) -> np.ndarray:
        """A view of the first `count` slots of a row, [1, …]."""
        axis = self._axes[name]
        index = [slice(row, row + 1), *[slice(None)] * (axis - 1), slice(count)]
        return self._arrays[name][tuple(index)]


def even(rows: int) -> int:
    """So many rows, or one more: kernels compute an odd last row by another way than the rest."""
    return -(-rows // _EVEN) * _EVEN
