"""`edgepack run`."""

import sys
from pathlib import Path

import click

from edgepack.cli import _complete
from edgepack.cli._cpu import cpu_options, placed
from edgepack.cli._options import (
    PATH,
    TEXT,
    as_record,
    batch_option,
    energy_option,
    engine_options,
    guard_option,
    output_options,
    provider_options,
    seed_option,
    solver_option,
)
from edgepack.cli._run_options import RunOptions, checked


@click.command(short_help="Speak with a bundle.")
@click.argument("bundle", type=PATH)
@click.argument("text", required=False, type=TEXT)
@click.option("--file", "-f", "file", type=PATH, help="Read the text from a file.")
@click.option(
    "--output",
    "-o",
    metavar="PATH",
    help="Sound file, pipe or device to write: wav, flac, ogg, opus or mp3, by its name; with "
    "--file also a folder, for a file a line.  [default: out.wav, none with --play]",
)
@click.option(
    "--voice",
    type=TEXT,
    metavar="NAME",
    shell_complete=_complete.voices,
    help="Voice.  [default: the bundle's own]",
)
@click.option(
    "--mode",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto, sft, zero-shot, cross-lingual or instruct.",
)
@click.option(
    "--instruct", type=TEXT, metavar="TEXT", help="How to speak, in words (mode instruct)."
)
@click.option(
    "--convert",
    type=PATH,
    metavar="WAV",
    help="Say what this recording says, in the voice, instead of a text.",
)
@click.option(
    "--speech-tokens",
    type=PATH,
    metavar="FILE",
    help="Speak these tokens (a JSON list) without the language model.",
)
@seed_option
@solver_option
@click.option(
    "--steps",
    type=click.IntRange(1, 1000),
    help="Steps of the reference solver.  [default: the checkpoint's]",
)
@click.option(
    "--speed",
    type=click.FloatRange(0.25, 4.0),
    default=1.0,
    show_default=True,
    help="Above 1 is faster.",
)
@guard_option
@click.option(
    "--strict-language",
    is_flag=True,
    help="Refuse text that is not in the bundle's languages, instead of a warning.",
)
@click.option(
    "--lexicon",
    type=PATH,
    metavar="FILE",
    help="Readings of words, `word => reading` a line: a spelling or the model's phones.",
)
@click.option("--verbose", "-v", is_flag=True, help="Also tell versions of bundle and engines.")
@click.option("--play", is_flag=True, help="Play it on the default output (extra 'play').")
@click.option("--dump", type=PATH, metavar="DIR", help="Write every intermediate array as npz.")
@click.option(
    "--stream",
    is_flag=True,
    help="Write audio while it is made, wav into a pipe; with -o - raw 16-bit samples go to "
    "standard output.",
)
@click.option(
    "--memory",
    type=click.Choice(["all", "low"]),
    default="all",
    show_default=True,
    help="low: one network at a time in memory, loaded again for each sentence or chunk.",
)
@batch_option
@energy_option
@cpu_options
@provider_options
@engine_options
@output_options
@as_record(RunOptions)
def command(options: RunOptions) -> None:
    """Speak TEXT (or "-" for standard input) with BUNDLE and write a sound file."""
    import time

    from edgepack import report
    from edgepack.bundle.bundle import open_bundle
    from edgepack.files import atomic

    opened = open_bundle(options.bundle)
    destination = checked(options)
    lexicon = _lexicon(options.lexicon)
    plan = placed(
        opened, options, options.runtime, options.threads
    )  # before anything that has threads is imported

    from edgepack.cli import _sounding, _spoken
    from edgepack.energy import measurement
    from edgepack.machine.cpu import affinity
    from edgepack.machine.memory import return_large_blocks
    from edgepack.machine.probe import Machine
    from edgepack.process import interrupts
    from edgepack.runtime import asking, cancellation
    from edgepack.runtime.audio.playing import Player
    from edgepack.runtime.cancellation import Cancellation
    from edgepack.runtime.engines import installed
    from edgepack.runtime.engines.quiet import hush
    from edgepack.runtime.engines.watch import Recorder
    from edgepack.runtime.gpu.placement import Wanted
    from edgepack.runtime.load_options import LoadOptions
    from edgepack.runtime.synthesizer import Settings, Synthesizer

    return_large_blocks()
    settings = Settings(
        voice=options.voice,
        mode=options.mode,
        instruction=options.instruct,
        seed=options.seed,
        solver=options.solver,
        steps=options.steps,
        speed=options.speed,
        strict=options.guard == "error",
        strict_language=options.strict_language,
        lexicon=lexicon,
    )
    runtime = installed.chosen(opened, options.runtime)
    asking.require(opened, runtime, settings)
    given = _sounding.given(options, destination)
    player = Player(opened.manifest.sample_rate) if options.play else None
    machine = Machine()
    meters = measurement.select(options.energy, machine, opened.manifest.device)
    recorder = Recorder() if options.dump else None
    hush(opened, runtime)
    with report.progress("run", shown=options.shown and sys.stderr.isatty()) as step:
        step("loading")
        start = time.perf_counter()
        synthesizer = Synthesizer.load(
            options.bundle,
            options.runtime,
            options=LoadOptions(
                watchers=[recorder] if recorder else [],
                plan=plan,
                memory=options.memory,
                batch=options.batch,
                wanted=Wanted(options.provider, options.allow_fallback, step),
            ),
        )
        loaded = time.perf_counter() - start
        step("speaking")
        ended = Cancellation()
        with (
            interrupts.telling(ended.cancel),
            cancellation.working(ended),
            measurement.measuring(meters, machine) as readings,
        ):
            files = _sounding.speak(synthesizer, given, settings, destination, player, step)
    speech = _sounding.joined(files)
    if recorder and options.dump:
        with atomic.filling(options.dump) as folder:
            recorder.save(folder)
            _spoken.dump(folder, speech)
    found = _spoken.record(
        synthesizer,
        speech,
        plan,
        affinity.observe(plan.cpus),
        measurement.record(
            meters,
            readings[0] if readings else None,
            utterances=len(speech.utterances),
            audio_seconds=speech.audio_seconds,
        ),
        {
            "output": str(destination.path) if destination.path else None,
            "files": [
                {"path": str(path), "audio_seconds": one.audio_seconds}
                for path, one in files
                if path
            ],
            "stream": options.stream,
            "seed": options.seed,
            "solver": _spoken.solver_record(synthesizer, settings),
            "load_seconds": loaded,
        },
    )
    if options.as_json:
        report.document(found)
    else:
        for warning in found["warnings"]:
            report.warn(warning)
        if options.shown and not destination.to_stdout:
            _spoken.show(found)
        if options.verbose:
            report.note(_spoken.versions(opened, runtime))
            report.note(_spoken.together(synthesizer, speech))


def _lexicon(path: Path | None) -> dict[str, str]:
    """The readings of a file, read before anything is loaded."""
    if path is None:
        return {}
    from edgepack.runtime.text.lexicon import read

    return read(path)
