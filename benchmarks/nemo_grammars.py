"""NVIDIA's text-processing grammars, compiled and run by kaldifst, against the reader we have.

    python benchmarks/nemo_grammars.py [--language fr] [-v]

The sentences are those of `tests/data/readings`. For each language the grammars of
`nemo_text_processing` are compiled, in a process of their own, by pynini and written as two
transducers, which kaldifst reads: what a bundle would hold and a device would run. A device would
also have to parse the nested tokens between the two and try the orders of their fields; here
NVIDIA's own parser does that. Beside the readings that are right, the table says in how many
sentences the two readers sound the same, and whether kaldifst gives what pynini gives. Times are
of a processor.

It needs `pip install nemo_text_processing` besides edgepack's own dependencies, in an environment
that has nothing else to lose: see docs/architecture.md, "Libraries weighed".
"""

import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from reading_cases import cases, reader, sounds

CODES = ("de", "es", "fr", "it", "ja", "ko", "ru")
COLUMNS = (
    "sentences", "ours right", "NeMo right", "the same", "kaldifst as pynini", "compiled in s",
    "peak MB", "grammars MB", "opened in s", "ms a sentence", "ours ms",
)  # fmt: skip


def heard(text: str) -> str:
    """What is heard of a reading; not the blanks inside a number ("zwei und siebzig")."""
    return "".join(sounds(text))


def through_kaldifst(compiled: Any, folder: Path) -> Callable[[str], str]:
    """NVIDIA's normaliser with both transducers run by kaldifst, from files below a folder."""
    import kaldifst

    tag, verbalize = (
        kaldifst.TextNormalizer(str(folder / name)) for name in ("tagger.fst", "verbalizer.fst")
    )

    def read(text: str) -> str:
        compiled.parser(tag(text.strip()))
        tokens = compiled.parser.parse()
        parts = compiled._split_tokens_to_reduce_number_of_permutations(tokens)
        return " ".join(_first(map(verbalize, compiled.generate_permutations(p))) for p in parts)

    return read


def _first(spoken: Iterator[str]) -> str:
    """What the first order of fields becomes that the verbaliser accepts."""
    return next((words for words in spoken if words), "")


def timed(read: Callable[[str], str], texts: list[str]) -> tuple[list[str], float]:
    """Each reading, and the median of milliseconds; an error is its own name."""
    readings, seconds = [], []
    for text in texts:
        start = time.process_time()
        try:
            readings.append(read(text))
        except Exception as error:  # whatever a grammar that refuses a text makes pynini raise
            readings.append(type(error).__name__)
        seconds.append(time.process_time() - start)
    return readings, statistics.median(seconds) * 1e3


def compared(code: str) -> dict[str, Any]:
    """The row of a language, and its readings; in this process."""
    logging.disable(logging.WARNING)
    from nemo_text_processing.text_normalization.normalize import Normalizer

    start = time.process_time()
    try:
        compiled = Normalizer(input_case="cased", lang=code)
    except (NotImplementedError, ValueError) as error:
        return {"refused": str(error).partition(".")[0]}
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    texts = [case.text for case in cases(code)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compiled.tagger.fst.write(str(folder / "tagger.fst"))
        compiled.verbalizer.fst.write(str(folder / "verbalizer.fst"))
        start = time.process_time()
        read = through_kaldifst(compiled, folder)
        opened = time.process_time() - start
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    theirs, their_ms = timed(read, texts)
    ours, our_ms = timed(reader(code), texts)
    pynini, _ = timed(compiled.normalize, texts)

    def right(readings: list[str]) -> int:
        return sum(
            heard(reading) in map(heard, case.readings)
            for case, reading in zip(cases(code), readings, strict=True)
        )

    def same(first: list[str], second: list[str]) -> int:
        return sum(heard(a) == heard(b) for a, b in zip(first, second, strict=True))

    row = (
        len(texts), right(ours), right(theirs), same(ours, theirs), same(theirs, pynini),
        round(seconds, 1), round(peak), round(size, 1), round(opened, 2), round(their_ms, 1),
        round(our_ms, 2),
    )  # fmt: skip
    return {"row": row, "readings": list(zip(texts, ours, theirs, strict=True))}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--language", action="append", choices=CODES, help="only this one")
    parser.add_argument("--compare", choices=CODES, help=argparse.SUPPRESS)
    parser.add_argument("-v", "--verbose", action="store_true", help="what each reads differently")
    arguments = parser.parse_args()
    if arguments.compare:
        print(json.dumps(compared(arguments.compare)))
        return
    print(f"| language | {' | '.join(COLUMNS)} |\n|{'---|' * (len(COLUMNS) + 1)}")
    details = []
    for code in arguments.language or CODES:
        command = [sys.executable, __file__, "--compare", code]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        found = json.loads(output.splitlines()[-1])
        if "refused" in found:
            print(f"| {code} | {found['refused']} |")
            continue
        print(f"| {code} | {' | '.join(map(str, found['row']))} |", flush=True)
        details += [(code, *texts) for texts in found["readings"]]
    if arguments.verbose:
        for code, text, ours, theirs in details:
            if heard(ours) != heard(theirs):
                print(f"{code}: {text}\n  ours: {ours}\n  NeMo: {theirs}")


if __name__ == "__main__":
    main()
