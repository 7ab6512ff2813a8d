"""`edgepack voice add` and `edgepack voice list`."""

from pathlib import Path

import click

from edgepack.cli._options import PATH, engine_options, output_options


@click.group(short_help="Voices of a bundle: add one from a recording, list them.")
def command() -> None:
    """Voices of a bundle."""


@command.command(short_help="Add a voice from a recording.")
@click.argument("bundle", type=PATH)
@click.argument("name")
@click.argument("recording", type=PATH)
@click.option("--text", "-t", required=True, help="What is said in the recording, word for word.")
@click.option("--force", is_flag=True, help="Replace a voice of this name.")
@engine_options
@output_options
def add(
    bundle: Path,
    name: str,
    recording: Path,
    text: str,
    force: bool,
    runtime: str | None,
    threads: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Add voice NAME to BUNDLE from RECORDING, a sound file of 0.5 to 30 s and 16 kHz or more.

    The checkpoint's own speech tokenizer and speaker encoder listen to it.
    """
    from edgepack import report, voices
    from edgepack.bundle import open_bundle
    from edgepack.runtime import audio
    from edgepack.runtime.fit import recorded, require_voice, widths
    from edgepack.runtime.loading import choose, open_enroller, open_frontend

    opened = open_bundle(bundle)
    frontend = open_frontend(opened)
    enroller = open_enroller(opened, choose(opened, runtime, threads))
    heard = audio.read(recording)
    made = enroller.voice(heard, frontend.ids(frontend.clean(text)))
    require_voice(opened, made, widths(opened, recorded(opened)), "what was heard")
    voices.add(opened, name, made, replace=force)
    if as_json:
        tokens = len(made.prompt.tokens) if made.prompt else 0
        report.document({"bundle": str(bundle), "voice": name, "speech_tokens": tokens})
    elif not quiet:
        report.line(f"{bundle}: added voice {name!r} from {heard.seconds:.1f} s of {recording}")


@command.command("list", short_help="List the voices of a bundle.")
@click.argument("bundle", type=PATH)
@output_options
def list_voices(bundle: Path, as_json: bool, quiet: bool) -> None:
    """List the voices of BUNDLE."""
    from edgepack import report, voices
    from edgepack.bundle import open_bundle

    opened = open_bundle(bundle)
    listed = {}
    for name in opened.manifest.voices:
        _, found = voices.read(opened, name)
        modes = ["zero-shot", "cross-lingual", "instruct"] if found.prompt else ["sft"]
        listed[name] = modes, len(found.prompt.tokens) if found.prompt else 0
    if as_json:
        entries = {n: {"modes": m, "prompt_speech_tokens": t} for n, (m, t) in listed.items()}
        report.document({"bundle": str(bundle), "voices": entries})
    elif not quiet:
        rows = [[n, ", ".join(modes), str(tokens)] for n, (modes, tokens) in listed.items()]
        report.table(f"voices of {bundle}", ["voice", "modes", "prompt tokens"], rows)
