"""All that can be checked of a bundle on the machine that is to speak with it, in order.

First what needs no engine: the manifest, the vectors that are to be compared with, the text front
end and the voices. Then in each runtime, each of them only if the bundle has it or it was asked
for: every file and the self-test, the evaluation, the calibrated solver, vectors of the original.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.bundle.metrics import Limit, Measure, Values
from edgepack.report import Parts, Step, silent
from edgepack.runtime.engines import installed
from edgepack.runtime.gpu.placement import AUTO, Placement, Wanted
from edgepack.runtime.load_options import LoadOptions
from edgepack.runtime.loading import Loaded, choose, load
from edgepack.runtime.stages import solver as solvers
from edgepack.verification import evaluation, gates, reference, selftest, trajectories
from edgepack.verification.intervals import digits
from edgepack.verification.readiness import require_ready
from edgepack.verification.reference import Row
from edgepack.verification.selftest import Outcome

_SELF_TEST, _EVALUATION, _SOLVER, _VECTORS = "self-test", "evaluation", "solver", "comparing with"

# What is told of each runtime before its engines are opened: a program quietens them there.
Starting = Callable[[Bundle, str], None]


@dataclass(frozen=True)
class CheckRequest:
    """What to check: one runtime of a bundle, or all that are installed.

    `provider` and `allow_fallback` are of a GPU (`runtime.gpu.placement.Wanted`). `against` is a
    folder of vectors of the original (`verification.reference`), which are compared with the flow
    decoder's `solver`, reference or calibrated.
    """

    runtime: str | None = None
    threads: int | None = None
    provider: str = AUTO
    allow_fallback: bool = False
    against: Path | None = None
    solver: str = solvers.REFERENCE


@dataclass(frozen=True)
class CheckedRuntime:
    """What was found in one runtime.

    `outcomes` are of the self-test, one a network, and `rows` of the vectors, one an array.
    `measured` are metrics of the evaluation and the solver's error in dB, `limits` what they are
    held to, `missed` the limits that are not kept, in words. `not_measured` are metrics of the
    evaluation without a value. `placement` is where networks ran on a machine with a GPU.
    """

    outcomes: Sequence[Outcome]
    rows: Sequence[Row]
    measured: Mapping[str, Measure]
    limits: Mapping[str, Limit]
    missed: Sequence[str]
    not_measured: Sequence[str]
    placement: Placement | None

    @property
    def failed(self) -> list[str]:
        """What is off, each in words: networks, then arrays, then limits."""
        networks = [outcome.stage for outcome in self.outcomes if not outcome.passed]
        arrays = [f"{row.file}/{row.array}" for row in self.rows if row.failed]
        return [*networks, *arrays, *self.missed]


@dataclass(frozen=True)
class Checked:
    """What was found by runtime; `skipped` are those that are not installed, with the reason."""

    runtimes: Mapping[str, CheckedRuntime]
    skipped: Mapping[str, str]

    @property
    def failed(self) -> list[str]:
        """What is off, each with its runtime; empty if all checks passed."""
        return [f"{name} {words}" for name, one in self.runtimes.items() for words in one.failed]


@dataclass(frozen=True)
class Checks:
    """A bundle that speaks as far as can be said without an engine, and what to check of it."""

    bundle: Bundle
    request: CheckRequest
    runtimes: Sequence[str]
    skipped: Mapping[str, str]

    def run(
        self, step: Step = silent, starting: Starting = lambda bundle, runtime: None
    ) -> Checked:
        """Check each runtime; what is off is in the result, see `Checked.failed`.

        Raises UsageError for a runtime that the bundle lacks, UnsupportedError for one that is not
        installed, IntegrityError for files that are not as they were built.
        """
        at = Parts(step, dict(_parts(self.bundle, self.runtimes, self.request.against)))
        found = {
            name: _InRuntime(self.bundle, name, self.request, at).check(starting)
            for name in self.runtimes
        }
        return Checked(found, self.skipped)


def prepare(folder: Path, request: CheckRequest = CheckRequest()) -> Checks:
    """Open the bundle in `folder` and what speaks besides networks, before an engine starts.

    Raises UsageError for a request that does not fit the bundle, IntegrityError for files that are
    not as they were built, UnsupportedError if none of its runtimes is installed, or what reads a
    language is not.
    """
    bundle = open_bundle(folder)
    if request.against:
        reference.files(request.against, reference.family_of(request.against, bundle))
    require_ready(bundle)
    runtimes = [request.runtime] if request.runtime else installed.usable(bundle)
    for name in runtimes:
        solvers.require(request.solver, None, name in bundle.manifest.solvers, name, folder)
    skipped = {} if request.runtime else installed.skipped(bundle)
    return Checks(bundle, request, runtimes, skipped)


def _parts(
    bundle: Bundle, runtimes: Sequence[str], against: Path | None
) -> Iterator[tuple[tuple[str, str], float]]:
    """What is checked, and roughly how long it takes by the self-test's time."""
    for name in runtimes:
        yield (_SELF_TEST, name), 1.0
        if bundle.manifest.quality:
            yield (_EVALUATION, name), 10.0
        if name in bundle.manifest.solvers:
            yield (_SOLVER, name), 3.0
        if against:
            yield (_VECTORS, name), 5.0


@dataclass(frozen=True)
class _InRuntime:
    """The checks of a bundle in one of its runtimes; each loads what it needs."""

    bundle: Bundle
    runtime: str
    request: CheckRequest
    at: Parts

    def check(self, starting: Starting) -> CheckedRuntime:
        manifest, against = self.bundle.manifest, self.request.against
        self._begin(_SELF_TEST)
        host = choose(self.bundle, self.runtime, self.request.threads, wanted=self._wanted)
        starting(self.bundle, self.runtime)
        outcomes = selftest.run(self.bundle, host)
        rows: list[Row] = []
        measured: dict[str, Measure] = {}
        if manifest.quality:
            self._begin(_EVALUATION)
            measured.update(self._evaluation().items())
        if self.runtime in manifest.solvers:
            self._begin(_SOLVER)
            measured[gates.SOLVER_ERROR] = self._solver_error()
        if against:
            self._begin(_VECTORS, f"{_VECTORS} {against}")
            loaded = self._loaded()
            rows = reference.run(loaded.with_solver(loaded.solver(self.request.solver)), against)
        limits = gates.limits_of(manifest, self.runtime)
        missed = [*gates.failures(measured, limits), *gates.unlimited(manifest, self.runtime)]
        not_measured = gates.not_measured(measured) if manifest.quality else ()
        return CheckedRuntime(
            outcomes, rows, measured, limits, missed, not_measured, host.placement
        )

    @property
    def _wanted(self) -> Wanted:
        return Wanted(self.request.provider, self.request.allow_fallback, self.at)

    def _begin(self, part: str, told: str = "") -> None:
        self.at.begin((part, self.runtime))
        self.at(f"{told or part} in {self.runtime}")

    def _loaded(self) -> Loaded:
        threads = self.request.threads
        return load(
            self.bundle.folder, self.runtime, threads, options=LoadOptions(wanted=self._wanted)
        )

    def _evaluation(self) -> Values:
        """Metrics of the bundle's evaluation; none if it has none."""
        questions = evaluation.of(self.bundle)
        return gates.examine(self._loaded(), questions) if questions else {}

    def _solver_error(self) -> Measure:
        """The error of the calibrated solver on the utterances that the bundle brings, in dB."""
        judged = trajectories.of(self.bundle)
        flow = self._loaded().flow
        error = digits(trajectories.error(flow, flow.solver, judged))
        return gates.solver_measure(error, len(judged))
