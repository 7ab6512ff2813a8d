"""`edgepack tune`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.cli import _complete
from edgepack.cli._options import PATH, energy_option, measuring_options, output_options
from edgepack.errors import UsageError

if TYPE_CHECKING:
    from edgepack.bench.tuning import Trial


@click.command(short_help="Find the best threads and CPUs for a bundle on this machine.")
@click.argument("bundle", type=PATH)
@click.option(
    "--format",
    "runtime",
    shell_complete=_complete.formats,
    metavar="NAME",
    help="Runtime.  [default: the bundle's first that is installed]",
)
@click.option(
    "--target-rtf",
    type=click.FloatRange(0.01, 100),
    default=1.0,
    show_default=True,
    help="What the 95th percentile of the real-time factor has to stay below.",
)
@measuring_options(sentences=3)
@energy_option
@output_options
def command(bundle: Path, **options: Any) -> None:
    """Try threads, core classes and spinning with BUNDLE, and keep the best plan beside it.

    Best is the least energy for a second of audio, or without a meter the least CPU time, of the
    plans that are fast enough. 'edgepack run' and 'bench' then use it.
    """
    from dataclasses import replace

    from edgepack import report
    from edgepack.bench import tuning
    from edgepack.bundle import open_bundle
    from edgepack.discovery import unknown
    from edgepack.runtime import installed
    from edgepack.runtime.cpu import topology, tuned
    from edgepack.runtime.meter import Machine

    opened = open_bundle(bundle)
    runtimes = opened.runtimes()
    runtime = options["runtime"] or installed.usable(opened)[0]
    if runtime not in runtimes:
        raise UsageError(f"{bundle}: {unknown('runtime', runtime, runtimes)}")
    installed.require(opened, runtime)
    tuned.require_writable(bundle)
    shown = not options["quiet"] and not options["as_json"]
    with report.progress("tune", shown=shown) as step:
        tried = tuning.run(
            bundle,
            runtime,
            meter=options["energy"],
            count=options["sentences"],
            rounds=options["rounds"],
            most_rtf=options["target_rtf"],
            step=step,
            machine=Machine(),
        )
    trials, best, turn, ahead = tried.trials, tried.best, tried.in_turn, tried.ahead
    wish = replace(best.wish, overlap=ahead < turn)
    path = tuned.write(bundle, topology.read(), runtime, wish, best.threads)
    if options["as_json"]:
        record = [{**tuning.record(trial), "chosen": trial is best} for trial in trials]
        report.document(
            {
                "plan": str(path),
                "runtime": runtime,
                "trials": record,
                "overlap": {"in_turn_s": turn, "ahead_s": ahead, "chosen": wish.overlap},
            }
        )
    elif shown:
        rows = [_row(trial, chosen=trial is best) for trial in trials]
        columns = ["CPUs", "threads", "spinning", "RTF P50", "P95", "CPU s/s", "J/s", ""]
        report.table(f"{bundle.name} {runtime}, for a second of audio", columns, rows)
        report.line(
            f"sentences decoded ahead of their sound: {turn:.2f} s became {ahead:.2f} s, "
            f"{'chosen' if wish.overlap else 'not chosen'}"
        )
        report.line(f"{path}: kept; delete it to go back to the target's plan")


def _row(trial: "Trial", *, chosen: bool) -> list[str]:
    return [
        trial.wish.cpus,
        str(trial.threads),
        "yes" if trial.wish.spin else "no",
        f"{trial.rtf.p50:.3f}",
        f"{trial.rtf.p95:.3f}",
        f"{trial.cpu_seconds:.3f}",
        "" if trial.joules is None else f"{trial.joules:.2f}",
        "chosen" if chosen else "",
    ]
