"""`edgepack bench`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgepack.cli import _complete
from edgepack.cli._cpu import CpuOptions, cpu_options, placed
from edgepack.cli._options import (
    PATH,
    TEXT,
    MeasuringOptions,
    OutputOptions,
    ProviderOptions,
    as_record,
    batch_option,
    energy_option,
    measuring_options,
    output_options,
    provider_options,
    seed_option,
    solver_option,
    to_stdout,
)
from edgepack.errors import EdgepackError, ResourceError, UsageError

if TYPE_CHECKING:
    from edgepack.bench.result import Result, Subject


@dataclass(frozen=True, kw_only=True)
class BenchOptions(CpuOptions, ProviderOptions, MeasuringOptions, OutputOptions):
    """Arguments and options of `edgepack bench`."""

    bundles: tuple[Path, ...]
    formats: tuple[str, ...]
    file: Path | None
    warm_up: int
    voice: str | None
    seed: int
    solver: str
    threads: int | None
    baseline: float
    concurrency: int
    batch: int | None
    profile: bool
    long_texts: int
    no_long: bool
    output: Path | None
    page: Path | None


@click.command(short_help="Measure speed, latency, memory and energy of bundles.")
@click.argument("bundles", nargs=-1, required=True, type=PATH)
@click.option(
    "--format",
    "formats",
    shell_complete=_complete.formats,
    multiple=True,
    metavar="NAME",
    help="Runtime.  [default: all of each that are installed]",
)
@click.option("--file", "-f", "file", type=PATH, help="Speak these lines, not the languages' own.")
@measuring_options(sentences=8)
@click.option(
    "--warm-up",
    type=click.IntRange(0, 50),
    default=1,
    show_default=True,
    help="Sentences that do not count.",
)
@click.option(
    "--voice",
    type=TEXT,
    metavar="NAME",
    shell_complete=_complete.voices,
    help="Voice.  [default: each bundle's own]",
)
@seed_option
@solver_option
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Compute threads.  [default: one a core of the plan]",
)
@cpu_options
@provider_options
@energy_option
@click.option(
    "--baseline",
    type=click.FloatRange(0, 600),
    default=10.0,
    show_default=True,
    help="Seconds of idling before and after, if there is a meter.",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Also speak with as many callers at once.",
)
@batch_option
@click.option("--profile", is_flag=True, help="Also time each type of operator (ort, openvino).")
@click.option(
    "--long-texts",
    type=click.IntRange(0, 100_000),
    default=1,
    show_default=True,
    help="Long texts to stream, as a player hears them; one is also spoken whole.",
)
@click.option("--no-long", is_flag=True, help="No long texts, as with --long-texts 0.")
@click.option("--output", "-o", type=PATH, help="Write the result (- for stdout), for 'report'.")
@click.option("--report", "page", type=PATH, help="Write the page of 'report' (- for stdout).")
@output_options
@as_record(BenchOptions)
def command(options: BenchOptions) -> None:
    """Speak with BUNDLES in turns and compare them, in every runtime they have."""
    from edgepack import report
    from edgepack.bundle.bundle import open_bundle
    from edgepack.runtime.engines import installed

    printed = _check_outputs(options)
    opened = [open_bundle(bundle) for bundle in options.bundles]
    subjects = [
        (bundle, installed.chosen(bundle, runtime))
        for bundle in opened
        for runtime in options.formats or installed.usable(bundle)
    ]
    texts = _lines(options.file) if options.file else ()
    plan = placed(opened[0], options, subjects[0][1], options.threads)

    from edgepack.bench import measure, page
    from edgepack.bench.request import MeasureRequest
    from edgepack.energy import measurement
    from edgepack.files.atomic import write_atomically
    from edgepack.machine.probe import Machine
    from edgepack.runtime import asking
    from edgepack.runtime.speech import Settings

    if options.page:
        page.require()
    measurement.select(options.energy, Machine(), opened[0].manifest.device)
    for bundle in opened if not options.formats else ():
        for runtime, reason in installed.skipped(bundle).items():
            report.warn(f"{bundle.folder}: {runtime} is skipped: {reason}")
    settings = Settings(voice=options.voice, solver=options.solver)
    for bundle, runtime in subjects:
        asking.require(bundle, runtime, settings)
    request = MeasureRequest(
        tuple((bundle.folder, runtime) for bundle, runtime in subjects),
        plan,
        texts,
        sentences=options.sentences,
        rounds=options.rounds,
        warm_up=options.warm_up,
        voice=options.voice,
        seed=options.seed,
        energy=options.energy,
        baseline_seconds=options.baseline,
        long_texts=0 if options.no_long else options.long_texts,
        profile=options.profile,
        provider=options.provider,
        allow_fallback=options.allow_fallback,
        solver=options.solver,
        concurrency=options.concurrency,
        batch=options.batch,
    )
    with report.progress("bench", shown=options.shown) as step:
        result = measure.run(request, step, Machine())

    import msgspec

    encoded = msgspec.json.format(msgspec.json.encode(result), indent=1)
    record = msgspec.to_builtins(result)
    if options.shown and not printed:  # first: it may be all that is left of the measurement
        _show(result)
    if options.output:
        try:
            write_atomically(options.output, encoded + b"\n")
        except OSError as error:
            raise ResourceError(f"{options.output}: {error.strerror}", record) from error
    if options.page:
        _page(options.page, options.output, result, encoded)
    if options.as_json:
        report.document(record)


def _check_outputs(options: BenchOptions) -> bool:
    """Refuse outputs that could not be written after the measurement.

    Returns whether one of them is standard output.
    """
    from importlib.util import find_spec

    from edgepack.files.atomic import require_writable

    outputs = [path for path in (options.output, options.page) if path]
    for path in outputs:
        require_writable(path)
    for package in ("jinja2", "matplotlib") if options.page else ():
        if find_spec(package) is None:
            raise ModuleNotFoundError(name=package)
    return to_stdout(*outputs, as_json=options.as_json)


def _page(path: Path, kept: Path | None, result: "Result", encoded: bytes) -> None:
    """Write the page; if that fails, the measurement is kept in a file beside it."""
    import msgspec

    from edgepack.bench import page
    from edgepack.files.atomic import write_atomically
    from edgepack.files.places import keeps_its_name

    try:
        write_atomically(path, page.render([result]).encode())
    except Exception as error:  # of jinja2, matplotlib, fonts, the disk
        kind = ResourceError if isinstance(error, OSError) else EdgepackError
        words = f"{path}: the page could not be made ({type(error).__name__}: {error})"
        if kept is None and keeps_its_name(path):  # no file may be beside it
            _show(result)
            raise kind(words, msgspec.to_builtins(result)) from error
        if kept and keeps_its_name(kept):  # a reader has it
            raise kind(words, msgspec.to_builtins(result)) from error
        if kept is None:
            kept = path.with_suffix(".json")
            try:
                write_atomically(kept, encoded + b"\n")
            except OSError:  # the disk is full: it was printed
                raise kind(words, msgspec.to_builtins(result)) from error
        raise kind(
            f"{words}; {kept} has what was measured, try 'edgepack report {kept}'",
            msgspec.to_builtins(result),
        ) from error


def _lines(path: Path) -> tuple[str, ...]:
    from edgepack.files import charset

    found = tuple(filter(str.strip, charset.read(path).splitlines()))
    if not found:
        raise UsageError(f"{path}: no lines to speak")
    return found


def _show(result: "Result") -> None:
    from edgepack import report
    from edgepack.bench import summary
    from edgepack.energy.measurement import sentence

    machine = result.environment
    quota = "" if machine.quota_cpus is None else f", quota of {machine.quota_cpus:g} CPUs"
    report.line(
        f"{machine.cpu or machine.machine}, CPU {machine.allowed}{quota}, "
        f"{', '.join(machine.isa) or 'no known instruction sets'}, {machine.system}"
    )
    names = [subject.name for subject in result.subjects]
    wanted = summary.goals(result.subjects)
    if wanted:
        rows = [[title, *(cell.words for cell in cells)] for title, cells in wanted]
        report.table("goals", ["at most", *names], rows)
    work = summary.work(result.subjects)
    report.table("energy and work", ["", *names], [[title, *cells] for title, cells in work])
    for note in summary.notes(result):
        report.line(note)
    columns = [_figures(subject) for subject in result.subjects]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    report.table("bench", ["", *names], rows)
    for subject in result.subjects:
        for stage, operators in subject.operators.items():
            whole = sum(operators.values())
            top = sorted(operators.items(), key=lambda item: -item[1])[:5]
            parts = ", ".join(f"{name} {100 * seconds / whole:.0f} %" for name, seconds in top)
            report.line(f"{subject.name} {stage}: {parts}")
        for failure in subject.failures:
            report.warn(f"{subject.name}: {failure.text[:40]!r}: {failure.message}")
        if subject.operators_missing != "not asked" and subject.operators_missing:
            report.warn(f"{subject.name}: {subject.operators_missing}")
    report.line(f"energy: {sentence(result.subjects[0].energy)}")


def _callers(subject: "Subject") -> str:
    """Throughput of several callers at once, and the 95th percentile of how long they wait."""
    found = subject.at_once
    if found is None:
        return "not asked"
    return (
        f"{found.callers}: {found.audio_seconds_a_second:.2f} s of audio a second, "
        f"×{found.gain:.2f} of one; P95 {found.latency.p95:.2f} s; {_decoded(found.rows)}"
    )


def _decoded(rows: int) -> str:
    return f"up to {rows} decoded together" if rows > 1 else "decoded one by one"


def _figures(subject: "Subject") -> dict[str, str]:
    from edgepack import report

    rtf, first, memory = subject.real_time_factor, subject.first_audio, subject.memory
    rate = subject.tokens_per_second
    return {
        "network files": report.size(subject.bytes),
        "loading": f"{subject.load_seconds:.2f} s",
        "RTF P50, P90, P95": ", ".join(f"{v:.3f}" for v in (rtf.p50, rtf.p90, rtf.p95)),
        "speed by the first's": f"×{subject.speed:.2f}",
        "first audio P50, P95": f"{first.p50:.3f}, {first.p95:.3f} s",
        "first audio, cold process": f"{subject.cold_first_audio_seconds:.2f} s",
        "speech tokens": "" if rate is None else f"{rate:.0f} / s",
        **{f"RTF of {stage}": f"{seconds:.3f}" for stage, seconds in subject.stages.items()},
        "RSS loaded, peak": f"{report.size(memory.loaded_bytes)}, {report.size(memory.peak_bytes)}",
        "solver": f"{subject.solver.name}, {subject.solver.evaluations} evaluations",
        "callers at once": _callers(subject),
    }
