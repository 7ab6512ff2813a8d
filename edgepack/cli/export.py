"""`edgepack export`."""

from dataclasses import dataclass
from pathlib import Path

import click

from edgepack.cli import _complete
from edgepack.cli._options import PATH, OutputOptions, as_record, output_options


@dataclass(frozen=True, kw_only=True)
class TritonCommand(OutputOptions):
    """Arguments and options of `edgepack export triton`."""

    bundle: Path
    output: Path
    runtime: str | None
    threads: int | None
    waiting: int


@click.group(short_help="Write a bundle in the layout of another server.")
def command() -> None:
    """Write a bundle in the layout of another server."""


@command.command(short_help="For NVIDIA's Triton Inference Server.")
@click.argument("bundle", type=PATH)
@click.option(
    "--output", "-o", type=PATH, required=True, metavar="DIR", help="The repository of models."
)
@click.option(
    "--format",
    "runtime",
    shell_complete=_complete.formats,
    metavar="NAME",
    help="Runtime there.  [default: the bundle's first]",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Compute threads there.  [default: the CPUs that Triton may use]",
)
@click.option(
    "--waiting",
    type=click.IntRange(1, 10_000),
    default=8,
    show_default=True,
    help="Requests that may wait there; others are refused.",
)
@output_options
@as_record(TritonCommand)
def triton(options: TritonCommand) -> None:
    """Write BUNDLE as a model into DIR, a repository of models of NVIDIA's Triton.

    The model is called as the folder of the bundle, whose files are copied. Triton's Python backend
    runs it, in whose Python the packages of the model's requirements.txt have to be installed.
    Nothing of it is run here.
    """
    from edgepack import report
    from edgepack.bundle.bundle import open_bundle
    from edgepack.export.triton import TritonOptions, export

    opened = open_bundle(options.bundle)
    wanted = TritonOptions(options.runtime, options.threads, options.waiting)
    model = export(opened, options.output, wanted)
    if options.as_json:
        report.document({"model": model.name, "output": str(model), "tried_in_triton": False})
    elif not options.quiet:
        report.line(f"{model}: install its requirements.txt in the Python of Triton's backend")
        report.line("not tried in Triton: try it there before you rely on it")
