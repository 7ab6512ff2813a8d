"""Everyday sentences with the readings that are right; run it to see how many are read so.

`python tests/reading_cases.py` prints a table of scores, and `-v` the sentences read wrong.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from support import DATA

from edgepack.builder.grammars import grammars
from edgepack.runtime.text.front_end import Frontend
from edgepack.runtime.text.normalization import Normalization, Normalize, Reader

FOLDER = DATA / "readings"
CODES = ("zh", "en")


@dataclass(frozen=True)
class Case:
    """A text, and each of its right readings."""

    text: str
    readings: tuple[str, ...]

    def is_read_by(self, spoken: str) -> bool:
        """Whether a reading sounds like a right one."""
        return any(sounds(spoken) == sounds(reading) for reading in self.readings)


def cases(code: str) -> list[Case]:
    """The sentences of a language."""
    lines = (FOLDER / f"{code}.txt").read_text("utf-8").splitlines()
    pairs = (line.split(" => ", 1) for line in lines if line and not line.startswith("#"))
    return [Case(text, tuple(readings.split(" | "))) for text, readings in pairs]


def sounds(text: str) -> list[str]:
    """The words of a reading: case, hyphens, "and" and commas aside, full stops inside kept."""
    if re.search("[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3]", text):  # blanks are not heard
        text = text.replace(" ", "")
    else:
        text = text.lower().replace("-", " ").replace("'s", "s")
    text = re.sub(r"[.。](?=.)", " stop ", re.sub(r"[.。]$", "", text.strip()))
    kept = "".join(c for c in text if c.isalnum() or c in " 、")
    return [word for word in kept.split() if word != "and"]


class _Grammar(Reader):
    """A reader without its rules."""

    def open(self) -> Normalize:
        return cast(Any, super().open()).read


def frontend(*, rules: bool = True) -> Frontend:
    """As in a bundle for every language; no tokenizer is needed to read."""
    kind = Reader if rules else _Grammar
    readers = {code: kind("wfst", code, grammars("wfst", code)) for code in CODES}
    return Frontend(None, "<|endofprompt|>", Normalization(readers))


def reader(code: str) -> Normalize:
    """What reads numbers in a language, by itself."""
    normalizer = "wfst" if code in ("zh", "en", "ja") else "cldr"
    return Reader(normalizer, code, grammars(normalizer, code)).open()


def wrong(code: str, reader: Frontend) -> Iterator[tuple[Case, str]]:
    """What is read wrong, and how."""
    for case in cases(code):
        spoken = reader.clean(case.text)
        if not case.is_read_by(spoken):
            yield case, spoken


def main() -> None:
    """Print the table."""
    print("| language | sentences | grammars | with rules |\n|---|---|---|---|")
    for code in CODES:
        found = [list(wrong(code, frontend(rules=rules))) for rules in (False, True)]
        count = len(cases(code))
        print(f"| {code} | {count} | {count - len(found[0])} | {count - len(found[1])} |")
        if "-v" in sys.argv:
            for case, spoken in found[1]:
                print(f"  {case.text}: {spoken}; right: {' | '.join(case.readings)}")


if __name__ == "__main__":
    main()
