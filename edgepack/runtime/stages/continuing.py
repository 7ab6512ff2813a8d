"""A flow decoder that goes on from finished frames of a stream, instead of computing them again.

Under its chunk mask nothing that comes later changes a finished chunk: its frames attend to no
later ones, its convolutions are causal, its start noise is that of the frame, and each step of a
solver moves a frame by itself. What later frames need of it, keys and values of the estimator's
attention and the last inputs of its convolutions, is kept for every evaluation.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgepack.bundle.arrays import mismatch
from edgepack.bundle.manifest import Solver
from edgepack.errors import IntegrityError
from edgepack.runtime.engines.session import Feeds, Session
from edgepack.runtime.stages.solver import integrate

MOST_BYTES = 1 << 30  # of what is kept of one stream, unless a target allows less
_MOST_NUMBERS = 1 << 24  # that a network of this kind may keep of a frame, or at an end
_WRONG = "the network that goes on from finished frames is of another kind"
PAST, ENDS, KEPT, NEXT_ENDS = "past", "ends", "kept", "next_ends"


@dataclass
class KeptEvaluation:
    """What one evaluation left: `past` [B, capacity, S], filled as far as there are frames.

    `ends` [B, L, E] are the last inputs of the convolutions.
    """

    past: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class Sizes:
    """How much an estimator keeps: S numbers of `dtype` a frame, and L frames of E inputs."""

    states: int
    left: int
    inputs: int
    dtype: np.dtype[Any]

    @staticmethod
    def of(session: Session) -> "Sizes":
        """Those of a network; raises IntegrityError if it is not one that goes on."""
        shapes, types = session.shapes() or {}, session.types() or {}
        past, ends = shapes.get(PAST, ()), shapes.get(ENDS, ())
        fixed = (*past[2:], *ends[1:])
        if (len(past), len(ends)) != (3, 3) or not all(fixed) or not types.keys() >= {PAST, ENDS}:
            raise IntegrityError(f"{_WRONG}: its inputs are others")
        states, left, inputs = (n for n in fixed if n is not None)
        if max(states, left * inputs) > _MOST_NUMBERS:
            raise IntegrityError(f"{_WRONG}: it keeps too much")
        return Sizes(states, left, inputs, np.dtype(types[PAST]))

    def empty(self, rows: int, capacity: int) -> KeptEvaluation:
        """Before the first frame; memory is taken when it is filled."""
        past = np.empty((rows, capacity, self.states), self.dtype)
        return KeptEvaluation(past, np.zeros((rows, self.left, self.inputs), np.float32))


@dataclass
class Finished:
    """What is kept of the first `frames` frames of a stream, for each evaluation of a solver."""

    evaluations: list[KeptEvaluation] = field(default_factory=list)
    frames: int = 0

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return sum(known.past.nbytes for known in self.evaluations)

    def copy(self, capacity: int) -> "Finished":
        """The same with room for `capacity` frames, to be changed."""
        made = []
        for known in self.evaluations:
            rows, _, states = known.past.shape
            past = np.empty((rows, capacity, states), known.past.dtype)
            past[:, : self.frames] = known.past[:, : self.frames]
            made.append(KeptEvaluation(past, known.ends))
        return Finished(made, self.frames)


@dataclass
class Beginnings:
    """What is kept of the prompts that were used last, `most` bytes, by what it depends on."""

    most: int = MOST_BYTES // 4
    _known: OrderedDict[Hashable, Finished] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, key: Hashable) -> Finished | None:
        """What is known; it may not be changed."""
        with self._lock:
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
            return found

    def keep(self, key: Hashable, finished: Finished) -> None:
        """Know it from now on, and forget what was not used for longest."""
        with self._lock:
            self._known[key] = finished
            while sum(known.bytes for known in self._known.values()) > self.most:
                self._known.popitem(last=False)


@dataclass
class Continued:
    """One stream through `session`, by a solver whose times are embedded as `shifts` [steps, W].

    `chunk` is the attention chunk in frames. Frames of whole chunks are kept, up to `most` bytes;
    those after them are computed again each time.
    """

    session: Session
    solver: Solver
    shifts: np.ndarray
    chunk: int
    most: int = MOST_BYTES
    finished: Finished = field(default_factory=Finished)

    def __post_init__(self) -> None:
        self._sizes = Sizes.of(self.session)
        numbers = self.solver.evaluations * self._sizes.states
        fitting = self.most // (numbers * self._sizes.dtype.itemsize)
        self._capacity = fitting // self.chunk * self.chunk

    def resume(self, beginning: Finished) -> None:
        """Go on from what is kept of the first frames."""
        if beginning.frames <= self._capacity:
            self.finished = beginning.copy(self._capacity)

    def beginning(self) -> Finished:
        """What is kept by now, in as much memory as that takes."""
        return self.finished.copy(self.finished.frames)

    def advance(self, start: np.ndarray, conditions: Feeds, until: int) -> np.ndarray:
        """The mel [1, mels, n] of the frames from those that are kept to frame `until`.

        `start` [1, mels, T] and the conditions (`mu`, `cond` [1, mels, T], `spk` [1, mels]) are of
        all frames from the first on.
        """
        parts = []
        for end in self._ends(until):
            parts.append(self._segment(start, conditions, end, self.chunk))
        return np.concatenate(parts, 2)

    def end(self, start: np.ndarray, conditions: Feeds, until: int) -> np.ndarray:
        """As `advance`, of frames that see each other and all before them: the last ones."""
        return self._segment(start, conditions, until, until)

    def _ends(self, until: int) -> Iterator[int]:
        """Where to stop: after the last whole chunk that can be kept, and at the end."""
        whole = min(until // self.chunk * self.chunk, self._capacity)
        if self.finished.frames < whole:
            yield whole
        if whole < until:
            yield until

    def _segment(self, start: np.ndarray, conditions: Feeds, end: int, chunk: int) -> np.ndarray:
        first = self.finished.frames
        begin = _cut(start, first, end)
        given = {
            name: _cut(value, first, end) if value.ndim == 3 else value
            for name, value in conditions.items()
        }
        keeps = chunk == self.chunk and end % chunk == 0 and end <= self._capacity
        left: list[np.ndarray] = []

        def estimate(x: Any, number: int, weights: np.ndarray) -> tuple[Any, Any]:
            known = self._known(number, len(weights))
            found = self._call(x, number, weights, chunk, given, known)
            if keeps:
                known.past[:, first:end] = found[KEPT]
                left.append(found[NEXT_ENDS])
            return found["next"], found["velocity"]

        with self.session.turn():
            mel = np.asarray(integrate(self.solver, begin, estimate))
        if keeps:
            for known, ends in zip(self.finished.evaluations, left, strict=True):
                known.ends = ends
            self.finished.frames = end
        return mel

    def _known(self, number: int, rows: int) -> KeptEvaluation:
        evaluations = self.finished.evaluations
        if number == len(evaluations):
            evaluations.append(self._sizes.empty(rows, self._capacity))
        return evaluations[number]

    def _call(
        self,
        x: Any,
        number: int,
        weights: np.ndarray,
        chunk: int,
        given: Feeds,
        known: KeptEvaluation,
    ) -> dict[str, np.ndarray]:
        """One evaluation under as many conditions as there are weights: the second are zeros."""
        rows = {
            name: np.concatenate([value, np.zeros_like(value)]) if len(weights) > 1 else value
            for name, value in given.items()
        }
        found = self.session.run(
            {
                **rows,
                "x": x,
                "shift": self.shifts[number : number + 1],
                "step": weights,
                "chunk": np.array([chunk], np.int64),
                PAST: np.ascontiguousarray(known.past[:, : self.finished.frames]),
                ENDS: known.ends,
            }
        )
        batch, (_, mels, frames) = len(weights), given["mu"].shape
        wanted = {
            "next": ("f", (1, mels, frames)),
            "velocity": ("f", (batch, mels, frames)),
            KEPT: ("f", (batch, frames, self._sizes.states)),
            NEXT_ENDS: ("f", known.ends.shape),
        }
        if missing := wanted.keys() - found.keys():
            raise IntegrityError(f"{_WRONG}: it has no output {min(missing)}")
        if problem := mismatch(found, wanted):
            raise IntegrityError(f"{_WRONG}: {problem}")
        return found


def _cut(value: np.ndarray, first: int, end: int) -> np.ndarray:
    return np.ascontiguousarray(value[:, :, first:end])


def key(solver: Solver, *values: np.ndarray | Sequence[int]) -> Hashable:
    """What the kept frames of a prompt depend on: the solver, and its tokens, mel and speaker."""
    return solver, *(np.asarray(value).tobytes() for value in values)
