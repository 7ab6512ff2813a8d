"""`edgepack inspect`."""

from pathlib import Path

import click

from edgepack.cli._options import output_options


@click.command(short_help="Say what is inside a checkpoint or a bundle.")
@click.argument("path", type=click.Path())
@output_options
def command(path: str, as_json: bool, quiet: bool) -> None:
    """Say what is inside PATH, a checkpoint folder (or "demo") or a bundle, without running it.

    A checkpoint may have a name, as in 'edgepack build', and is downloaded as it is there. The
    release that it is is named, as far as its dimensions and files tell.
    Of a bundle for LiteRT, what TensorFlow's analyzer says of running it on a phone's GPU is told,
    where TensorFlow is installed.
    """
    from edgepack.bundle.bundle import MANIFEST

    if Path(path, MANIFEST).is_file():
        _bundle(Path(path), as_json, quiet)
    else:
        _checkpoint(path, as_json, quiet)


def _bundle(path: Path, as_json: bool, quiet: bool) -> None:
    import msgspec

    from edgepack import report
    from edgepack.builder import gpu_delegate
    from edgepack.bundle import measurements
    from edgepack.bundle.bundle import open_bundle
    from edgepack.cli._tables import bundle_tables, delegate_table

    opened = open_bundle(path)
    manifest, measured = opened.manifest, measurements.read(opened)
    with report.progress("inspect", shown=not (quiet or as_json)) as step:
        analysis = gpu_delegate.analyse(opened, step)
    if as_json:
        record = {"kind": "bundle", "path": str(path), **msgspec.to_builtins(manifest)}
        found = msgspec.to_builtins({"measured": measured, "gpu_delegate": analysis})
        report.document({**record, **found})
    elif not quiet:
        total = report.size(sum(file.bytes for file in manifest.files.values()))
        bundle_tables(f"{manifest.name} for {manifest.target}, {total}", manifest, measured)
        report.line(f"family {manifest.family}, language {manifest.language}")
        report.line(f"made of: {', '.join(manifest.source)}")
        if origin := manifest.origin:
            report.line(f"downloaded: {origin.hub}:{origin.repository} at {origin.revision}")
        report.line(f"voices: {', '.join(manifest.voices) or 'none'}")
        report.line(f"enrolment: {', '.join(manifest.enrolment) or 'none'}")
        tools = ", ".join(f"{name} {version}" for name, version in manifest.tools.items())
        report.line(f"built by edgepack {manifest.edgepack} with {tools}")
        if analysis:
            delegate_table(analysis)


def _checkpoint(path: str, as_json: bool, quiet: bool) -> None:
    from dataclasses import asdict

    import msgspec

    from edgepack import report
    from edgepack.builder.survey import summary

    with report.progress("inspect", shown=not quiet) as step:
        found, downloaded = summary(path, step)
    for note in downloaded.notes if downloaded and not quiet else ():
        report.warn(note)
    if as_json:
        record = {"kind": "checkpoint", "path": path, **asdict(found)}
        if downloaded:
            record["path"] = str(downloaded.folder)
            record["origin"] = msgspec.to_builtins(downloaded.origin)
        report.document(record)
    elif not quiet:
        rows = [
            [p.file, str(p.tensors), f"{p.parameters:,}", report.size(p.bytes), ", ".join(p.dtypes)]
            for p in found.parts
        ]
        columns = ["part", "tensors", "parameters", "size", "dtype"]
        report.table(f"{found.family} checkpoint {path}", columns, rows)
        if downloaded:
            report.line(f"at {downloaded.origin.revision}, in {downloaded.folder}")
        for line in found.release.lines():
            report.line(line)
        report.line(f"voices: {', '.join(found.voices) or 'none'}")
        report.line(f"enrolment: {', '.join(found.enrolment) or 'none'}")
