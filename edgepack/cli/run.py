"""`edgepack run`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack.cli._options import PATH, engine_options, output_options
from edgepack.errors import UsageError

if TYPE_CHECKING:
    from edgepack.runtime.synthesizer import Speech, Synthesizer


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
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="The same seed gives the same audio.",
)
@click.option(
    "--steps",
    type=click.IntRange(1, 1000),
    help="ODE steps of the flow decoder.  [default: the checkpoint's]",
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
@engine_options
@output_options
def command(bundle: Path, text: str | None, file: Path | None, **options: Any) -> None:
    """Speak TEXT (or "-" for standard input) with BUNDLE and write a wav file."""
    import time

    from edgepack import report
    from edgepack.runtime import audio
    from edgepack.runtime.memory import return_large_blocks
    from edgepack.runtime.synthesizer import Settings, Synthesizer
    from edgepack.runtime.watch import Recorder

    given = [text, file, options["convert"], options["speech_tokens"]]
    if sum(value is not None for value in given) != 1:
        raise UsageError("give one of TEXT, --file, --convert or --speech-tokens")
    if options["instruct"] and text is None and file is None:
        raise UsageError("--instruct is about a text; --convert and --speech-tokens have none")
    if options["output"].is_dir() or not options["output"].parent.is_dir():
        raise UsageError(f"{options['output']}: not a file name in a folder that exists")
    return_large_blocks()
    settings = Settings(
        voice=options["voice"],
        mode=options["mode"],
        instruction=options["instruct"],
        seed=options["seed"],
        steps=options["steps"],
        speed=options["speed"],
        strict=options["guard"] == "error",
        strict_language=options["strict_language"],
    )
    recorder = Recorder() if options["dump"] else None
    shown = not options["quiet"] and not options["as_json"]
    with report.progress("run", shown=shown and sys.stderr.isatty()) as step:
        step("loading")
        start = time.perf_counter()
        synthesizer = Synthesizer.load(
            bundle, options["runtime"], options["threads"], [recorder] if recorder else []
        )
        loaded = time.perf_counter() - start
        step("speaking")
        if options["convert"]:
            speech = synthesizer.convert(options["convert"], settings)
        elif options["speech_tokens"]:
            speech = synthesizer.speak_tokens(_tokens(options["speech_tokens"]), settings)
        else:
            speech = synthesizer.speak(_text(text, file), settings)
    audio.write(options["output"], speech.audio, speech.sample_rate)
    if recorder:
        recorder.save(options["dump"])
        _dump_speech(options["dump"], speech)
    record = _record(synthesizer, speech, loaded, options)
    if options["as_json"]:
        report.document(record)
    else:
        for warning in record["warnings"]:
            report.warn(warning)
        if shown:
            _show(record)


def _text(text: str | None, file: Path | None) -> str:
    name = str(file or ("standard input" if text == "-" else "the text"))
    try:
        if file is not None:
            return file.read_text("utf-8")
        if text == "-":
            text = sys.stdin.read() if sys.stdin else ""
        (text or "").encode()  # bytes that are not UTF-8 get here as lone surrogates
    except UnicodeError:
        raise UsageError(f"{name}: not UTF-8 text") from None
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


def _dump_speech(folder: Path, speech: "Speech") -> None:
    """What is between the networks, one file an utterance."""
    import numpy as np

    for number, utterance in enumerate(speech.utterances):
        np.savez(
            folder / f"utterance-{number:04d}.npz",
            allow_pickle=False,
            text=np.array(utterance.decoded.text),
            text_ids=np.array(utterance.decoded.text_ids, np.int64),
            speech_tokens=np.array(utterance.decoded.speech_tokens, np.int64),
            mel=utterance.mel,
            audio=utterance.audio,
        )


def _record(
    synthesizer: "Synthesizer", speech: "Speech", loaded: float, options: dict[str, Any]
) -> dict[str, Any]:
    import os

    from edgepack.runtime.memory import peak_rss_bytes
    from edgepack.runtime.session import engine

    host = synthesizer.loaded.host
    warnings = list(speech.faults)
    quality = synthesizer.loaded.bundle.manifest.quality
    if quality and quality.failed:
        warnings.append(
            f"this bundle failed its exam and was built all the same: {'; '.join(quality.failed)}"
        )
    if speech.foreign:
        warnings.append(
            f"{100 * speech.foreign:.1f} % of the characters are not in the bundle's languages "
            f"({synthesizer.loaded.bundle.manifest.language}) and may be misread"
        )
    return {
        "output": str(options["output"]),
        "text": [u.decoded.text for u in speech.utterances],
        "voice": speech.voice,
        "mode": speech.mode,
        "seed": options["seed"],
        "runtime": host.runtime,
        "runtime_version": engine(host.runtime).version(),
        "threads": host.threads,
        "cpus": sorted(os.sched_getaffinity(0)),
        "sample_rate": speech.sample_rate,
        "audio_seconds": speech.audio_seconds,
        "load_seconds": loaded,
        "synthesis_seconds": speech.seconds,
        "rtf": speech.real_time_factor,
        "first_audio_seconds": speech.first_audio_seconds,
        "stages": speech.stages,
        "speech_tokens": [t for u in speech.utterances for t in u.decoded.speech_tokens],
        "peak_rss_bytes": peak_rss_bytes(),
        "energy": {
            "available": False,
            "reasons": {"all": "this version of edgepack has no energy meters"},
        },
        "foreign_share": speech.foreign,
        "warnings": warnings,
    }


def _show(record: dict[str, Any]) -> None:
    from edgepack import report

    report.line(
        f"{record['output']}: {record['audio_seconds']:.2f} s of audio in "
        f"{record['synthesis_seconds']:.2f} s, RTF {record['rtf']:.3f}, "
        f"first audio after {record['first_audio_seconds']:.2f} s"
    )
    stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in record["stages"].items())
    report.line(f"seconds by stage: {stages}; loading {record['load_seconds']:.2f}")
    report.line(
        f"{record['runtime']} {record['runtime_version']}, {record['threads']} threads on CPUs "
        f"{record['cpus']}, voice {record['voice']} ({record['mode']}), "
        f"peak RSS {report.size(record['peak_rss_bytes'])}"
    )
