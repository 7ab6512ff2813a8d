"""What is spoken for calibration, and what is held out for the evaluation."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.bundle.bundle import stored
from edgepack.errors import UsageError
from edgepack.files import charset
from edgepack.profiles import language

_HELD_OUT = 8  # every eighth sentence is never used for calibration


@dataclass(frozen=True)
class Corpus:
    """Sentences to calibrate with, others for the evaluation, and recordings to speak like.

    `prompts` are (name, recording, transcript).
    """

    calibration: Sequence[str]
    evaluation: Sequence[str]
    prompts: Sequence[tuple[str, Path, str]] = ()

    @property
    def sha256(self) -> str:
        """Hash of all of it."""
        digest = hashlib.sha256("\n".join([*self.calibration, "", *self.evaluation]).encode())
        for name, path, text in self.prompts:
            digest.update(f"{name}\n{text}\n{stored(path).sha256}\n".encode())
        return digest.hexdigest()


def of_languages(codes: Sequence[str]) -> Corpus:
    """Sentences of the languages in turn, so that the first few are in all of them."""
    sets = [_split(language.sentences(code)) for code in codes]
    return Corpus(_in_turn([s.calibration for s in sets]), _in_turn([s.evaluation for s in sets]))


def of_folder(folder: Path) -> Corpus:
    """A user's own: lines of `*.txt` are sentences; `NAME.wav` with `NAME.txt` is a prompt.

    Folders and hidden files, such as the `._NAME.txt` of macOS, are passed over.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: not a folder with sentences (*.txt)")
    sentences: list[str] = []
    prompts: list[tuple[str, Path, str]] = []
    for path in sorted(folder.glob("[!.]*.txt")):
        if not path.is_file():
            continue
        text = charset.read(path)
        recording = path.with_suffix(".wav")
        if recording.is_file():
            prompts.append((path.stem, recording, text.strip()))
        else:
            sentences += [line.strip() for line in text.splitlines() if line.strip()]
    if len(sentences) < _HELD_OUT:
        raise UsageError(
            f"{folder}: {len(sentences)} sentences in its text files; {_HELD_OUT} are the least"
        )
    made = _split(sentences)
    return Corpus(made.calibration, made.evaluation, prompts)


def _in_turn(sets: Sequence[Sequence[str]]) -> list[str]:
    longest = max(map(len, sets))
    return [s[i] for i in range(longest) for s in sets if i < len(s)]


def _split(sentences: Sequence[str]) -> Corpus:
    held = [s for i, s in enumerate(sentences) if i % _HELD_OUT == _HELD_OUT - 1]
    return Corpus([s for i, s in enumerate(sentences) if i % _HELD_OUT != _HELD_OUT - 1], held)
