"""`edgepack voice`: add, default, list and remove."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgepack.cli import _complete
from edgepack.cli._options import (
    PATH,
    TEXT,
    EngineOptions,
    OutputOptions,
    as_record,
    engine_options,
    output_options,
)

if TYPE_CHECKING:
    from edgepack.bundle.bundle import Bundle


@dataclass(frozen=True, kw_only=True)
class AddOptions(EngineOptions, OutputOptions):
    """Arguments and options of `edgepack voice add`."""

    bundle: Path
    name: str
    recording: Path
    text: str
    force: bool


@click.group(short_help="Voices of a bundle: add, list, choose, remove.")
def command() -> None:
    """Voices of a bundle."""


@command.command(short_help="Add a voice from a recording.")
@click.argument("bundle", type=PATH)
@click.argument("name", type=TEXT)
@click.argument("recording", type=PATH)
@click.option(
    "--text", "-t", required=True, type=TEXT, help="What is said in the recording, word for word."
)
@click.option("--force", is_flag=True, help="Replace a voice of this name.")
@engine_options
@output_options
@as_record(AddOptions)
def add(options: AddOptions) -> None:
    """Add voice NAME to BUNDLE from RECORDING, a sound file of 0.5 to 30 s and 16 kHz or more.

    The checkpoint's own speech tokenizer and speaker encoder listen to it.
    """
    from edgepack import report
    from edgepack.bundle import voices
    from edgepack.bundle.bundle import open_bundle
    from edgepack.runtime.audio import prompting, waveform
    from edgepack.runtime.fit import recorded, require_voice, widths
    from edgepack.runtime.loading import choose, open_enroller, open_frontend

    name, text, recording = options.name, options.text, options.recording
    opened = open_bundle(options.bundle)
    voices.require_free(opened, name, replace=options.force)
    voices.require_changeable(opened)
    heard = waveform.read(recording)
    warnings = prompting.problems(heard, text)
    frontend = open_frontend(opened)
    enroller = open_enroller(opened, choose(opened, options.runtime, options.threads))
    made = enroller.voice(heard, frontend.ids(frontend.clean(text)))
    require_voice(opened, made, widths(opened, recorded(opened)), "what was heard")
    changed = voices.add(opened, name, made, replace=options.force)
    if options.as_json:
        tokens = len(made.prompt.tokens) if made.prompt else 0
        record = {"bundle": str(options.bundle), "voice": name, "speech_tokens": tokens}
        report.document({**record, "default": changed.manifest.default_voice, "warnings": warnings})
        return
    for warning in warnings:
        report.warn(warning)
    if not options.quiet:
        report.line(
            f"{options.bundle}: added voice {name!r} from {heard.seconds:.1f} s of {recording}"
        )
        _tell_default(changed)


@command.command("list", short_help="List the voices of a bundle.")
@click.argument("bundle", type=PATH)
@output_options
def list_voices(bundle: Path, as_json: bool, quiet: bool) -> None:
    """List the voices of BUNDLE."""
    from edgepack import report
    from edgepack.bundle import voices
    from edgepack.bundle.bundle import open_bundle

    opened = open_bundle(bundle)
    listed = {}
    for name in opened.manifest.voices:
        _, found = voices.read(opened, name)
        modes = ["zero-shot", "cross-lingual", "instruct"] if found.prompt else ["sft"]
        listed[name] = modes, len(found.prompt.tokens) if found.prompt else 0
    if as_json:
        entries = {n: {"modes": m, "prompt_speech_tokens": t} for n, (m, t) in listed.items()}
        report.document(
            {"bundle": str(bundle), "default": voices.default(opened.manifest), "voices": entries}
        )
    elif not quiet:
        rows = [[n, ", ".join(modes), str(tokens)] for n, (modes, tokens) in listed.items()]
        report.table(f"voices of {bundle}", ["voice", "modes", "prompt tokens"], rows)
        _tell_default(opened)


@command.command("default", short_help="Choose the voice that speaks if none is asked for.")
@click.argument("bundle", type=PATH)
@click.argument("name", type=TEXT, shell_complete=_complete.voices)
@output_options
def make_default(bundle: Path, name: str, as_json: bool, quiet: bool) -> None:
    """Let voice NAME of BUNDLE speak where none is asked for."""
    from edgepack.bundle import voices
    from edgepack.bundle.bundle import open_bundle

    _tell(voices.make_default(open_bundle(bundle), name), as_json=as_json, quiet=quiet)


@command.command(short_help="Remove a voice.")
@click.argument("bundle", type=PATH)
@click.argument("name", type=TEXT, shell_complete=_complete.voices)
@output_options
def remove(bundle: Path, name: str, as_json: bool, quiet: bool) -> None:
    """Remove voice NAME from BUNDLE. If it was the default, the first by name becomes it."""
    from edgepack.bundle import voices
    from edgepack.bundle.bundle import open_bundle

    _tell(voices.remove(open_bundle(bundle), name), as_json=as_json, quiet=quiet)


def _tell(changed: "Bundle", *, as_json: bool, quiet: bool) -> None:
    from edgepack import report
    from edgepack.bundle import voices

    manifest = changed.manifest
    if as_json:
        record = {"bundle": str(changed.folder), "default": voices.default(manifest)}
        report.document({**record, "voices": sorted(manifest.voices)})
    elif not quiet:
        report.line(f"{changed.folder}: voices {', '.join(sorted(manifest.voices)) or 'none'}")
        _tell_default(changed)


def _tell_default(bundle: "Bundle") -> None:
    from edgepack import report
    from edgepack.bundle import voices

    if name := voices.default(bundle.manifest):
        report.line(f"{name!r} speaks where no --voice is given")
