"""`edgepack verify`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.cli._options import (
    PATH,
    EngineOptions,
    OutputOptions,
    ProviderOptions,
    as_record,
    engine_options,
    output_options,
    provider_options,
)
from edgepack.errors import GateError

if TYPE_CHECKING:
    from edgepack.verification.checks import Checked, CheckedRuntime
    from edgepack.verification.reference import Row
    from edgepack.verification.selftest import Outcome


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(ProviderOptions, EngineOptions, OutputOptions):
    """Arguments and options of `edgepack verify`."""

    bundle: Path
    against: Path | None
    solver: str


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
@as_record(VerifyOptions)
def command(options: VerifyOptions) -> None:
    """Check every file of BUNDLE and run its self-test in each runtime (or in --format).

    Runtimes that are not installed are skipped, and named. Its text front end and its voices are
    opened as for speaking.

    The self-test repeats recorded calls of every network and compares with what the fp32
    reference answered when the bundle was built. A bundle with integer weights also repeats its
    evaluation: sentences that the fp32 networks spoke, and the target's limits; one with a
    calibrated solver measures it again. With --against, every array of the original
    implementation's vectors gets a row. What is off ends with exit code 1.
    """
    from edgepack import report
    from edgepack.runtime.engines.quiet import hush
    from edgepack.verification.checks import CheckRequest, prepare

    request = CheckRequest(
        options.runtime,
        options.threads,
        options.provider,
        options.allow_fallback,
        options.against,
        options.solver,
    )
    checks = prepare(options.bundle, request)
    shown = options.shown
    with report.progress("verify", shown=shown) as step:
        checked = checks.run(step, hush)
    if shown:
        _show(checked)
    failed = checked.failed
    record = {
        "bundle": str(options.bundle),
        "passed": not failed,
        "runtimes": {name: _record(found) for name, found in checked.runtimes.items()},
        "skipped": checked.skipped,
    }
    if failed:
        raise GateError(f"{options.bundle}: {len(failed)} checks failed, first {failed[0]}", record)
    if options.as_json:
        report.document(record)
    elif shown:
        report.line(f"{options.bundle}: all checks passed in {', '.join(checked.runtimes)}")


def _record(found: "CheckedRuntime") -> dict[str, Any]:
    """What was found in one runtime, for JSON."""
    import msgspec

    from edgepack.verification.intervals import rounded

    return {
        "self_test": [
            {
                "stage": o.stage,
                "precision": o.precision,
                "error": _finite(o.error),
                "limit": o.limit,
                "passed": o.passed,
            }
            for o in found.outcomes
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
            for row in found.rows
        ],
        "exam": {m: msgspec.to_builtins(rounded(value)) for m, value in found.measured.items()},
        "not_measured": list(found.not_measured),
        "failed_gates": list(found.missed),
        "providers": found.placement.record() if found.placement else None,
    }


def _finite(error: float | None) -> float | None:
    """The error, or None where it is infinite (arrays of different shape), which JSON has not."""
    return error if error is not None and math.isfinite(error) else None


def _show(checked: "Checked") -> None:
    """Tables of every runtime, and warnings."""
    from edgepack import report
    from edgepack.cli._tables import quality_table

    for name, found in checked.runtimes.items():
        for warning in found.placement.warnings() if found.placement else ():
            report.warn(f"{name}: {warning}")
        _self_test_table(name, found.outcomes)
        if found.rows:
            _vectors_table(name, found.rows)
        if found.measured:
            quality_table(f"evaluation in {name}", found.measured, found.limits, found.not_measured)
    for name, reason in checked.skipped.items():
        report.warn(f"{name} was not checked: {reason}")


def _self_test_table(runtime: str, outcomes: "Sequence[Outcome]") -> None:
    from edgepack import report

    report.table(
        f"self-test in {runtime}",
        ["stage", "precision", "error", "limit", ""],
        [
            [o.stage, o.precision, f"{o.error:.1e}", f"{o.limit:.0e}", _verdict(o.passed)]
            for o in outcomes
        ],
    )


def _vectors_table(runtime: str, rows: "Sequence[Row]") -> None:
    from edgepack import report

    shown = []
    for row in rows:
        told = ["", "", row.note]
        if row.error is not None and row.limit is not None:
            told = [f"{row.error:.1e}", f"{row.limit:.0e}", _verdict(not row.failed)]
        shown.append([f"{row.file}/{row.array}", row.role, *told])
    report.table(f"vectors in {runtime}", ["array", "role", "error", "limit", ""], shown)


def _verdict(passed: bool) -> str:
    return "ok" if passed else "OFF"
