"""`edgepack build`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.cli._options import PATH, output_options

if TYPE_CHECKING:
    from edgepack.pipeline import Built, Plan


@click.command(short_help="Checkpoint folder (or 'demo') to a bundle for each target.")
@click.argument("model")
@click.option(
    "--target",
    "-t",
    "targets",
    multiple=True,
    required=True,
    metavar="NAME",
    help="Device profile; may be repeated. See 'edgepack targets'.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    metavar="NAME",
    help="Only this runtime of the target; may be repeated.",
)
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Storage of weights: auto (the target's choice), fp32 or fp16.",
)
@click.option(
    "--output",
    "-o",
    type=PATH,
    default=Path("bundles"),
    show_default=True,
    help="Folder for the bundle folders.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be built, and stop.")
@click.option("--force", is_flag=True, help="Replace a bundle of other inputs.")
@output_options
def command(
    model: str,
    targets: tuple[str, ...],
    formats: tuple[str, ...],
    precision: str,
    output: Path,
    dry_run: bool,
    force: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Build bundles from MODEL, a checkpoint folder in the released layout, or "demo".

    Nothing in the checkpoint is executed. A bundle appears when all of its networks have been
    run in their runtime and agree with the fp32 reference, or not at all.
    """
    from edgepack import pipeline, report

    request = pipeline.BuildRequest(model, targets, output, formats, precision, force)
    if dry_run:
        plans = pipeline.plan(request, pipeline.open_source(model))
        if as_json:
            report.document({"plans": [_planned(plan) for plan in plans]})
        elif not quiet:
            for plan in plans:
                report.line(f"{plan.folder}: {', '.join(plan.profile.runtimes)}")
        return
    with report.progress("build", shown=not quiet) as step:
        built = pipeline.build(request, step)
    if as_json:
        report.document({"bundles": [_built(b) for b in built]})
    elif not quiet:
        for b in built:
            _show(b)


def _planned(plan: "Plan") -> dict[str, Any]:
    return {
        "path": str(plan.folder),
        "target": plan.target,
        "runtimes": list(plan.profile.runtimes),
        "precision": plan.profile.precision,
    }


def _built(built: "Built") -> dict[str, Any]:
    manifest = built.bundle.manifest
    return {
        "path": str(built.bundle.folder),
        "target": manifest.target,
        "language": manifest.language,
        "bytes": sum(f.bytes for f in manifest.files.values()),
        "reused": built.reused,
        "seconds": dict(built.seconds),
        "stages": {
            name: {
                "parameters": stage.parameters,
                "operators": stage.operators,
                "runtimes": {
                    runtime: {
                        "precision": v.precision,
                        "bytes": sum(manifest.files[f].bytes for f in v.files),
                        "error": built.errors.get((name, runtime)),
                        "limit": v.limit,
                    }
                    for runtime, v in stage.variants.items()
                },
            }
            for name, stage in manifest.stages.items()
        },
    }


def _show(built: "Built") -> None:
    from edgepack import report
    from edgepack.cli._tables import stage_table

    manifest = built.bundle.manifest
    total = report.size(sum(f.bytes for f in manifest.files.values()))
    stage_table(f"{manifest.name} for {manifest.target}, {total}", manifest, built.errors)
    state = "is up to date" if built.reused else f"built in {sum(built.seconds.values()):.0f} s"
    report.line(f"{built.bundle.folder} {state}")
    report.line(f'try: edgepack run {built.bundle.folder} "你好,世界" -o out.wav')
