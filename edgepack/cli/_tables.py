"""Tables that several commands print."""

from collections.abc import Mapping
from typing import Any

import msgspec

from edgepack import report
from edgepack.manifest import Limit, Manifest, Offer, Saving

Errors = Mapping[tuple[str, str], float]


def bundle_tables(title: str, manifest: Manifest, errors: Errors | None = None) -> None:
    """Everything about a bundle's networks, what was tried, its exam, and its languages."""
    _stage_table(title, manifest, errors)
    _offer_table(manifest)
    _quality_table(manifest)
    _solver_table(manifest)
    _trim_table(manifest)


def _stage_table(title: str, manifest: Manifest, errors: Errors | None) -> None:
    """Every stage, and by runtime its recipe, size, speed to fp32 and, if measured, its error."""
    runtimes = list(next(iter(manifest.stages.values())).variants)
    columns = ["stage", "parameters"]
    for runtime in runtimes:
        columns += [runtime, "size", "speed", *(["error"] if errors else [])]
    rows = []
    for name, stage in manifest.stages.items():
        row = [name, f"{stage.parameters:,}"]
        for runtime in runtimes:
            variant = stage.variants[runtime]
            size = sum(manifest.files[file].bytes for file in variant.files)
            speed = next((o.speed for o in variant.offers if o.recipe == variant.recipe), None)
            row += [variant.recipe, report.size(size), _times(speed)]
            row += [f"{errors[name, runtime]:.0e}"] if errors else []
        rows.append(row)
    report.table(title, columns, rows)
    for runtime, needed in engines_needed(manifest).items():
        if len(needed) > 1:
            report.line(f"{runtime} needs {' and '.join(needed)} on the device")


def engines_needed(manifest: Manifest) -> dict[str, list[str]]:
    """The engines that each runtime of a bundle needs on the device, its own first."""
    runtimes = next(iter(manifest.stages.values())).variants
    found = {}
    for runtime in runtimes:
        guests = {stage.variants[runtime].engine for stage in manifest.stages.values()}
        found[runtime] = [runtime, *sorted(guests - {"", runtime})]
    return found


def _times(speed: float | None) -> str:
    return "" if speed is None else f"×{speed:.2f}"


def _offer_table(manifest: Manifest) -> None:
    """What each network's recipe was chosen from; nothing if there was no choice."""
    rows = []
    for name, stage in manifest.stages.items():
        for runtime, variant in stage.variants.items():
            for offer in variant.offers:
                values = ", ".join(f"{metric} {value:g}" for metric, value in offer.values.items())
                size = report.size(offer.bytes) if offer.bytes else ""
                speed = _times(offer.speed)
                tried = f"{name} {runtime}"
                rows.append([tried, offer.recipe, size, speed, values, offer.verdict])
    if rows:
        columns = ["tried", "recipe", "size", "speed", "by itself", "verdict"]
        report.table("recipes, speed against fp32", columns, rows)


def _quality_table(manifest: Manifest) -> None:
    """The exam in each runtime; says so if there was none."""
    quality = manifest.quality
    if quality is None:
        report.line("exam: not held, as no weight is an integer; the self-test compares instead")
        return
    quality_table("exam against fp32", quality.values, quality.limits)
    for failed in quality.failed:
        report.warn(f"failed gate: {failed}")


def quality_table(
    title: str, values: Mapping[str, Mapping[str, float]], limits: Mapping[str, Limit]
) -> None:
    """Metrics by runtime with their limits."""
    metrics = list(dict.fromkeys(metric for found in values.values() for metric in found))
    rows = []
    for metric in metrics:
        found = [v.get(metric) for v in values.values()]
        row = ["" if value is None else f"{value:.3g}" for value in found]
        rows.append([metric, *row, _limit(limits.get(metric))])
    report.table(title, ["metric", *values, "limit"], rows)
    if "pesq" not in metrics:
        report.line("pesq: not measured, as it is not installed (pip install 'edgepack[quality]')")


def _solver_table(manifest: Manifest) -> None:
    """Error over evaluations of what was fitted, and of the original's solver."""
    if not manifest.solvers:
        report.line(f"solver: the checkpoint's own, {manifest.flow.steps} guided steps")
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
    return f"{low} {high}".strip()


def offer_record(offer: Offer) -> dict[str, Any]:
    """A recipe that was tried, for the JSON document."""
    return msgspec.to_builtins(offer)


def quality_record(manifest: Manifest) -> dict[str, Any] | None:
    """The exam for the JSON document."""
    return None if manifest.quality is None else msgspec.to_builtins(manifest.quality)


def solver_record(manifest: Manifest) -> dict[str, Any]:
    """Solvers by runtime for the JSON document, with evaluations of each table; empty for none."""
    return msgspec.to_builtins(manifest.solvers)


def _trim_table(manifest: Manifest) -> None:
    """What was cut for the bundle's languages, and the proof; nothing for all languages."""
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
    """The same for the JSON document, without the long lists."""
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
