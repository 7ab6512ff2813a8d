"""Solvers of the flow decoder's ODE as tables: Euler with guidance, and what was calibrated.

Each step evaluates the velocity v₀ under the utterance's conditions at its own state x, and the
unconditional v₁ only where the table asks for it. The next state is a sum over x, the start noise,
the last v₀ and the last v₁ that were computed. Euler's method with classifier-free guidance (Ho and
Salimans, 2022) is a table, and so are linear multistep methods.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgepack.bundle.host import FlowPart
from edgepack.bundle.manifest import Solver, SolverStep
from edgepack.discovery import unknown
from edgepack.errors import UsageError
from edgepack.runtime import cancellation

AUTO, REFERENCE, CALIBRATED = "auto", "reference", "calibrated"
NAMES = (AUTO, REFERENCE, CALIBRATED)

Grid = Callable[[np.ndarray], np.ndarray]
Observe = Callable[[np.ndarray, float], None]

_GRIDS: dict[str, Grid] = {
    "linear": lambda s: s,
    "cosine": lambda s: np.float32(1.0) - np.cos(s * np.float32(0.5 * np.pi)),
}


def require(name: str, steps: int | None, calibrated: bool, runtime: str, where: object) -> None:
    """Raise UsageError for a solver that is not there.

    `calibrated` is whether the bundle in `where` has a table for the runtime.
    """
    if name not in NAMES:
        raise UsageError(unknown("solver", name, NAMES))
    if name == CALIBRATED and not calibrated:
        raise UsageError(
            f"{where}: has no calibrated solver for {runtime}; build it with --solver calibrated, "
            "or use --solver reference"
        )
    if name == CALIBRATED and steps:
        raise UsageError("--steps are of the reference solver; leave out one of both")


def time_steps(steps: int, schedule: str) -> list[tuple[np.float32, np.float32]]:
    """Start and width of every Euler step, accumulated in float32 as the original does."""
    grid = _GRIDS[schedule](np.linspace(0.0, 1.0, steps + 1, dtype=np.float32))
    t, width, pairs = grid[0], grid[1] - grid[0], []
    for step in range(1, steps + 1):
        pairs.append((t, width))
        t = np.float32(t + width)
        if step < steps:
            width = np.float32(grid[step + 1] - t)
    return pairs


def euler(flow: FlowPart, steps: int | None = None) -> Solver:
    """The original's solver: `steps` Euler steps, the checkpoint's number by default, all guided.

    Source: cosyvoice/flow/flow_matching.py (`ConditionalCFM.solve_euler`).
    """
    return Solver(
        steps=tuple(
            SolverStep(
                time=float(t),
                guided=True,
                conditional=(float(width) * (1.0 + flow.guidance),),
                free=(-float(width) * flow.guidance,),
            )
            for t, width in time_steps(steps or flow.steps, flow.schedule)
        )
    )


# (state, number of the step, weights [B] of its own velocities) → x + their sum, velocity [B, …].
Estimate = Callable[[Any, int, np.ndarray], tuple[Any, Any]]


def integrate(
    solver: Solver, start: np.ndarray, estimate: Estimate, observe: Observe | None = None
) -> Any:
    """The state at time 1, from the noise `start` [1, mels, T]; `observe` sees each step's start.

    What `estimate` returns may stay on a device as long as no step refers to it.
    """
    x: Any = start
    conditional: list[Any] = []
    free: list[Any] = []
    for number, step in enumerate(solver.steps):
        cancellation.check()
        if observe:
            observe(np.asarray(x), step.time)
        own = (step.conditional[0], *step.free[:1]) if step.guided else step.conditional[:1]
        moved, velocity = estimate(x, number, np.array(own, np.float32))
        parts = _weighted(step.conditional[1:], conditional, 0)
        parts += _weighted(step.free[1:] if step.guided else step.free, free, 1)
        if step.keep != 1.0:
            parts.append(np.float32(step.keep - 1.0) * np.asarray(x))
        if step.start != 0.0:
            parts.append(np.float32(step.start) * start)
        x = sum(parts, np.asarray(moved)) if parts else moved
        conditional.insert(0, velocity)
        if step.guided:
            free.insert(0, velocity)
    return x


def _weighted(weights: Sequence[float], velocities: Sequence[Any], row: int) -> list[np.ndarray]:
    """Products of weights and the latest velocities, of one row of their batch."""
    return [
        np.float32(weight) * np.asarray(velocity)[row : row + 1]
        for weight, velocity in zip(weights, velocities, strict=False)
        if weight
    ]
