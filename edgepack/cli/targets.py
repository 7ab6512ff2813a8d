"""`edgepack targets`."""

from typing import TYPE_CHECKING

import click

from edgepack.cli._options import output_options

if TYPE_CHECKING:
    from edgepack.manifest import Limit


@click.command(short_help="List the target profiles, or explain one.")
@click.argument("name", required=False)
@output_options
def command(name: str | None, as_json: bool, quiet: bool) -> None:
    """List the target profiles, or explain the one called NAME."""
    import msgspec

    from edgepack import report, target

    names = [name] if name else target.names()
    profiles = {n: target.load(n) for n in names}
    if as_json:
        report.document({"targets": {n: msgspec.to_builtins(p) for n, p in profiles.items()}})
    elif quiet:
        return
    elif name:
        profile = profiles[name]
        report.line(f"{name}: {profile.summary}")
        report.line(f"architecture: {profile.architecture}")
        for runtime, options in profile.runtimes.items():
            tuned = f", optimized for {options.platform}" if options.platform else ""
            report.line(f"runtime: {runtime}, as .{options.container} files{tuned}")
        for stage, precision in profile.precision.items():
            which = "every other stage" if stage == "default" else stage
            report.line(f"precision: {precision} for {which}")
        if profile.isa:
            report.line(f"instruction sets: {', '.join(profile.isa)}")
        for level, limits in profile.gates.items():
            ends = [f"{m} {_ends(limit)}" for m, limit in limits.items()]
            report.line(f"gates at {level}: {', '.join(ends)}")
        if not profile.enrolment:
            report.line("enrolment networks: left out where the bundle has voices")
    else:
        rows = [[n, p.summary, ", ".join(p.runtimes)] for n, p in profiles.items()]
        report.table("targets", ["target", "device", "runtimes"], rows)


def _ends(limit: "Limit") -> str:
    low = "" if limit.low is None else f"≥ {limit.low:g}"
    high = "" if limit.high is None else f"≤ {limit.high:g}"
    return f"{low} {high}".strip()
