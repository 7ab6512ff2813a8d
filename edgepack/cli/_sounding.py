"""What `edgepack run` is given to speak, and where its sound goes."""

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np

from edgepack.cli._run_options import Destination, RunOptions
from edgepack.errors import CancelledError, EdgepackError, ResourceError, UsageError
from edgepack.files import charset
from edgepack.files.atomic import made_folder, require_writable
from edgepack.files.places import STDOUT
from edgepack.report import Step
from edgepack.runtime.audio import waveform
from edgepack.runtime.audio.playing import Player
from edgepack.runtime.audio.sound_file import Writer, format_of
from edgepack.runtime.audio.waveform import Recording
from edgepack.runtime.speech import Settings, Speech
from edgepack.runtime.synthesizer import Synthesizer

_STDIN = "standard input"


@dataclass(frozen=True)
class Lines:
    """Texts of which each is spoken into a file of its own."""

    texts: Sequence[str]


ToSpeak = str | Iterator[str] | list[int] | Recording | Lines


class Sink(Protocol):
    """Something that sound is written to while it is made: a file or a player."""

    def write(self, samples: np.ndarray) -> None:
        """Take samples float32 [n]."""
        ...


def given(options: RunOptions, destination: Destination) -> ToSpeak:
    """What to speak. It is read before anything is loaded, except for a stream of standard input.

    Raises UsageError for an input that cannot be read and an output without a known format.
    """
    output, file = destination.path, options.file
    if destination.is_folder:
        assert file  # noqa: S101 (refused otherwise before)
        lines = [line for line in charset.read(file).splitlines() if line.strip()]
        if not lines:
            raise UsageError(f"{file}: no lines to speak")
        assert output  # noqa: S101 (a folder is an output)
        for path in _files(output, len(lines)):
            if path.exists():  # in a folder that can be written to
                require_writable(path)
        return Lines(lines)
    if output and output != STDOUT:
        format_of(output, live=options.stream)
    if options.convert:
        return waveform.read(options.convert)
    if options.speech_tokens:
        return _tokens(options.speech_tokens)
    if options.stream and options.text == "-":
        return _arriving()
    return _text(options.text, file)


def speak(
    synthesizer: Synthesizer,
    what: ToSpeak,
    settings: Settings,
    destination: Destination,
    player: Player | None,
    step: Step,
) -> list[tuple[Path | None, Speech]]:
    """Speak, write and play what was asked for; returns the files with the speech in them."""
    output = destination.path
    if isinstance(what, Lines):
        assert output  # noqa: S101 (`given` made lines for a folder)
        return _each(synthesizer, what.texts, settings, output, player, step)
    with ExitStack() as opened:
        sinks: list[Sink] = []
        if player:
            sinks.append(opened.enter_context(player))
        if destination.stream and isinstance(what, str | Iterator):
            speech = _stream(synthesizer, what, settings, output, sinks, step)
        else:
            speech = _whole(synthesizer, what, settings)
            _write(output, speech, sinks)
    return [(output, speech)]


def _files(folder: Path, count: int) -> list[Path]:
    """Names of sound files for `count` texts: their numbers."""
    digits = max(4, len(str(count)))
    return [folder / f"{number:0{digits}}.wav" for number in range(1, count + 1)]


def _each(
    synthesizer: Synthesizer,
    texts: Sequence[str],
    settings: Settings,
    folder: Path,
    player: Player | None,
    step: Step,
) -> list[tuple[Path | None, Speech]]:
    """Speak every text into a file named by its number; if one fails, earlier files stay."""
    found: list[tuple[Path | None, Speech]] = []
    with ExitStack() as opened:
        opened.enter_context(made_folder(folder))
        sinks = [opened.enter_context(player)] if player else []
        for number, path in enumerate(_files(folder, len(texts)), 1):
            step(f"line {number} of {len(texts)}")
            text = texts[number - 1]
            try:
                speech = synthesizer.speak(text, settings)
            except EdgepackError as error:
                where = f"line {number} of {len(texts)}"
                raise type(error)(f"{where}: {error}", error.details) from error
            _write(path, speech, sinks)
            found.append((path, speech))
    return found


def _whole(synthesizer: Synthesizer, what: ToSpeak, settings: Settings) -> Speech:
    if isinstance(what, Recording):
        return synthesizer.convert(what, settings)
    if isinstance(what, list):
        return synthesizer.speak_tokens(what, settings)
    assert isinstance(what, str)  # noqa: S101 (all else is a stream, or lines)
    return synthesizer.speak(what, settings)


def _write(output: Path | None, speech: Speech, sinks: Sequence[Sink]) -> None:
    if output:
        with Writer(output, speech.sample_rate) as writer:
            _into([writer], speech)
    _into(sinks, speech)


def _into(sinks: Sequence[Sink], speech: Speech) -> None:
    """Write speech in pieces of a second, so that an interrupt ends it soon."""
    for sink in sinks:
        for start in range(0, len(speech.audio), speech.sample_rate):
            sink.write(speech.audio[start : start + speech.sample_rate])


def _stream(
    synthesizer: Synthesizer,
    text: str | Iterator[str],
    settings: Settings,
    output: Path | None,
    sinks: Sequence[Sink],
    step: Step,
) -> Speech:
    """Write chunks as they are made.

    After an interrupt, or on a full disk, the file has what was spoken until then.
    """
    seconds = 0.0
    writer: Writer | None = None
    try:
        with synthesizer.stream(text, settings) as stream, ExitStack() as opened:
            if output:
                writer = Writer(output, synthesizer.sample_rate, live=True)
                sinks = [opened.enter_context(writer), *sinks]
            for chunk in stream:
                seconds += len(chunk) / synthesizer.sample_rate
                for sink in sinks:
                    sink.write(chunk)
                step(f"{seconds:.1f} s spoken")
    except (KeyboardInterrupt, CancelledError):
        if not seconds or not output:
            raise
        raise ResourceError(
            f"interrupted; {output} has the {seconds:.2f} s that were spoken"
        ) from None
    except OSError:
        if writer is None or not writer.kept:
            raise
        raise ResourceError(
            f"{output}: no space left; it has the first {writer.kept:.2f} s of what was spoken"
        ) from None
    return stream.speech


def _arriving() -> Iterator[str]:
    """Standard input as it arrives, line by line; every line is a piece of one text."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        lines: BinaryIO = sys.stdin.buffer
        # A reader of its own where there is a descriptor: Python closes that of `sys.stdin` at its
        # end, and aborts if a thread still waits there for a line.
        with suppress(OSError):
            lines = open(sys.stdin.fileno(), "rb", closefd=False)  # noqa: SIM115
        return charset.lines(lines, _STDIN, sys.stdin.encoding)
    return (charset.whole(line, _STDIN) for line in sys.stdin or ())


def _text(text: str | None, file: Path | None) -> str:
    if file is not None:
        return charset.read(file)
    if text != "-":
        return text or ""
    if isinstance(sys.stdin, io.TextIOWrapper):
        return charset.decoded(sys.stdin.buffer.read(), _STDIN, sys.stdin.encoding)
    return charset.whole(sys.stdin.read(), _STDIN) if sys.stdin else ""


def _tokens(path: Path) -> list[int]:
    import json

    try:
        tokens = json.loads(charset.read(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a JSON list of speech tokens ({error})") from None
    if not isinstance(tokens, list) or not all(type(t) is int for t in tokens):
        raise UsageError(f"{path}: not a JSON list of whole numbers")
    return tokens


def joined(found: Sequence[tuple[Path | None, Speech]]) -> Speech:
    """Several speeches as one, for a summary of all of them."""
    spoken = [speech for _, speech in found]
    if len(spoken) == 1:
        return spoken[0]
    stages: dict[str, float] = {}
    for speech in spoken:
        for name, seconds in speech.stages.items():
            stages[name] = stages.get(name, 0.0) + seconds
    return Speech(
        spoken[0].sample_rate,
        spoken[0].voice,
        spoken[0].mode,
        [utterance for speech in spoken for utterance in speech.utterances],
        stages,
        sum(speech.seconds for speech in spoken),
        max(speech.foreign for speech in spoken),
        tuple(dict.fromkeys(word for speech in spoken for word in speech.unread)),
    )
