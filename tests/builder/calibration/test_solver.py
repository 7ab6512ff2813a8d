"""Fitting a solver: exact trajectories, the search for a table, its weights, what the gate sees."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgepack.builder.calibration.exact import ReferenceTrajectory, grid
from edgepack.builder.calibration.outline import Outline, Products, solved
from edgepack.builder.calibration.solver_fit import fit
from edgepack.builder.calibration.solver_search import FEWEST, Bound, calibrate, measured
from edgepack.bundle.manifest import Calibrated, Solver
from edgepack.report import silent
from edgepack.runtime.engines.session import Feeds, Session
from edgepack.runtime.stages.solver import euler
from edgepack.runtime.strategies.flow.causal_chunks import CausalChunks, Record
from edgepack.verification import trajectories
from edgepack.verification.trajectories import Trajectory

FLOW = Record(
    steps=10, schedule="cosine", guidance=0.7, look_ahead=3, chunk=25, ratio=2, mels=4,
    noise_seed=0, noise_frames=320, heads=8,
)  # fmt: skip
FRAMES, NODES = 24, 20


class Bent(Session):
    """An estimator with a velocity that bends: towards `mu`, faster and turning as time goes on."""

    batches = True

    def __init__(self, noise: float = 0.0) -> None:
        self.noise, self.rng, self.evaluated = noise, np.random.default_rng(5), 0

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        time = float(feeds["shift"][0, 0])
        x, mu = feeds["x"], feeds["mu"]
        self.evaluated += len(mu)
        turned = np.roll(x, 1, axis=1) * np.float32(np.sin(3 * time))
        velocity = (1 + 2 * time) * (mu - x) + turned
        velocity += self.noise * self.rng.standard_normal(velocity.shape)
        velocity = velocity.astype(np.float32)
        moved = x + np.tensordot(feeds["step"], velocity, 1)[None]
        return {"next": moved.astype(np.float32), "velocity": velocity}

    def reset(self) -> None:
        pass

    def caches(self) -> dict[str, np.ndarray]:
        return {}


class Embedding(Bent):
    """A time is embedded as itself."""

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        return {"shift": feeds["t"][:, None]}


def decoder(noise: float = 0.0) -> CausalChunks:
    return CausalChunks(FLOW, Bent(), Embedding(), Bent(noise))


def conditions(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mu = rng.standard_normal((1, FLOW.mels, FRAMES)).astype(np.float32)
    return mu, np.zeros((1, FLOW.mels), np.float32), np.zeros_like(mu)


def reference(seed: int) -> ReferenceTrajectory:
    """By the classical Runge-Kutta method, independently of what is tested."""
    flow, times = decoder(), grid(NODES)
    field = flow.velocity_field(*conditions(seed))
    x = flow.start(FRAMES).astype(np.float64)
    states, velocities = [x[0]], []

    def rows(x: np.ndarray, t: float) -> np.ndarray:
        return np.asarray(field.step(x.astype(np.float32), np.array([[t]]), np.zeros(2))[1])

    def slope(x: np.ndarray, t: float) -> np.ndarray:
        own, free = rows(x, t).astype(np.float64)
        return np.asarray(1.7 * own - 0.7 * free)

    for start, end in pairwise(times):
        velocities.append(rows(x, start))
        half = (end - start) / 2
        first = slope(x, start)
        second = slope(x + half * first, start + half)
        third = slope(x + half * second, start + half)
        x = x + half / 3 * (first + 2 * (second + third) + slope(x + 2 * half * third, end))
        states.append(x[0])
    velocities.append(rows(x, 1.0))
    return ReferenceTrajectory(
        *conditions(seed), np.array([0, 4 * (seed % 2)]), times,
        np.array(states, np.float32), np.array(velocities, np.float32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def references() -> list[ReferenceTrajectory]:
    return [reference(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def judged() -> list[Trajectory]:
    """Other utterances than those of `references`."""
    found = []
    for seed in range(10, 14):
        exact = reference(seed)
        own = decoder().solve(*conditions(seed), solver=euler(FLOW))
        error = trajectories.decibel(own, exact.states[None, -1], exact.known)
        found.append(
            Trajectory(*conditions(seed), False, exact.known, exact.states[None, -1], error)
        )
    return found


BOUND = Bound(10, None, 20)


@pytest.fixture(scope="module")
def clean(references: Sequence[ReferenceTrajectory], judged: Sequence[Trajectory]) -> Calibrated:
    """Calibrated with an estimator without noise."""
    return calibrate(decoder(), references, judged, BOUND, silent)


def test_least_squares_of_a_dependent_basis() -> None:
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((3, 50))
    basis = np.concatenate([basis, basis[:1] * 1e6])  # a row twice, of another size
    target = basis[0] - 2 * basis[1]
    weights = solved(basis @ basis.T, basis @ target)
    np.testing.assert_allclose(weights @ basis, target, atol=1e-4)


def test_the_search_ranks_tables_as_fitting_does(references: Sequence[ReferenceTrajectory]) -> None:
    products = Products.of(references)
    guided = frozenset((0, 1, 2))
    outlines = [
        Outline(tuple(range(0, NODES, 2)), frozenset(range(NODES // 2))),
        Outline((0, 4, 8, 12, 16), guided | {3, 4}),
        Outline((0, 8, 14), guided),
        Outline((0, 16), frozenset((0,))),
    ]
    predicted = [products.error(outline) for outline in outlines]
    fitted = [fit(decoder(), outline, references)[1] for outline in outlines]
    assert predicted == sorted(predicted)
    assert fitted == sorted(fitted)


@pytest.mark.parametrize("evaluations", [6, 8, 10])
def test_the_search_keeps_to_its_budget(
    references: Sequence[ReferenceTrajectory], evaluations: int
) -> None:
    best = Products.of(references).noisy(0.02).best(evaluations)
    assert best.evaluations == evaluations
    assert best.places[0] == 0
    assert list(best.places) == sorted(set(best.places))
    assert 0 in best.guided
    solver, _ = fit(decoder(), best, references)
    assert solver.evaluations == evaluations


def test_fitted_steps_do_what_was_fitted(references: Sequence[ReferenceTrajectory]) -> None:
    """The table, run by the runtime, ends where fitting said that it would."""
    flow = decoder()
    solver, error = fit(flow, Products.of(references).best(8), references)
    errors = [
        trajectories.decibel(
            flow.solve(c.mu, c.spk, c.cond, solver=solver), c.states[None, -1], c.known
        )
        for c in references
    ]
    assert np.mean(errors) == pytest.approx(error, rel=1e-3)


def test_half_the_evaluations_are_as_exact(clean: Calibrated, judged: Sequence[Trajectory]) -> None:
    found = clean
    assert found.limit == pytest.approx(trajectories.euler_error(judged), rel=0.01)
    assert found.accuracy.decibel <= found.limit
    assert found.accuracy.evaluations == found.solver.evaluations <= 10
    assert found.euler.evaluations == 20
    assert found.utterances == len(judged)
    counts = [point.evaluations for point in found.curve]
    assert counts == list(range(FEWEST, 11))
    enough = [p.evaluations for p in found.curve if p.decibel <= 0.8 * found.limit]
    assert found.accuracy.evaluations <= min(enough)


def test_evaluations_are_really_saved(clean: Calibrated) -> None:
    flow = decoder()
    flow.solve(*conditions(1), solver=clean.solver)
    assert isinstance(flow.estimator, Bent)
    assert flow.estimator.evaluated == clean.accuracy.evaluations


@pytest.mark.slow
def test_noise_of_the_estimator_is_part_of_the_error(
    references: Sequence[ReferenceTrajectory], judged: Sequence[Trajectory], clean: Calibrated
) -> None:
    noisy = calibrate(decoder(0.01), references, judged, BOUND, silent)
    assert noisy.accuracy.evaluations >= clean.accuracy.evaluations
    few = Bound(6, None, 20)
    hopeless = calibrate(decoder(0.5), references, judged[:2], few, silent)
    assert hopeless.accuracy.decibel > hopeless.limit
    assert hopeless.curve[-1].evaluations == 20  # more than the budget were tried
    resigned = calibrate(decoder(0.5), references, judged[:2], few, silent, lenient=True)
    assert resigned.curve[-1].evaluations == 6
    assert resigned.accuracy.decibel <= 1.1 * min(p.decibel for p in resigned.curve)


def test_another_bound_may_be_asked_for(
    references: Sequence[ReferenceTrajectory], judged: Sequence[Trajectory], clean: Calibrated
) -> None:
    loose = calibrate(decoder(), references, judged, replace(BOUND, decibel=3.0), silent)
    assert loose.limit == 3.0
    assert loose.accuracy.evaluations <= clean.accuracy.evaluations


def test_a_shuffled_table_is_over_its_limit(
    clean: Calibrated, judged: Sequence[Trajectory]
) -> None:
    weights = [(s.conditional, s.free, s.keep, s.start) for s in clean.solver.steps]
    steps = [
        msgspec.structs.replace(step, conditional=c, keep=k, start=s)
        for step, (c, _, k, s) in zip(clean.solver.steps, weights[::-1], strict=True)
    ]
    wrong = measured(decoder(), Solver(steps=tuple(steps)), judged, BOUND)
    assert wrong.accuracy.decibel > 2 * wrong.limit
    right = measured(decoder(), clean.solver, judged, BOUND)
    assert right.accuracy == clean.accuracy


def test_trajectories_survive_a_file(judged: Sequence[Trajectory], tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    path.write_bytes(trajectories.to_bytes(judged))
    for one, other in zip(trajectories.read(path), judged, strict=True):
        np.testing.assert_array_equal(one.exact, other.exact)
        assert (one.chunked, one.known, one.euler) == (other.chunked, other.known, other.euler)


def test_a_broken_mel_is_infinitely_wrong() -> None:
    assert trajectories.decibel(np.full((1, 2, 3), np.nan), np.zeros((1, 2, 3)), 0) == float("inf")
