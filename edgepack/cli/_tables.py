"""Tables that several commands print."""

from collections.abc import Mapping
from typing import Any

from edgepack import report
from edgepack.manifest import Manifest, Saving


def stage_table(
    title: str, manifest: Manifest, errors: Mapping[tuple[str, str], float] | None = None
) -> None:
    """Every stage, and by runtime its precision, its size and, if measured, its error."""
    runtimes = list(next(iter(manifest.stages.values())).variants)
    columns = ["stage", "parameters", "operators"]
    for runtime in runtimes:
        columns += [runtime, "size", *(["error"] if errors else [])]
    rows = []
    for name, stage in manifest.stages.items():
        row = [name, f"{stage.parameters:,}", str(sum(stage.operators.values()))]
        for runtime in runtimes:
            variant = stage.variants[runtime]
            size = sum(manifest.files[file].bytes for file in variant.files)
            row += [variant.precision, report.size(size)]
            row += [f"{errors[name, runtime]:.0e}"] if errors else []
        rows.append(row)
    report.table(title, columns, rows)


def trim_table(manifest: Manifest) -> None:
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
