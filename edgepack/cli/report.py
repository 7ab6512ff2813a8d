"""`edgepack report`."""

from pathlib import Path

import click

from edgepack.cli._options import PATH, output_options, to_stdout


@click.command(short_help="Make a page of benchmark results.")
@click.argument("results", nargs=-1, required=True, type=PATH)
@click.option(
    "--output",
    "-o",
    type=PATH,
    default=Path("report.html"),
    show_default=True,
    help="The page (- for stdout).",
)
@output_options
def command(results: tuple[Path, ...], output: Path, *, as_json: bool, quiet: bool) -> None:
    """Write one HTML page, without other files, from RESULTS of 'edgepack bench -o'."""
    from edgepack import report
    from edgepack.bench import page, result
    from edgepack.files.atomic import require_writable, write_atomically

    printed = to_stdout(output, as_json=as_json)
    require_writable(output)
    page.require()
    found = [result.read(path) for path in results]
    made = page.render(found).encode()
    write_atomically(output, made)
    if as_json:
        names = [subject.name for one in found for subject in one.subjects]
        report.document({"output": str(output), "results": len(found), "subjects": names})
    elif not quiet and not printed:
        report.line(f"{output}: {len(found)} results, {len(made) / 1e3:.0f} kB")
