"""Tables that several commands print."""

from collections.abc import Mapping

from edgepack import report
from edgepack.manifest import Manifest


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
