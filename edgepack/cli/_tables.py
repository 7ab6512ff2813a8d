"""Tables that several commands print."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from edgepack import report
from edgepack.builder.gpu_delegate import Analysis
from edgepack.bundle.manifest import Manifest, Saving
from edgepack.bundle.measurements import Measurements
from edgepack.bundle.metrics import Limit, Measure
from edgepack.verification.gates import in_words

K = TypeVar("K", bound=str)


def bundle_tables(
    title: str, manifest: Manifest, measured: Measurements | None, *, errors: bool = False
) -> None:
    """Everything about a bundle's networks, what was tried, its evaluation, and its languages.

    Measurements of its build are shown if they are still known, with `errors` also the errors of
    the self-test.
    """
    _stage_table(title, manifest, measured, errors=errors)
    if measured:
        _offer_table(measured)
    _quality_table(manifest)
    _solver_table(manifest)
    _trim_table(manifest)


def _stage_table(
    title: str, manifest: Manifest, measured: Measurements | None, *, errors: bool
) -> None:
    """For every stage and runtime: recipe, size, speed relative to fp32, error in the self-test."""
    runtimes = list(next(iter(manifest.stages.values())).variants)
    timed = bool(measured and any(o for of in measured.candidates.values() for o in of.values()))
    more = ["speed"] * timed + ["error"] * bool(measured and errors)
    columns = ["stage", "parameters", *([runtime, "size", *more] for runtime in runtimes)]
    rows = []
    for name, stage in manifest.stages.items():
        row = [name, f"{stage.parameters:,}"]
        for runtime in runtimes:
            variant = stage.variants[runtime]
            size = sum(manifest.files[file].bytes for file in variant.files)
            row += [variant.recipe, report.size(size)]
            if measured:
                candidates = measured.candidates.get(runtime, {}).get(name, ())
                speed = next((o.speed for o in candidates if o.recipe == variant.recipe), None)
                error = measured.errors.get(runtime, {}).get(name)
                told = {"speed": _times(speed), "error": "" if error is None else f"{error:.0e}"}
                row += [told[column] for column in more]
        rows.append(row)
    report.table(title, columns, rows)
    for runtime, needed in engines_needed(manifest).items():
        if len(needed) > 1:
            report.line(
                f"{runtime} speaks only where {' and '.join(needed)} are installed: "
                f"pip install 'edgepack[{','.join(needed)}]'"
            )


def engines_needed(manifest: Manifest) -> dict[str, list[str]]:
    """The engines that each runtime of a bundle needs on the device, its own first."""
    runtimes = next(iter(manifest.stages.values())).variants
    found = {}
    for runtime in runtimes:
        engines = {stage.variants[runtime].engine for stage in manifest.stages.values()}
        found[runtime] = [runtime, *sorted(engines - {"", runtime})]
    return found


def _times(speed: float | None) -> str:
    return "" if speed is None else f"×{speed:.2f}"


def _offer_table(measured: Measurements) -> None:
    """The recipes that were tried for each network; nothing if there was no choice."""
    for runtime, stages in measured.candidates.items():
        rows = []
        for name, candidates in stages.items():
            for candidate in candidates:
                values = ", ".join(
                    f"{m} {in_words(value)}" for m, value in candidate.values.items()
                )
                size = report.size(candidate.bytes) if candidate.bytes else ""
                tried = f"{name} {candidate.recipe}"
                rows.append([tried, size, _times(candidate.speed), values, candidate.verdict])
        if rows:
            columns = ["tried", "size", "speed", "by itself", "verdict"]
            report.table(f"recipes in {runtime}, speed against fp32", columns, rows)


def _quality_table(manifest: Manifest) -> None:
    """The evaluation in each runtime; says so if there was none."""
    quality = manifest.quality
    if quality is None:
        report.line("evaluation: none, as no weight is an integer; the self-test compares instead")
        return
    for runtime, values in quality.values.items():
        missing = quality.not_measured[runtime]
        quality_table(f"evaluation in {runtime}", values, quality.limits[runtime], missing)
    for failed in quality.failed:
        report.warn(f"failed gate: {failed}")


def quality_table(
    title: str,
    values: Mapping[K, Measure],
    limits: Mapping[K, Limit],
    missing: Sequence[K],
) -> None:
    """Metrics with their 95 % intervals and limits, and those that were not measured."""
    rows: list[list[str]] = []
    for metric, measure in values.items():
        rows.append([metric, in_words(measure), str(measure.count), _limit(limits.get(metric))])
    for metric in missing:
        rows.append([metric, "not measured", "0", _limit(limits.get(metric))])
    report.table(title, ["metric", "mean (95 % interval)", "of", "limit"], rows)
    if "pesq" in missing:
        report.line("pesq needs its package to be measured: pip install 'edgepack[quality]'")


def _solver_table(manifest: Manifest) -> None:
    """Errors of fitted solvers by number of evaluations, and that of the original's solver."""
    if not manifest.solvers:
        report.line(f"solver: the checkpoint's own, {manifest.host.flow.steps} guided steps")
        return
    counts = sorted({p.evaluations for s in manifest.solvers.values() for p in s.curve})
    rows = []
    for count in counts:
        row = [str(count)]
        for solver in manifest.solvers.values():
            error = next((p.decibel for p in solver.curve if p.evaluations == count), None)
            chosen = " chosen" if solver.accuracy.evaluations == count else ""
            row.append("" if error is None else f"{error:.3f} dB{chosen}")
        rows.append(row)
    euler = next(iter(manifest.solvers.values())).euler
    own = f"{euler.decibel:.3f} dB"
    rows.append([f"{euler.evaluations}, the original's with fp32", *[own] * len(manifest.solvers)])
    limits = [f"≤ {solver.limit:g} dB" for solver in manifest.solvers.values()]
    rows.append(["limit", *limits])
    report.table("solver: evaluations and error", ["evaluations", *manifest.solvers], rows)
    for runtime, solver in manifest.solvers.items():
        report.line(
            f"{runtime} speaks with {solver.accuracy.evaluations} evaluations; errors are of "
            f"{solver.utterances} utterances that calibration never saw"
        )


def _limit(limit: Limit | None) -> str:
    if limit is None:
        return "reported"
    low = "" if limit.low is None else f"≥ {limit.low:g}"
    high = "" if limit.high is None else f"≤ {limit.high:g}"
    return f"{low} {high}".strip() + (" if measured" if limit.optional else "")


def quality_record(manifest: Manifest) -> dict[str, Any] | None:
    """The evaluation for the JSON document."""
    return None if manifest.quality is None else msgspec.to_builtins(manifest.quality)


def solver_record(manifest: Manifest) -> dict[str, Any]:
    """Solvers by runtime for the JSON document, with evaluations of each table; empty for none."""
    return msgspec.to_builtins(manifest.solvers)


def delegate_table(analysis: Analysis) -> None:
    """What TensorFlow's analyzer says about LiteRT's GPU delegate, or why it is not known."""
    if analysis.networks:
        rows = []
        for name, network in analysis.networks.items():
            count = str(sum(network.warnings.values()))
            rows.append([name, str(network.operators), count if analysis.checked else "not known"])
        title = f"GPU delegate of LiteRT, by TensorFlow {analysis.tensorflow}'s analyzer"
        report.table(title, ["file", "operators", "not compatible"], rows)
        for name, network in analysis.networks.items():
            for warning, times in network.warnings.items():
                report.line(f"{name}: {times} × {warning}")
    if analysis.reason:
        report.line(f"GPU delegate of LiteRT: not known; {analysis.reason}")


def _trim_table(manifest: Manifest) -> None:
    """What was trimmed for the bundle's languages, with the proof; nothing if it was not."""
    trim = manifest.trim
    if trim is None:
        return
    rows = [
        [part, report.size(saved.before), report.size(saved.after), _share(saved)]
        for part, saved in trim.parts.items()
    ]
    report.table(f"trimmed to {manifest.language}", ["part", "before", "after", "saved"], rows)
    report.line(
        f"vocabulary: {trim.tokens_before:,} tokens became {trim.tokens_after:,}, "
        f"text table: {trim.rows_before:,} rows became {trim.rows_after:,}; "
        "every new id stands for one old id, none twice"
    )
    report.line(
        f"proof: {trim.sentences:,} texts (SHA-256 {trim.sha256[:16]}…) have the same tokens as "
        "with the whole vocabulary"
    )


def _share(saved: Saving) -> str:
    return f"{100 * (1 - saved.after / saved.before):.0f} %" if saved.before else ""


def trim_record(manifest: Manifest) -> dict[str, Any] | None:
    """The trim for the JSON document, without the long lists; None if there was none."""
    trim = manifest.trim
    if trim is None:
        return None
    return {
        "tokens": {"before": trim.tokens_before, "after": trim.tokens_after},
        "rows": {"before": trim.rows_before, "after": trim.rows_after},
        "bytes": {p: {"before": s.before, "after": s.after} for p, s in trim.parts.items()},
        "sentences": trim.sentences,
        "sha256": trim.sha256,
        "kept_words": list(trim.words),
    }
