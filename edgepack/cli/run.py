"""`edgepack run`."""

import sys
from pathlib import Path
from typing import Any

import click

from edgepack.cli import _complete
from edgepack.cli._cpu import cpu_options, placed
from edgepack.cli._options import (
    PATH,
    TEXT,
    energy_option,
    engine_options,
    output_options,
    provider_options,
    seed_option,
    solver_option,
    to_stdout,
)
from edgepack.errors import UsageError


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
@click.option(
    "--guard",
    type=click.Choice(["error", "warn"]),
    default="error",
    show_default=True,
    help="What a fault of the audio is: silence, runaway, early end, NaN.",
)
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
    help="low: one network at a time in memory, loaded again for each sentence.",
)
@energy_option
@cpu_options
@provider_options
@engine_options
@output_options
def command(bundle: Path, text: str | None, file: Path | None, **options: Any) -> None:
    """Speak TEXT (or "-" for standard input) with BUNDLE and write a sound file."""
    import time

    from edgepack import atomic, report
    from edgepack.bundle import open_bundle

    opened = open_bundle(bundle)
    options |= _output(options["output"])
    _check(text, file, options)
    lexicon = _lexicon(options["lexicon"])
    plan = placed(opened, options)  # before anything that has threads is imported

    from edgepack.cli import _sounding, _spoken
    from edgepack.runtime import asking, energy, installed
    from edgepack.runtime.cpu import affinity
    from edgepack.runtime.gpu.placement import Wanted
    from edgepack.runtime.memory import return_large_blocks
    from edgepack.runtime.meter import Machine
    from edgepack.runtime.playing import Player
    from edgepack.runtime.quiet import hush
    from edgepack.runtime.synthesizer import Settings, Synthesizer
    from edgepack.runtime.watch import Recorder

    return_large_blocks()
    settings = Settings(
        voice=options["voice"],
        mode=options["mode"],
        instruction=options["instruct"],
        seed=options["seed"],
        solver=options["solver"],
        steps=options["steps"],
        speed=options["speed"],
        strict=options["guard"] == "error",
        strict_language=options["strict_language"],
        lexicon=lexicon,
    )
    runtime = options["runtime"] or installed.usable(opened)[0]
    asking.require(opened, runtime, settings)
    given = _sounding.given(text, file, options)
    player = Player(opened.manifest.sample_rate) if options["play"] else None
    machine = Machine()
    meters = energy.select(options["energy"], machine, opened.manifest.device)
    recorder = Recorder() if options["dump"] else None
    shown = not options["quiet"] and not options["as_json"]
    hush(opened, runtime)
    with report.progress("run", shown=shown and sys.stderr.isatty()) as step:
        step("loading")
        start = time.perf_counter()
        synthesizer = Synthesizer.load(
            bundle,
            options["runtime"],
            watchers=[recorder] if recorder else [],
            plan=plan,
            memory=options["memory"],
            wanted=Wanted(options["provider"], options["allow_fallback"], step),
        )
        loaded = time.perf_counter() - start
        step("speaking")
        with energy.measuring(meters, machine) as readings:
            files = _sounding.speak(synthesizer, given, settings, options, player, step)
    speech = _sounding.joined(files)
    if recorder:
        with atomic.filling(options["dump"]) as folder:
            recorder.save(folder)
            _spoken.dump(folder, speech)
    found = _spoken.record(
        synthesizer,
        speech,
        plan,
        affinity.observe(plan.cpus),
        energy.record(
            meters,
            readings[0] if readings else None,
            utterances=len(speech.utterances),
            audio_seconds=speech.audio_seconds,
        ),
        {
            "output": str(options["output"]) if options["output"] else None,
            "files": [
                {"path": str(path), "audio_seconds": one.audio_seconds}
                for path, one in files
                if path
            ],
            "stream": options["stream"],
            "seed": options["seed"],
            "solver": _spoken.solver_record(synthesizer, settings),
            "load_seconds": loaded,
        },
    )
    if options["as_json"]:
        report.document(found)
    else:
        for warning in found["warnings"]:
            report.warn(warning)
        if shown and not options["to_stdout"]:
            _spoken.show(found)
        if options["verbose"]:
            report.note(_spoken.versions(opened, runtime))


def _output(given: str | None) -> dict[str, Any]:
    """The output as a path, and whether a slash at its end says that it is a folder."""
    path = None if given is None else Path(given)
    return {"output": path, "slash": given is not None and given.endswith("/")}


def _check(text: str | None, file: Path | None, options: dict[str, Any]) -> None:
    """Refuse what contradicts itself or cannot be written, before anything is loaded."""
    from importlib.util import find_spec

    from edgepack.atomic import require_writable, require_writable_folder
    from edgepack.places import STDOUT

    given = [text, file, options["convert"], options["speech_tokens"]]
    if sum(value is not None for value in given) != 1:
        dashed = "" if any(given) else "; before a TEXT that begins with - put --"
        raise UsageError(f"give one of TEXT, --file, --convert or --speech-tokens{dashed}")
    if options["instruct"] and text is None and file is None:
        raise UsageError("--instruct is about a text; --convert and --speech-tokens have none")
    if options["play"] and find_spec("sounddevice") is None:
        raise ModuleNotFoundError(name="sounddevice")
    if options["output"] is None and not options["play"]:
        options["output"] = Path("out.wav")
    output: Path | None = options["output"]
    options["folder"] = False
    if output == STDOUT and (not options["stream"] or options["as_json"]):
        raise UsageError("-o - goes with --stream and without --json")
    options["to_stdout"] = to_stdout(output, as_json=options["as_json"])
    if output == STDOUT:
        require_writable(output)
    elif output and (output.is_dir() or options["slash"] or not (output.suffix or output.exists())):
        options["folder"] = True
        if file is None:
            name = output / "out.wav" if output.is_dir() else f"{output}.wav"
            raise UsageError(
                f"{output}: not a file name but a folder, for a file a line of --file; for one "
                f"text give a name such as {name}"
            )
        if options["stream"]:
            raise UsageError(
                f"{output}: a stream is one file; give its name, or leave out --stream"
            )
        require_writable_folder(output)
    elif output:
        require_writable(output)
    if options["dump"]:
        require_writable_folder(options["dump"])
    if options["stream"] and text is None and file is None:
        raise UsageError("--stream is for a text; leave out --convert and --speech-tokens")
    if options["lexicon"] and text is None and file is None:
        raise UsageError("--lexicon is about a text; --convert and --speech-tokens have none")


def _lexicon(path: Path | None) -> dict[str, str]:
    """The readings of a file, read before anything is loaded."""
    if path is None:
        return {}
    from edgepack.runtime.lexicon import read

    return read(path)
