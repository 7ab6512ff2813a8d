"""`edgepack verify`."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from edgepack.cli._options import PATH, engine_options, output_options, provider_options
from edgepack.errors import GateError

if TYPE_CHECKING:
    from edgepack.bundle import Bundle
    from edgepack.metrics import Measure, Values
    from edgepack.report import Parts
    from edgepack.runtime.gpu.placement import Placement, Wanted
    from edgepack.runtime.loading import Host
    from edgepack.verification.reference import Row
    from edgepack.verification.selftest import Outcome


@click.command(short_help="Check a bundle: hashes, self-test, vectors of the original.")
@click.argument("bundle", type=PATH)
@click.option(
    "--against",
    type=PATH,
    metavar="DIR",
    help="Compare with recorded vectors: lm.npz, flow.npz, hift.npz, tts.npz.",
)
@click.option(
    "--solver",
    default="reference",
    show_default=True,
    metavar="NAME",
    help="Of the flow decoder, for --against: reference (the original's) or calibrated.",
)
@provider_options
@engine_options
@output_options
def command(
    bundle: Path,
    against: Path | None,
    solver: str,
    runtime: str | None,
    threads: int | None,
    provider: str,
    allow_fallback: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check every file of BUNDLE and run its self-test in each runtime (or in --format).

    Runtimes that are not installed are skipped, and named. Its text front end and its voices are
    opened as for speaking.

    The self-test repeats recorded calls of every network and compares with what the fp32
    reference answered when the bundle was built. A bundle with integer weights also repeats its
    exam: sentences that the fp32 networks spoke, and the target's limits; one with a calibrated
    solver measures it again. With --against, every array of the original implementation's vectors
    gets a row. What is off ends with exit code 1.
    """
    import msgspec

    from edgepack import report
    from edgepack.bundle import open_bundle
    from edgepack.cli._tables import quality_table
    from edgepack.runtime import installed
    from edgepack.runtime import solver as solvers
    from edgepack.runtime.gpu.placement import Wanted
    from edgepack.verification import gates, reference
    from edgepack.verification.intervals import rounded
    from edgepack.verification.readiness import require_ready

    opened = open_bundle(bundle)
    if against:
        reference.files(against)
    require_ready(opened)
    runtimes = [runtime] if runtime else installed.usable(opened)
    skipped = {} if runtime else installed.skipped(opened)
    for name in runtimes:
        solvers.require(solver, None, name in opened.manifest.solvers, name, opened.folder)
    shown = not quiet and not as_json
    failed: list[str] = []
    results: dict[str, Any] = {}
    parts = dict(_parts(opened, runtimes, against))
    with report.progress("verify", shown=shown) as step:
        at = report.Parts(step, parts)
        wanted = Wanted(provider, allow_fallback, at)
        checks = {
            name: _checked(opened, name, threads, wanted, against, solver, at) for name in runtimes
        }
    for name, (outcomes, rows, values, placement) in checks.items():
        failed += [f"{name} {o.stage}" for o in outcomes if not o.passed]
        failed += [f"{name} {row.file}/{row.array}" for row in rows if row.failed]
        limits = gates.limits_of(opened.manifest, name)
        missed = [*gates.failures(values, limits), *gates.unlimited(opened.manifest, name)]
        missing: Sequence[str] = gates.not_measured(values) if opened.manifest.quality else ()
        failed += [f"{name} {words}" for words in missed]
        results[name] = {
            **_record(outcomes, rows),
            "exam": {m: msgspec.to_builtins(rounded(value)) for m, value in values.items()},
            "not_measured": list(missing),
            "failed_gates": missed,
            "providers": placement.record() if placement else None,
        }
        for warning in placement.warnings() if placement and shown else ():
            report.warn(f"{name}: {warning}")
        if shown:
            _show(name, outcomes, rows)
            if values:
                quality_table(f"exam in {name}", values, limits, missing)
    record = {
        "bundle": str(bundle),
        "passed": not failed,
        "runtimes": results,
        "skipped": skipped,
    }
    for name, reason in skipped.items() if shown else ():
        report.warn(f"{name} was not checked: {reason}")
    if failed:
        raise GateError(f"{bundle}: {len(failed)} checks failed, first {failed[0]}", record)
    if as_json:
        report.document(record)
    elif shown:
        report.line(f"{bundle}: all checks passed in {', '.join(runtimes)}")


class _Checks(NamedTuple):
    """What was found in one runtime; rows of --against, and metrics where there is an exam."""

    outcomes: "list[Outcome]"
    rows: "list[Row]"
    values: "dict[str, Measure]"
    placement: "Placement | None"


_SELF_TEST, _EXAM, _SOLVER, _VECTORS = "self-test", "exam", "solver", "comparing with"


def _parts(
    bundle: "Bundle", runtimes: Sequence[str], against: Path | None
) -> Iterator[tuple[tuple[str, str], float]]:
    """What is checked, and roughly how long it takes by the self-test's time."""
    for name in runtimes:
        yield (_SELF_TEST, name), 1.0
        if bundle.manifest.quality:
            yield (_EXAM, name), 10.0
        if name in bundle.manifest.solvers:
            yield (_SOLVER, name), 3.0
        if against:
            yield (_VECTORS, name), 5.0


def _checked(
    bundle: "Bundle",
    name: str,
    threads: int | None,
    wanted: "Wanted",
    against: Path | None,
    solver: str,
    at: "Parts",
) -> _Checks:
    from edgepack.runtime.loading import choose
    from edgepack.runtime.quiet import hush
    from edgepack.verification import gates

    at.begin((_SELF_TEST, name))
    at(f"{_SELF_TEST} in {name}")
    host = choose(bundle, name, threads, wanted=wanted)
    hush(bundle, name)
    outcomes = _self_test(bundle, host)
    rows: list[Row] = []
    values: dict[str, Measure] = {}
    if bundle.manifest.quality:
        at.begin((_EXAM, name))
        at(f"{_EXAM} in {name}")
        values.update(_exam(bundle, name, threads, wanted).items())
    if name in bundle.manifest.solvers:
        at.begin((_SOLVER, name))
        at(f"{_SOLVER} in {name}")
        values[gates.SOLVER_ERROR] = _solver_error(bundle, name, threads, wanted)
    if against:
        at.begin((_VECTORS, name))
        at(f"{_VECTORS} {against} in {name}")
        rows = _against(bundle.folder, name, threads, wanted, against, solver)
    return _Checks(outcomes, rows, values, host.placement)


def _self_test(bundle: "Bundle", host: "Host") -> "list[Outcome]":
    from edgepack.verification import selftest

    return selftest.run(bundle, host)


def _exam(bundle: "Bundle", runtime: str, threads: int | None, wanted: "Wanted") -> "Values":
    """Metrics of the bundle's exam; none if it has none."""
    from edgepack.runtime.loading import load
    from edgepack.verification import exam, gates

    questions = exam.of(bundle)
    if not questions:
        return {}
    return gates.examine(load(bundle.folder, runtime, threads, wanted=wanted), questions)


def _solver_error(
    bundle: "Bundle", runtime: str, threads: int | None, wanted: "Wanted"
) -> "Measure":
    """The error of the bundle's calibrated solver on the utterances that it brings, in dB."""
    from edgepack.runtime.loading import load
    from edgepack.verification import gates, trajectories
    from edgepack.verification.intervals import digits

    judged = trajectories.of(bundle)
    flow = load(bundle.folder, runtime, threads, wanted=wanted).flow
    error = digits(trajectories.error(flow, flow.solver, judged))
    return gates.solver_measure(error, len(judged))


def _against(
    bundle: Path,
    runtime: str,
    threads: int | None,
    wanted: "Wanted",
    folder: Path,
    solver: str,
) -> "list[Row]":
    from edgepack.runtime.loading import load
    from edgepack.verification import reference

    loaded = load(bundle, runtime, threads, wanted=wanted)
    return reference.run(loaded.with_solver(loaded.solver(solver)), folder)


def _record(outcomes: "list[Outcome]", rows: "list[Row]") -> dict[str, Any]:
    return {
        "self_test": [
            {
                "stage": o.stage,
                "precision": o.precision,
                "error": _finite(o.error),
                "limit": o.limit,
                "passed": o.passed,
            }
            for o in outcomes
        ],
        "arrays": [
            {
                "file": row.file,
                "array": row.array,
                "role": row.role,
                "error": _finite(row.error),
                "limit": row.limit,
                "passed": None if row.error is None else not row.failed,
                "note": row.note,
            }
            for row in rows
        ],
    }


def _finite(error: float | None) -> float | None:
    """JSON has no infinity, the error of an array of another shape."""
    return error if error is not None and math.isfinite(error) else None


def _show(runtime: str, outcomes: "list[Outcome]", rows: "list[Row]") -> None:
    from edgepack import report

    def verdict(passed: bool) -> str:
        return "ok" if passed else "OFF"

    report.table(
        f"self-test in {runtime}",
        ["stage", "precision", "error", "limit", ""],
        [
            [o.stage, o.precision, f"{o.error:.1e}", f"{o.limit:.0e}", verdict(o.passed)]
            for o in outcomes
        ],
    )
    if rows:
        report.table(
            f"vectors in {runtime}",
            ["array", "role", "error", "limit", ""],
            [
                [f"{row.file}/{row.array}", row.role, "", "", row.note]
                if row.error is None or row.limit is None
                else [
                    f"{row.file}/{row.array}",
                    row.role,
                    f"{row.error:.1e}",
                    f"{row.limit:.0e}",
                    verdict(not row.failed),
                ]
                for row in rows
            ],
        )
