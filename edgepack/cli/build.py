"""`edgepack build`."""

import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.cli import _complete
from edgepack.cli._options import PATH, OutputOptions, as_record, output_options
from edgepack.errors import UsageError

if TYPE_CHECKING:
    from edgepack.builder.pipeline import Built
    from edgepack.builder.planning import Plan
    from edgepack.bundle.measurements import Measurements


_GREETINGS = {
    "en": "Hello, world",
    "ja": "こんにちは、世界",
    "ko": "안녕하세요, 세계",
    "de": "Hallo, Welt",
    "es": "Hola, mundo",
    "fr": "Bonjour le monde",
    "it": "Ciao, mondo",
    "ru": "Привет, мир",
}


@dataclass(frozen=True, kw_only=True)
class BuildOptions(OutputOptions):
    """Arguments and options of `edgepack build`."""

    model: str
    targets: tuple[str, ...]
    formats: tuple[str, ...]
    precision: str
    calibration: Path | None
    recipe: Path | None
    solver: str
    allow_failed_gate: bool
    llm: str | None
    languages: str
    keep_text: Path | None
    voices: tuple[str, ...]
    keep_enrolment: bool
    output: Path
    dry_run: bool
    force: bool


@click.command(short_help="Checkpoint (or its name, or 'demo') to a bundle for each target.")
@click.argument("model")
@click.option(
    "--target",
    "-t",
    "targets",
    shell_complete=_complete.targets,
    multiple=True,
    metavar="NAME",
    help="Device profile; may be repeated. See 'edgepack targets'.  [required]",
)
@click.option(
    "--format",
    "formats",
    shell_complete=_complete.formats,
    multiple=True,
    metavar="NAME",
    help="Only this runtime of the target; may be repeated.",
)
@click.option(
    "--precision",
    shell_complete=_complete.precisions,
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Of weights: auto (the target's choice for each network), fp32, fp16, int8 or int4.",
)
@click.option(
    "--calibration",
    type=PATH,
    metavar="DIR",
    help="Calibrate with the sentences (*.txt) and prompts (NAME.wav, NAME.txt) of this folder.",
)
@click.option(
    "--recipe",
    type=PATH,
    metavar="FILE",
    help="Convert as a bundle (its folder) or a YAML file says, without trying anything else.",
)
@click.option(
    "--solver",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="Of the flow decoder: auto (calibrated where networks are approximate), reference "
    "(the checkpoint's own), calibrated, or a bundle or JSON file with a table.",
)
@click.option(
    "--allow-failed-gate",
    is_flag=True,
    help="Write a bundle that failed its evaluation; it and every run say so.",
)
@click.option(
    "--llm",
    metavar="FILE",
    help="Take the language model from this file of the checkpoint, such as llm.rl.pt.",
)
@click.option(
    "--language",
    "languages",
    shell_complete=_complete.languages,
    default="all",
    show_default=True,
    metavar="CODES",
    help="Trim the text vocabulary to these languages, such as zh or zh,en.",
)
@click.option(
    "--keep-text",
    type=PATH,
    metavar="FILE",
    help="Keep the words of this text as well: product names, mixed-in English.",
)
@click.option(
    "--voice",
    "voices",
    multiple=True,
    metavar="NAME=WAV:TEXT",
    help="Add a voice from a recording in which TEXT is said; may be repeated.",
)
@click.option(
    "--keep-enrolment",
    is_flag=True,
    help="Keep the networks that make voices of recordings where the target leaves them out.",
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
@as_record(BuildOptions)
def command(options: BuildOptions) -> None:
    """Build bundles from MODEL, a checkpoint folder in the released layout, or "demo".

    OWNER/NAME is downloaded from Hugging Face and modelscope:OWNER/NAME from ModelScope, into their
    own caches, only what is needed and not there yet; OWNER/NAME@REV at a branch, tag or commit.

    Nothing in the checkpoint is executed. A bundle appears when all of its networks have been
    run in their runtime and agree with the fp32 reference, or not at all.
    """
    if not options.targets:
        raise _no_target()
    from edgepack import report
    from edgepack.builder import pipeline, schedule
    from edgepack.builder.planning import BuildRequest, VoiceRequest, require_possible
    from edgepack.profiles import language

    request = BuildRequest(
        options.model,
        options.targets,
        options.output,
        options.formats,
        options.precision,
        language.parse(options.languages),
        options.keep_text,
        [VoiceRequest.parse(voice) for voice in options.voices],
        options.keep_enrolment,
        options.calibration,
        options.recipe,
        options.solver,
        options.allow_failed_gate,
        options.force,
        options.llm,
    )
    require_possible(request)
    if options.dry_run:
        with report.progress("build", shown=not options.quiet) as step:
            source, plans = pipeline.planned(request, step)
        for note in source.notes if not options.quiet else ():
            report.warn(note)
        seconds = sum(schedule.sizes(source, plans).values())
        if options.as_json:
            found = [_planned(planned) for planned in plans]
            report.document({"plans": found, "estimated_seconds": round(seconds)})
        elif not options.quiet:
            for planned in plans:
                report.line(f"{planned.folder}: {', '.join(planned.profile.runtimes)}")
            report.line(f"estimated to take about {report.duration(seconds)}")
        return
    with report.progress("build", shown=not options.quiet) as step:
        told = report.silent if options.quiet else partial(report.told, "build")
        built = pipeline.build(request, step, told)
    for warning in dict.fromkeys(w for b in built for w in b.warnings) if not options.quiet else ():
        report.warn(warning)
    if options.as_json:
        report.document({"bundles": [_built(b) for b in built]})
    elif not options.quiet:
        for b in built:
            _show(b)


def _no_target() -> UsageError:
    """The error for a build without a target; it names the target that fits this machine."""
    import platform

    from edgepack.machine.cpu import isa
    from edgepack.profiles import target

    fitting = target.general(platform.machine(), isa.read())
    here = f"; for this machine: --target {fitting}" if fitting else ""
    return UsageError(f"Missing option '--target'; 'edgepack targets' lists the devices{here}")


def _planned(planned: "Plan") -> dict[str, Any]:
    return {
        "path": str(planned.folder),
        "target": planned.target,
        "runtimes": list(planned.profile.runtimes),
        "precision": planned.profile.precision,
    }


def _built(built: "Built") -> dict[str, Any]:
    from edgepack.cli._tables import engines_needed, quality_record, solver_record, trim_record

    manifest, measured = built.bundle.manifest, built.measured
    return {
        "path": str(built.bundle.folder),
        "target": manifest.target,
        "language": manifest.language,
        "trim": trim_record(manifest),
        "quality": quality_record(manifest),
        "solvers": solver_record(manifest),
        "engines": engines_needed(manifest),
        "bytes": sum(f.bytes for f in manifest.files.values()),
        "reused": built.reused,
        "warnings": list(built.warnings),
        "seconds": measured.seconds if measured else {},
        "peak_rss_bytes": measured.peaks if measured else {},
        "smoke_test": _smoke_test(built),
        "stages": {
            name: {
                "parameters": stage.parameters,
                "operators": stage.operators,
                "runtimes": {
                    runtime: {
                        "precision": v.precision,
                        "recipe": v.recipe,
                        "reason": v.reason,
                        "offers": _candidates(measured, runtime, name),
                        "bytes": sum(manifest.files[f].bytes for f in v.files),
                        "error": measured and measured.errors.get(runtime, {}).get(name),
                        "limit": v.limit,
                    }
                    for runtime, v in stage.variants.items()
                },
            }
            for name, stage in manifest.stages.items()
        },
    }


def _candidates(measured: "Measurements | None", runtime: str, stage: str) -> list[Any]:
    """Recipes that were tried for a network."""
    import msgspec

    candidates = measured.candidates.get(runtime, {}).get(stage, ()) if measured else ()
    return [msgspec.to_builtins(candidate) for candidate in candidates]


def _show(built: "Built") -> None:
    from edgepack import report
    from edgepack.bundle import measurements
    from edgepack.cli._tables import bundle_tables

    manifest, measured = built.bundle.manifest, built.measured
    total = report.size(sum(f.bytes for f in manifest.files.values()))
    bundle_tables(
        f"{manifest.name} for {manifest.target}, {total}", manifest, measured, errors=True
    )
    smoke = _smoke_test(built)
    for runtime, peak in (measured.peaks if measured else {}).items():
        if smoke:
            report.line(f"smoke test: {smoke['said']}, {report.size(peak)} of memory")
            continue
        report.line(f"speaking with {runtime} took {report.size(peak)} of memory on this machine")
    seconds = sum(measured.seconds.values()) if measured else 0.0
    state = "is up to date" if built.reused else f"built in {seconds:.0f} s"
    report.line(f"{built.bundle.folder} {state}")
    if measured and not built.reused:
        report.line(f"what was measured: {measurements.place(built.bundle.folder)}")
    where = shlex.quote(str(built.bundle.folder))
    if not manifest.voices:
        report.line("it has no voice yet: record one, such as anna.wav, and add it")
        report.line(f'try: edgepack voice add {where} anna anna.wav --text "what anna says"')
        return
    text = _GREETINGS.get(manifest.languages[0], "你好,世界")
    report.line(f'try: edgepack run {where} "{text}" -o out.wav')
    if built.plan.profile.gpu:
        report.line("without its GPU, to see that it speaks: the same with --provider cpu")


def _smoke_test(built: "Built") -> dict[str, Any] | None:
    """A note that a bundle for a GPU was tried on this machine's CPU only; None for others."""
    if not built.plan.profile.gpu or built.reused or built.measured is None:
        return None
    runtimes = ", ".join(built.measured.peaks)
    return {
        "runtimes": list(built.measured.peaks),
        "provider": "cpu",
        "said": f"spoke 10 s with {runtimes} on this machine's CPU; its GPU was not used or tested",
    }
