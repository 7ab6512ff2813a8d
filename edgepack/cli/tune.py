"""`edgepack tune`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgepack.cli._options import (
    PATH,
    MeasuringOptions,
    OutputOptions,
    as_record,
    energy_option,
    format_option,
    measuring_options,
    output_options,
)

if TYPE_CHECKING:
    from edgepack.bench.tuning import TriedPlan


@dataclass(frozen=True, kw_only=True)
class TuneOptions(MeasuringOptions, OutputOptions):
    """Arguments and options of `edgepack tune`."""

    bundle: Path
    runtime: str | None
    target_rtf: float


@click.command(short_help="Find the best threads and CPUs for a bundle on this machine.")
@click.argument("bundle", type=PATH)
@format_option
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
@as_record(TuneOptions)
def command(options: TuneOptions) -> None:
    """Try threads, core classes and spinning with BUNDLE, and keep the best plan beside it.

    Best is the least energy for a second of audio, or without a meter the least CPU time, of the
    plans that are fast enough. 'edgepack run' and 'bench' then use it.
    """
    from dataclasses import replace

    from edgepack import report
    from edgepack.bench import tuning
    from edgepack.bundle.bundle import open_bundle
    from edgepack.machine.cpu import topology, tuned
    from edgepack.machine.probe import Machine
    from edgepack.runtime.engines import installed

    bundle = options.bundle
    opened = open_bundle(bundle)
    runtime = installed.chosen(opened, options.runtime)
    tuned.require_writable(bundle)
    request = tuning.TuningRequest(
        bundle,
        runtime,
        meter=options.energy,
        sentences=options.sentences,
        rounds=options.rounds,
        most_rtf=options.target_rtf,
    )
    with report.progress("tune", shown=options.shown) as step:
        tried = tuning.run(request, Machine(), step)
    trials, best, turn, ahead = tried.trials, tried.best, tried.in_turn, tried.ahead
    wish = replace(best.wish, overlap=ahead < turn)
    path = tuned.write(bundle, topology.read(), runtime, wish, best.threads)
    if options.as_json:
        record = [{**tuning.record(trial), "chosen": trial is best} for trial in trials]
        report.document(
            {
                "plan": str(path),
                "runtime": runtime,
                "trials": record,
                "overlap": {"in_turn_s": turn, "ahead_s": ahead, "chosen": wish.overlap},
            }
        )
    elif options.shown:
        rows = [_row(trial, chosen=trial is best) for trial in trials]
        columns = ["CPUs", "threads", "spinning", "RTF P50", "P95", "CPU s/s", "J/s", ""]
        report.table(f"{bundle.name} {runtime}, for a second of audio", columns, rows)
        report.line(
            f"sentences decoded ahead of their sound: {turn:.2f} s became {ahead:.2f} s, "
            f"{'chosen' if wish.overlap else 'not chosen'}"
        )
        report.line(f"{path}: kept; delete it to go back to the target's plan")


def _row(trial: "TriedPlan", *, chosen: bool) -> list[str]:
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
