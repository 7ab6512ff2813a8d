"""Tables of the ODE: what a step does, and Euler's method as a table."""

from typing import Any

import msgspec
import numpy as np
import pytest
from fakes import FLOW
from hypothesis import given
from hypothesis import strategies as st
from repeatable import repeatable

from edgepack.bundle.manifest import Solver, SolverStep
from edgepack.runtime.stages.solver import euler, integrate, time_steps

START = np.array([[[1.0, -2.0, 0.5]]], np.float32)


class Estimator:
    """Velocities that are different at every call; notes what it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, np.ndarray]] = []
        self.velocities: list[np.ndarray] = []

    def __call__(self, x: Any, number: int, weights: np.ndarray) -> tuple[Any, Any]:
        rng = np.random.default_rng(len(self.calls))
        velocity = rng.standard_normal((len(weights), 1, 3)).astype(np.float32)
        self.calls.append((number, weights))
        self.velocities.append(velocity)
        return x + np.tensordot(weights, velocity, 1)[None], velocity


def test_a_step_is_the_sum_that_its_record_says() -> None:
    steps = (
        SolverStep(time=0.0, guided=True, conditional=(0.5,), free=(-0.2,)),
        SolverStep(
            time=0.3, guided=False, conditional=(0.4, 0.1), free=(0.3,), keep=0.9, start=0.2
        ),
        SolverStep(
            time=0.6, guided=True, conditional=(0.6, -0.1, 0.05), free=(0.7, 0.25), keep=1.1
        ),
    )
    estimator = Estimator()
    seen: list[tuple[np.ndarray, float]] = []
    end = integrate(Solver(steps=steps), START, estimator, lambda x, t: seen.append((x, t)))
    (a, p), (b,), (c, q) = (v.reshape(len(v), 1, 1, 3) for v in estimator.velocities)
    first = START + 0.5 * a - 0.2 * p
    second = 0.9 * first + 0.2 * START + 0.4 * b + 0.1 * a + 0.3 * p
    third = 1.1 * second + 0.6 * c - 0.1 * b + 0.05 * a + 0.7 * q + 0.25 * p
    np.testing.assert_allclose(end, third, rtol=1e-5)
    assert [t for _, t in seen] == [0.0, 0.3, 0.6]
    np.testing.assert_allclose(seen[1][0], first, rtol=1e-6)
    np.testing.assert_allclose(seen[2][0], second, rtol=1e-6)
    assert [len(weights) for _, weights in estimator.calls] == [2, 1, 2]
    assert Solver(steps=steps).evaluations == 5


@repeatable
@given(st.integers(1, 40), st.sampled_from(["cosine", "linear"]), st.floats(0, 2))
def test_euler_is_a_table(count: int, schedule: str, guidance: float) -> None:
    settings = msgspec.structs.replace(FLOW, schedule=schedule, guidance=guidance)
    solver, estimator = euler(settings, count), Estimator()
    end = integrate(solver, START, estimator)
    x = START.astype(np.float64)
    for (_, width), (own, free) in zip(
        time_steps(count, schedule), estimator.velocities, strict=True
    ):
        x = x + float(width) * ((1 + guidance) * own - guidance * free)
    np.testing.assert_allclose(end, x, rtol=1e-4, atol=1e-5)
    assert solver.evaluations == 2 * count


def test_the_checkpoint_decides_how_many_steps_euler_takes() -> None:
    assert len(euler(FLOW).steps) == FLOW.steps


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_values_stay_where_they_are_until_a_step_needs_them(keep: float) -> None:
    fetched: list[int] = []

    class Elsewhere:
        """A value on a device."""

        def __init__(self, number: int) -> None:
            self.number = number

        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            fetched.append(self.number)
            return START

    def estimate(x: Any, number: int, weights: np.ndarray) -> tuple[Any, Any]:
        return Elsewhere(number), Elsewhere(number)

    steps = [SolverStep(time=t, guided=True, conditional=(1.0,), free=(0.5,)) for t in (0.0, 0.5)]
    steps[1] = msgspec.structs.replace(steps[1], keep=keep)
    end = integrate(Solver(steps=tuple(steps)), START, estimate)
    assert isinstance(end, Elsewhere) == (keep == 1.0)
    assert bool(fetched) == (keep != 1.0)
