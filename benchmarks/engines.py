"""Runtimes against each other at full size: speed of each network at fp32, memory, loading.

    python benchmarks/engines.py FOLDER [--format ort --format tflite] [--language zh]

FOLDER keeps a random CosyVoice2-0.5B checkpoint and one fp32 bundle with these runtimes, as
`quantized.py` does. They speak 250 forced speech tokens, 10 s of audio, in processes of their own
that take turns; figures are medians, ratios are to the first. Exits with 1 if LiteRT is slower
than ONNX Runtime in the flow or the vocoder.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import random_configuration
import random_cosyvoice2
from full_size import Figure
from quantized import ROUNDS, built, spoken

PARTS = ("speech_lm", "flow", "vocoder", "all")
LEAST = {("tflite", "ort", "flow"): 1.0, ("tflite", "ort", "vocoder"): 1.0}


def figures(folder: Path, runtimes: Sequence[str], language: str) -> Iterator[Figure]:
    """Speed of each part, runtime by runtime, and the memory each took."""
    formats = [word for runtime in runtimes for word in ("--format", runtime)]
    options = ("--target", "intel-cpu", "--language", language, "--precision", "fp32", *formats)
    record, _, _ = built(folder / "checkpoint", folder / "engines", *options)
    runs: dict[str, list[dict[str, float]]] = {runtime: [] for runtime in runtimes}
    for _ in range(ROUNDS):
        for runtime, of_it in runs.items():
            of_it.append(spoken(Path(record["path"]), runtime))
    first = runtimes[0]
    for runtime in runtimes[1:]:
        for part in PARTS:
            one, other = (statistics.median(r[part] for r in runs[n]) for n in (first, runtime))
            unit = f"times the speed of {first} ({1000 * one:.0f} ms, {1000 * other:.0f} ms)"
            least = LEAST.get((runtime, first, part))
            yield Figure(f"{runtime} {part}", one / other, unit, least, least=True)
    for runtime, of_it in runs.items():
        most = statistics.median(run["peak"] for run in of_it)
        yield Figure(f"{runtime} peak memory", most / 1e6, "MB")


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--format", action="append", help="runtimes; default: ort and tflite")
    parser.add_argument("--language", default="zh")
    options = parser.parse_args()
    if not (options.folder / "checkpoint").is_dir():
        full = random_configuration.Size()
        random_cosyvoice2.write(options.folder / "checkpoint", full, random_cosyvoice2.QWEN2)
    passed = True
    for figure in figures(options.folder, options.format or ["ort", "tflite"], options.language):
        print(figure, flush=True)
        passed = passed and figure.passed
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
