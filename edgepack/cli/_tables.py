"""Tables that several commands print."""

from edgepack import report
from edgepack.manifest import Manifest


def stage_table(title: str, manifest: Manifest) -> None:
    """Every stage: parameters, then precision, size and self-test error in each runtime."""
    runtimes = list(next(iter(manifest.stages.values())).variants)
    columns = ["stage", "parameters"]
    for runtime in runtimes:
        columns += [runtime, "size", "error"]
    rows = []
    for name, stage in manifest.stages.items():
        row = [name, f"{stage.parameters:,}"]
        for runtime in runtimes:
            variant = stage.variants[runtime]
            size = sum(manifest.files[file].bytes for file in variant.files)
            row += [variant.precision, report.size(size), f"{variant.error:.0e}"]
        rows.append(row)
    report.table(title, columns, rows)
