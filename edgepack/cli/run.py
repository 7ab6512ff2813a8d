"""`edgepack run`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack import utf8
from edgepack.cli._cpu import cpu_options, placed
from edgepack.cli._options import (
    PATH,
    energy_option,
    engine_options,
    output_options,
    provider_options,
    seed_option,
    solver_option,
)
from edgepack.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from edgepack.report import Step
    from edgepack.runtime.audio import Recording
    from edgepack.runtime.speech import Speech
    from edgepack.runtime.synthesizer import Settings, Synthesizer

    Given = str | Iterator[str] | list[int] | Recording


@click.command(short_help="Speak with a bundle.")
@click.argument("bundle", type=PATH)
@click.argument("text", required=False)
@click.option("--file", "-f", "file", type=PATH, help="Read the text from a file.")
@click.option(
    "--output",
    "-o",
    type=PATH,
    default=Path("out.wav"),
    show_default=True,
    help="Sound file to write.",
)
@click.option("--voice", metavar="NAME", help="Voice.  [default: the bundle's first]")
@click.option(
    "--mode",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto, sft, zero-shot, cross-lingual or instruct.",
)
@click.option("--instruct", metavar="TEXT", help="How to speak, in words (mode instruct).")
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
    help="What a fault of the audio is: silence, runaway, NaN.",
)
@click.option(
    "--strict-language",
    is_flag=True,
    help="Refuse text that is not in the bundle's languages, instead of a warning.",
)
@click.option("--dump", type=PATH, metavar="DIR", help="Write every intermediate array as npz.")
@click.option(
    "--stream",
    is_flag=True,
    help="Write audio while it is made; with -o - raw 16-bit samples go to standard output.",
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
    """Speak TEXT (or "-" for standard input) with BUNDLE and write a wav file."""
    import time

    from edgepack import report
    from edgepack.bundle import open_bundle

    _check(text, file, options)
    opened = open_bundle(bundle)
    plan = placed(opened, options)  # before anything that has threads is imported

    from edgepack.cli import _spoken
    from edgepack.runtime import asking, energy, installed
    from edgepack.runtime.cpu import affinity
    from edgepack.runtime.gpu.placement import Wanted
    from edgepack.runtime.memory import return_large_blocks
    from edgepack.runtime.meter import Machine
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
    )
    runtime = options["runtime"] or installed.usable(opened)[0]
    asking.require(opened, runtime, settings)
    spoken = _given(text, file, options)
    machine = Machine()
    meters = energy.select(options["energy"], machine, opened.manifest.device)
    recorder = Recorder() if options["dump"] else None
    shown = not options["quiet"] and not options["as_json"]
    to_stdout = str(options["output"]) == "-"
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
            speech = _speak(synthesizer, spoken, settings, options, step)
    if recorder:
        recorder.save(options["dump"])
        _spoken.dump(options["dump"], speech)
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
            "output": str(options["output"]),
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
        if shown and not to_stdout:
            _spoken.show(found)


def _check(text: str | None, file: Path | None, options: dict[str, Any]) -> None:
    """Refuse what contradicts itself or cannot be written, before anything is loaded."""
    from edgepack.atomic import require_writable, require_writable_folder

    given = [text, file, options["convert"], options["speech_tokens"]]
    if sum(value is not None for value in given) != 1:
        raise UsageError("give one of TEXT, --file, --convert or --speech-tokens")
    if options["instruct"] and text is None and file is None:
        raise UsageError("--instruct is about a text; --convert and --speech-tokens have none")
    output: Path = options["output"]
    if str(output) == "-":
        if not options["stream"] or options["as_json"]:
            raise UsageError("-o - goes with --stream and without --json")
    else:
        require_writable(output)
    if options["dump"]:
        require_writable_folder(options["dump"])
    if options["stream"] and text is None and file is None:
        raise UsageError("--stream is for a text; leave out --convert and --speech-tokens")


def _given(text: str | None, file: Path | None, options: dict[str, Any]) -> "Given":
    """What is to be spoken, read before anything is loaded; a stream reads its text as it comes."""
    from edgepack.runtime import audio

    if options["convert"]:
        return audio.read(options["convert"])
    if options["speech_tokens"]:
        return _tokens(options["speech_tokens"])
    if options["stream"] and text == "-":
        return _arriving()
    return _text(text, file)


def _speak(
    synthesizer: "Synthesizer",
    given: "Given",
    settings: "Settings",
    options: dict[str, Any],
    step: "Step",
) -> "Speech":
    """Speak what was asked for and write it."""
    from edgepack.runtime import audio

    output: Path = options["output"]
    if isinstance(given, audio.Recording):
        speech = synthesizer.convert(given, settings)
    elif isinstance(given, list):
        speech = synthesizer.speak_tokens(given, settings)
    elif options["stream"] or not isinstance(given, str):
        return _stream(synthesizer, given, settings, output, step)
    else:
        speech = synthesizer.speak(given, settings)
    audio.write(output, speech.audio, speech.sample_rate)
    return speech


def _stream(
    synthesizer: "Synthesizer",
    text: str | Iterator[str],
    settings: "Settings",
    output: Path,
    step: "Step",
) -> "Speech":
    """Write chunks as they are made. After an interrupt the file has what was spoken until then."""
    from edgepack.runtime import audio

    seconds = 0.0
    try:
        with (
            synthesizer.stream(text, settings) as stream,
            audio.Writer(output, synthesizer.sample_rate) as writer,
        ):
            for chunk in stream:
                seconds += len(chunk) / synthesizer.sample_rate
                writer.write(chunk)
                step(f"{seconds:.1f} s spoken")
    except KeyboardInterrupt:
        if not seconds:
            raise
        raise ResourceError(
            f"interrupted; {output} has the {seconds:.2f} s that were spoken"
        ) from None
    return stream.speech


def _arriving() -> Iterator[str]:
    """Standard input as it arrives, line by line; every line is a piece of one text."""
    try:
        yield from sys.stdin or ()
    except UnicodeError:
        raise utf8.refused("standard input") from None


def _text(text: str | None, file: Path | None) -> str:
    name = str(file or ("standard input" if text == "-" else "the text"))
    try:
        if file is not None:
            return file.read_text("utf-8")
        if text == "-":
            text = sys.stdin.read() if sys.stdin else ""
        (text or "").encode()  # bytes that are not UTF-8 get here as lone surrogates
    except UnicodeError:
        raise utf8.refused(name) from None
    return text or ""


def _tokens(path: Path) -> list[int]:
    import json

    try:
        tokens = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a JSON list of speech tokens ({error})") from None
    if not isinstance(tokens, list) or not all(type(t) is int for t in tokens):
        raise UsageError(f"{path}: not a JSON list of whole numbers")
    return tokens
