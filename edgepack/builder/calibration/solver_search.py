"""The solver of a bundle: the fewest evaluations that are as exact as the original's solver.

The original takes ten Euler steps with guidance at each, twenty evaluations of its estimator, which
is most of the time of a synthesis.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from edgepack.builder.calibration.exact import ReferenceTrajectory
from edgepack.builder.calibration.outline import NOISES, Outline, Products
from edgepack.builder.calibration.solver_fit import fit
from edgepack.bundle.manifest import Accuracy, Calibrated, Solver
from edgepack.report import Step
from edgepack.runtime.stages.flow import FlowDecoder
from edgepack.verification import trajectories
from edgepack.verification.intervals import digits
from edgepack.verification.trajectories import Trajectory

FEWEST = 5
MARGIN = 0.95  # of the limit, on the utterances that a table was fitted to
NEARLY = 1.1  # times the error of the best table
_BEYOND = (12, 14, 16, 20)  # evaluations to try if none within the budget are enough


@dataclass(frozen=True)
class Bound:
    """The largest number of evaluations and the largest error of a solver.

    `evaluations` is the budget; `decibel` the largest error, None for that of the original's solver
    with the fp32 networks, which takes `original` evaluations.
    """

    evaluations: int
    decibel: float | None
    original: int

    def limit(self, judged: Sequence[Trajectory]) -> float:
        """The largest error that the gate lets pass, in dB."""
        if self.decibel is not None:
            return self.decibel
        return digits(trajectories.euler_error(judged))


def calibrate(
    flow: FlowDecoder,
    references: Sequence[ReferenceTrajectory],
    judged: Sequence[Trajectory],
    bound: Bound,
    step: Step,
    *,
    lenient: bool = False,
) -> Calibrated:
    """A table for the estimator of `flow`: fitted to `references`, measured on `judged`.

    Of those within the budget the one of fewest evaluations that is exact enough; if none is, more
    evaluations are tried. If that fails too, the most exact table is returned, for the gate to
    refuse. If the gate may fail (`lenient`), the budget stands: it is then the table of fewest
    evaluations that is nearly as exact as the best.
    """
    limit = bound.limit(judged)
    curve: list[tuple[Solver, float]] = []
    chosen: Solver | None = None
    for evaluations in _tried(bound.evaluations):
        if evaluations > bound.evaluations and (chosen or lenient):
            break
        step(f"fitting a solver of {evaluations} evaluations")
        solver, own = _fitted(flow, references, evaluations)
        error = trajectories.error(flow, solver, judged)
        curve.append((solver, error))
        if chosen is None and own <= MARGIN * limit and error <= limit:
            chosen = solver
    best = min(error for _, error in curve) * (NEARLY if lenient else 1.0)
    return _told(chosen or next(s for s, e in curve if e <= best), curve, judged, bound)


def measured(
    flow: FlowDecoder, solver: Solver, judged: Sequence[Trajectory], bound: Bound
) -> Calibrated:
    """A table that was made elsewhere, measured on `judged`."""
    return _told(solver, [(solver, trajectories.error(flow, solver, judged))], judged, bound)


def _tried(budget: int) -> Iterator[int]:
    yield from range(min(FEWEST, budget), budget + 1)
    yield from (n for n in _BEYOND if n > budget)


def _fitted(
    flow: FlowDecoder, references: Sequence[ReferenceTrajectory], evaluations: int
) -> tuple[Solver, float]:
    """The best table of a number of evaluations: outlines for several noises are tried."""
    products = Products.of(references)
    outlines: dict[Outline, None] = {}
    for noise in NOISES:
        outlines[products.noisy(noise).best(evaluations)] = None
    tables = [fit(flow, outline, references) for outline in outlines]
    return min(tables, key=lambda pair: pair[1])


def _told(
    chosen: Solver,
    curve: Sequence[tuple[Solver, float]],
    judged: Sequence[Trajectory],
    bound: Bound,
) -> Calibrated:
    points = tuple(_accuracy(solver.evaluations, error) for solver, error in curve)
    of_chosen = next(error for solver, error in curve if solver is chosen)
    return Calibrated(
        solver=chosen,
        accuracy=_accuracy(chosen.evaluations, of_chosen),
        euler=_accuracy(bound.original, trajectories.euler_error(judged)),
        limit=bound.limit(judged),
        utterances=len(judged),
        curve=points,
    )


def _accuracy(evaluations: int, decibel: float) -> Accuracy:
    return Accuracy(evaluations=evaluations, decibel=digits(decibel))
