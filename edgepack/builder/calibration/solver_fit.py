"""Weights of a solver's table, fitted to the estimator that will run it.

Step by step: the estimator is evaluated at the solver's own states, and the weights are those that
bring the next states closest to the exact ones, a linear least-squares problem with a handful of
unknowns. So a table also makes up for its own earlier errors and for what quantization changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from edgepack.builder.calibration.exact import ReferenceTrajectory
from edgepack.builder.calibration.outline import CONDITIONAL, FREE, Outline, solved
from edgepack.bundle.manifest import Solver, SolverStep
from edgepack.runtime.stages.flow import FlowDecoder
from edgepack.verification.trajectories import decibel

_DIGITS = 6


@dataclass
class _Traveller:
    """One utterance during solving: its state, and the velocities that later steps may use."""

    reference: ReferenceTrajectory
    x: np.ndarray
    conditional: list[np.ndarray] = field(default_factory=list)
    free: list[np.ndarray] = field(default_factory=list)

    def basis(self, start: np.ndarray | None) -> np.ndarray:
        """Terms whose weighted sum is the next state, [n, mels, T]; the state is last but one."""
        rest = [] if start is None else [start[0]]
        return np.array([*self.conditional, *self.free, self.x[0], *rest], np.float64)


def fit(
    flow: FlowDecoder, outline: Outline, references: Sequence[ReferenceTrajectory]
) -> tuple[Solver, float]:
    """The table of an outline for the estimator of `flow`, and its error in dB on `references`."""
    times = references[0].times
    shifts = flow.embed([float(times[place]) for place in outline.places])
    ends = [*outline.places[1:], len(times) - 1]
    travellers = [_Traveller(c, flow.start(c.states.shape[2]).copy()) for c in references]
    steps = []
    for number, (place, end) in enumerate(zip(outline.places, ends, strict=True)):
        guided = number in outline.guided
        for traveller in travellers:
            _look(flow, traveller, shifts[number : number + 1], guided=guided)
        starts = [flow.start(t.reference.states.shape[2]) if number else None for t in travellers]
        bases = [t.basis(start) for t, start in zip(travellers, starts, strict=True)]
        step = _step(travellers, bases, end, float(times[place]), guided=guided)
        steps.append(step)
        weights = np.array(_listed(step, with_start=bool(number)), np.float64)
        for traveller, basis in zip(travellers, bases, strict=True):
            moved = np.tensordot(weights, basis, 1)
            traveller.x = moved[None].astype(np.float32)
    errors = [decibel(t.x, t.reference.states[None, -1], t.reference.known) for t in travellers]
    return Solver(steps=tuple(steps)), float(np.mean(errors))


def _look(flow: FlowDecoder, traveller: _Traveller, shift: np.ndarray, *, guided: bool) -> None:
    """Evaluate the estimator at an utterance's state and keep the velocities."""
    reference = traveller.reference
    at = flow.velocity_field(reference.mu, reference.spk, reference.cond, chunked=reference.chunked)
    _, velocity = at.step(traveller.x, shift, np.zeros(1 + guided, np.float32))
    traveller.conditional = [velocity[0], *traveller.conditional][:CONDITIONAL]
    if guided:
        traveller.free = [velocity[1], *traveller.free][:FREE]


def _step(
    travellers: Sequence[_Traveller],
    bases: Sequence[np.ndarray],
    end: int,
    time: float,
    *,
    guided: bool,
) -> SolverStep:
    """The step whose weights bring all travellers closest to their references at time `end`."""
    size = len(bases[0])
    products, targets = np.zeros((size, size)), np.zeros(size)
    for traveller, basis in zip(travellers, bases, strict=True):
        known = traveller.reference.known
        rows = basis[:, :, known:].reshape(size, -1)
        way = traveller.reference.states[end] - traveller.x[0].astype(np.float64)
        products += rows @ rows.T / rows.shape[1]
        targets += rows @ way[:, known:].reshape(-1) / rows.shape[1]
    weights = [float(f"{weight:.{_DIGITS}g}") for weight in solved(products, targets)]
    conditional, free = len(travellers[0].conditional), len(travellers[0].free)
    keep = conditional + free
    return SolverStep(
        time=time,
        guided=guided,
        conditional=tuple(weights[:conditional]),
        free=tuple(weights[conditional:keep]),
        keep=1.0 + weights[keep],
        start=weights[keep + 1] if size > keep + 1 else 0.0,
    )


def _listed(step: SolverStep, *, with_start: bool) -> list[float]:
    """Weights in the order of a basis."""
    rest = [step.start] if with_start else []
    return [*step.conditional, *step.free, step.keep, *rest]
