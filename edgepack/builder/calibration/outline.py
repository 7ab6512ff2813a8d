"""Searching the times of a solver's steps, and the steps that use the unconditional velocity.

The search does not evaluate the estimator. Along exact trajectories all states and velocities are
known, so the result of any table is a linear combination of them (as long as the solver's own state
is close to the exact one), and its error is a quadratic form of their inner products. A solver's
velocities differ from the exact ones, as they are computed at its own state and by a quantized
estimator. This is modelled as independent noise in proportion to each velocity, which keeps the
search away from tables that use small differences of large numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from edgepack.builder.calibration.exact import ReferenceTrajectory

CONDITIONAL, FREE = 3, 2  # velocities that a step may come back to
NOISES = (0.01, 0.02, 0.03)  # relative, root mean square
_RIDGE = 1e-9
_KEPT = 10_000  # states of a search
_FEWEST_GUIDED, _LEAST_STEPS = 2, 3
_STARTS = (0.6, 0.8, 1.0)  # exponents of the first grids of a search
_DECIBEL = 20.0 / np.log(10.0)


@dataclass(frozen=True)
class Outline:
    """A table without weights: its steps by number among a trajectory's times, and guided steps."""

    places: tuple[int, ...]
    guided: frozenset[int]

    @property
    def evaluations(self) -> int:
        """Evaluations of the estimator for one row."""
        return len(self.places) + len(self.guided)


@dataclass(frozen=True)
class _Reached:
    """A solver's state and the velocities that later steps may use, as combinations [3N]."""

    x: np.ndarray
    conditional: tuple[np.ndarray, ...] = ()
    free: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Products:
    """Mean inner products of states, conditional and unconditional velocities, [3N, 3N]."""

    count: int
    matrix: np.ndarray

    @staticmethod
    def of(references: Sequence[ReferenceTrajectory]) -> "Products":
        """Products over the frames that are judged; every utterance has the same weight."""
        count = len(references[0].times)
        matrix = np.zeros((3 * count, 3 * count))
        for reference in references:
            parts = (reference.states, reference.velocities[:, 0], reference.velocities[:, 1])
            rows = [part[:, :, reference.known :].reshape(count, -1) for part in parts]
            joined = np.concatenate(rows).astype(np.float64)
            matrix += joined @ joined.T / joined.shape[1] / len(references)
        return Products(count, matrix)

    def noisy(self, share: float) -> "Products":
        """The products if velocities have independent errors of this relative size."""
        matrix = self.matrix.copy()
        of_velocities = np.arange(self.count, 3 * self.count)
        matrix[of_velocities, of_velocities] *= 1.0 + share**2
        return Products(self.count, matrix)

    def error(self, outline: Outline) -> float:
        """Predicted error of the best weights for an outline, in dB."""
        guided = tuple(number in outline.guided for number in range(len(outline.places)))
        reached = self._reached((*outline.places, self.count - 1), guided)
        missed = reached.x - np.eye(3 * self.count)[self.count - 1]
        return float(_DECIBEL * np.sqrt(max(missed @ self.matrix @ missed, 0.0)))

    @cached_property
    def _reached(self) -> Callable[[tuple[int, ...], tuple[bool, ...]], _Reached]:
        """`_after` with a cache, as tables that the search compares begin with the same steps."""
        return lru_cache(maxsize=_KEPT)(self._after)

    def _after(self, places: tuple[int, ...], guided: tuple[bool, ...]) -> _Reached:
        """The state after steps from all places but the last one, each with its best weights."""
        unit = np.eye(3 * self.count)
        if not guided:
            return _Reached(unit[0])
        *_, place, end = places
        before = self._reached(places[:-1], guided[:-1])
        conditional = (unit[self.count + place], *before.conditional)[:CONDITIONAL]
        fresh = (unit[2 * self.count + place],) if guided[-1] else ()
        free = (*fresh, *before.free)[:FREE]
        start = unit[:1] if len(guided) > 1 else ()
        basis = np.array([*conditional, *free, before.x, *start])
        seen = basis @ self.matrix
        weights = solved(seen @ basis.T, seen @ (unit[end] - before.x))
        return _Reached(before.x + weights @ basis, conditional, free)

    def best(self, evaluations: int) -> Outline:
        """The outline of least predicted error with that many evaluations."""
        found: list[tuple[float, Outline]] = []
        for guided in range(_FEWEST_GUIDED, evaluations // 2 + 1):
            steps = evaluations - guided
            for start in _STARTS if steps >= _LEAST_STEPS else ():
                first = Outline(_places(self.count, steps, start), frozenset(range(guided)))
                found.append(self._climbed(first))
        return min(found, key=lambda pair: pair[0])[1]

    def _climbed(self, outline: Outline) -> tuple[float, Outline]:
        """The best outline that hill climbing by single moves finds."""
        error = self.error(outline)
        while True:
            tried = [(self.error(other), other) for other in _neighbours(outline, self.count)]
            least, best = min(tried, key=lambda pair: pair[0])
            if least >= error:
                return error, outline
            error, outline = least, best


def solved(products: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Least-squares weights by normal equations, with a small ridge for dependent bases."""
    scale = np.sqrt(np.diag(products)) + np.finfo(float).tiny
    normed = products / np.outer(scale, scale) + _RIDGE * np.eye(len(products))
    return np.linalg.solve(normed, targets / scale) / scale


def _places(count: int, steps: int, exponent: float) -> tuple[int, ...]:
    """Places of a grid's steps among `count` times, all different."""
    wanted = np.linspace(0.0, 1.0, steps, endpoint=False) ** exponent * (count - 1)
    places: list[int] = []
    for place in np.round(wanted).astype(int):
        places.append(max(int(place), places[-1] + 1) if places else 0)
    return tuple(places)


def _neighbours(outline: Outline, count: int) -> list[Outline]:
    """Outlines with one step at a neighbouring time, or one guided step a step later or earlier."""
    found = []
    for number in range(1, len(outline.places)):
        for move in (-2, -1, 1, 2):
            places = list(outline.places)
            places[number] += move
            if all(a < b for a, b in zip(places, [*places[1:], count - 1], strict=True)):
                found.append(Outline(tuple(places), outline.guided))
    for number in sorted(outline.guided - {0}):
        for move in (-1, 1):
            moved = number + move
            if 0 < moved < len(outline.places) and moved not in outline.guided:
                guided = outline.guided - {number} | {moved}
                found.append(Outline(outline.places, guided))
    return found
