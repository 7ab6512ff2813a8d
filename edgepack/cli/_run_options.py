"""The options of `edgepack run`, and what is refused before anything is loaded."""

from dataclasses import dataclass
from pathlib import Path

from edgepack.cli._cpu import CpuOptions
from edgepack.cli._options import EngineOptions, OutputOptions, ProviderOptions, to_stdout
from edgepack.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class RunOptions(CpuOptions, EngineOptions, ProviderOptions, OutputOptions):
    """Arguments and options; `output` is as it was typed, as a slash at its end says something."""

    bundle: Path
    text: str | None
    file: Path | None
    output: str | None
    voice: str | None
    mode: str
    instruct: str | None
    convert: Path | None
    speech_tokens: Path | None
    seed: int
    solver: str
    steps: int | None
    speed: float
    guard: str
    strict_language: bool
    lexicon: Path | None
    verbose: bool
    play: bool
    dump: Path | None
    stream: bool
    memory: str
    batch: int | None
    energy: str


@dataclass(frozen=True)
class Destination:
    """Where sound is written: a file, a device, or a folder for a file a line; None to play only.

    With `stream` it is written while it is made. With `to_stdout` it goes to standard output,
    where nothing else may be said then.
    """

    path: Path | None
    is_folder: bool
    to_stdout: bool
    stream: bool


def checked(options: RunOptions) -> Destination:
    """Where the sound goes; raises UsageError for what contradicts itself or cannot be written."""
    from importlib.util import find_spec

    from edgepack.files.atomic import require_writable_folder

    about_text = options.text is not None or options.file is not None
    given = [options.text, options.file, options.convert, options.speech_tokens]
    if sum(value is not None for value in given) != 1:
        dashed = "" if any(given) else "; before a TEXT that begins with - put --"
        raise UsageError(f"give one of TEXT, --file, --convert or --speech-tokens{dashed}")
    if options.instruct and not about_text:
        raise UsageError("--instruct is about a text; --convert and --speech-tokens have none")
    if options.play and find_spec("sounddevice") is None:
        raise ModuleNotFoundError(name="sounddevice")
    destination = _destination(options)
    if options.dump:
        require_writable_folder(options.dump)
    if options.stream and not about_text:
        raise UsageError("--stream is for a text; leave out --convert and --speech-tokens")
    if options.lexicon and not about_text:
        raise UsageError("--lexicon is about a text; --convert and --speech-tokens have none")
    return destination


def _destination(options: RunOptions) -> Destination:
    """Where the sound goes, which can be written to."""
    from edgepack.files.atomic import require_writable, require_writable_folder
    from edgepack.files.places import STDOUT

    output = None if options.output is None else Path(options.output)
    if output is None and not options.play:
        output = Path("out.wav")
    if output == STDOUT and (not options.stream or options.as_json):
        raise UsageError("-o - goes with --stream and without --json")
    printed = to_stdout(output, as_json=options.as_json)
    slash = bool(options.output and options.output.endswith("/"))
    is_folder = output not in (None, STDOUT) and _is_folder(output, slash)
    if output and is_folder:
        if options.file is None:
            name = output / "out.wav" if output.is_dir() else f"{output}.wav"
            raise UsageError(
                f"{output}: not a file name but a folder, for a file a line of --file; for one "
                f"text give a name such as {name}"
            )
        if options.stream:
            raise UsageError(
                f"{output}: a stream is one file; give its name, or leave out --stream"
            )
        require_writable_folder(output)
    elif output:
        require_writable(output)
    return Destination(output, is_folder, printed, options.stream)


def _is_folder(output: Path | None, slash: bool) -> bool:
    """Whether a typed path means a folder: it is one, ends in a slash, or has no suffix."""
    return output is not None and (
        output.is_dir() or slash or not (output.suffix or output.exists())
    )
