"""Checks of a recording and its transcript before a voice is made of them."""

import unicodedata
from collections.abc import Iterator

import numpy as np

from edgepack.errors import UsageError
from edgepack.runtime.audio.waveform import SHORTEST_SECONDS, Recording, require_heard, wrong_length

_HEARD = 0.05  # of the loudest frame's RMS: below are pauses
_CLIPPED, _CLIPPED_SHARE = 0.999, 0.001  # samples at full scale, and how many are too many
_SLOWEST, _FASTEST = 1.0, 11.0  # syllables a second of speech; people speak 3 to 8
_LETTERS_A_SYLLABLE = 3.0  # in alphabetic scripts


def problems(recording: Recording, text: str) -> list[str]:
    """Warnings about a recording in which `text` is said, one line each.

    Raises UsageError for a recording that is too short or silent, and a text without words.
    """
    if recording.seconds < SHORTEST_SECONDS:
        raise wrong_length(recording.name, recording.seconds)
    if not any(c.isalnum() for c in text):
        raise UsageError(f"{recording.name}: no words are given; say what is said in it")
    require_heard(recording)
    return list(_doubts(recording, text))


def _doubts(recording: Recording, text: str) -> Iterator[str]:
    clipped = float((np.abs(recording.samples) >= _CLIPPED).mean())
    if clipped > _CLIPPED_SHARE:
        yield (
            f"{recording.name}: {100 * clipped:.1f} % of it is clipped, and the voice will rasp; "
            "record it again with less gain"
        )
    loudness = recording.loudness
    heard = float((loudness > _HEARD * loudness.max()).mean())
    seconds = heard * recording.seconds
    rate = syllables(text) / seconds
    if not _SLOWEST <= rate <= _FASTEST:
        much = "little" if rate < _SLOWEST else "much"
        yield (
            f"{recording.name}: its text is too {much} for {seconds:.1f} s of speech (about "
            f"{rate:.1f} syllables a second); give what is said in it, word for word"
        )


def syllables(text: str) -> float:
    """About how many syllables a text has: ideographs, kana, Hangul and digits are one each."""
    return sum(
        1.0 if c.isdigit() or _is_syllable(c) else 1.0 / _LETTERS_A_SYLLABLE
        for c in unicodedata.normalize("NFC", text)
        if c.isalnum()
    )


def _is_syllable(character: str) -> bool:
    name = unicodedata.name(character, "")
    return name.startswith(("CJK", "HIRAGANA", "KATAKANA", "HANGUL"))
