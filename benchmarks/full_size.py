"""Builds and runs a checkpoint of full size, and holds memory and decode time to their limits.

    python benchmarks/full_size.py FOLDER [--target intel-cpu]

FOLDER keeps a random CosyVoice2-0.5B checkpoint (2.6 GB, written once) and its bundle. Random
weights speak noise, so runs only warn about the sound. Peak memory is the resident set of the
whole process tree, looked at every 20 ms. Exits with 1 if a limit is passed.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import random_configuration
import random_cosyvoice2

from edgepack.bundle.bundle import open_bundle
from edgepack.runtime.loading import load

TEXT = "你好,今天天气很好,我们一起去公园散步吧。"
BUILD_LIMIT = 1.3  # peak memory of a build, in checkpoint bytes
RUN_LIMIT = 500_000_000  # peak memory of a run, in bytes above the fp32 weights
DECODE_LIMIT = 1.3  # time of a token at position 500, in times of one at position 50
EARLY, LATE, WINDOW, ROUNDS = 50, 500, 20, 3


@dataclass(frozen=True)
class Figure:
    """One measured value with its unit and its limit, if it has one: the most, or the least.

    With an `interval` a limit is passed or missed only by all of it; in between, nothing is known.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    least: bool = False
    interval: tuple[float, float] | None = None

    @property
    def passed(self) -> bool:
        """Whether the value, or some of its interval, is within the limit."""
        if self.limit is None:
            return True
        low, high = self.interval or (self.value, self.value)
        return high >= self.limit if self.least else low <= self.limit

    @property
    def decided(self) -> bool:
        """Whether the limit is outside the interval."""
        if self.limit is None or self.interval is None:
            return True
        low, high = self.interval
        return not low <= self.limit <= high

    def __str__(self) -> str:
        bound = "at least" if self.least else "at most"
        limit = "" if self.limit is None else f"  ({bound} {self.limit:.3g})"
        verdict = "  OVER THE LIMIT" if not self.passed else "" if self.decided else "  undecided"
        return f"{self.name:34} {self.value:8.3g} {self.unit}{self.spread}{limit}{verdict}"

    @property
    def spread(self) -> str:
        """The interval in words."""
        return " ({:.3g} to {:.3g})".format(*self.interval) if self.interval else ""


def measured(*arguments: str) -> tuple[Any, int, float]:
    """The JSON document of an edgepack command, its peak tree memory in bytes, and its seconds."""
    command = [sys.executable, "-m", "edgepack", *arguments, "--json", "--quiet"]
    start = time.perf_counter()
    peak = 0
    with tempfile.TemporaryFile("w+") as output:
        process = psutil.Popen(command, stdout=output)
        while process.poll() is None:
            peak = max(peak, _tree_bytes(process))
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        output.seek(0)
        document = json.load(output)
    if process.returncode:
        sys.exit(f"edgepack {arguments[0]} failed: {document}")
    return document, peak, seconds


def _tree_bytes(process: psutil.Process) -> int:
    total = 0
    with contextlib.suppress(psutil.Error):  # one that ended between listing and looking
        for member in [process, *process.children(recursive=True)]:
            total += member.memory_info().rss
    return total


def decode_ratio(bundle: Path, runtime: str) -> tuple[float, float]:
    """Seconds a token at position 50, and those at position 500 as a multiple of it."""
    decoder = load(bundle, runtime).decoder
    early, ratios = [], []
    for _ in range(ROUNDS):
        decoder.language_model.reset()
        seconds = []
        for position in range(LATE + WINDOW):
            block = decoder.embed_speech([position % decoder.settings.speech_tokens])
            start = time.perf_counter()
            decoder.language_model.run({"embeddings": block})
            seconds.append(time.perf_counter() - start)
        near, far = (statistics.median(seconds[p : p + WINDOW]) for p in (EARLY, LATE))
        early.append(near)
        ratios.append(far / near)
    return statistics.median(early), statistics.median(ratios)


def figures(checkpoint: Path, output: Path, target: str) -> Iterator[Figure]:
    """Everything measured, in order."""
    size = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
    yield Figure("checkpoint", size / 1e9, "GB")
    built, peak, seconds = measured(
        "build", str(checkpoint), "--target", target, "--output", str(output), "--force"
    )
    yield Figure("build", seconds, "s")
    yield Figure("build peak memory", peak / size, "of the checkpoint's bytes", BUILD_LIMIT)
    (record,) = built["bundles"]
    bundle = Path(record["path"])
    yield Figure("bundle", record["bytes"] / 1e9, "GB")
    weights = 4 * sum(stage["parameters"] for stage in record["stages"].values())
    for runtime in open_bundle(bundle).runtimes():
        wav = str(output / f"{runtime}.wav")
        arguments = ["--format", runtime, "--guard", "warn", "--output", wav]
        spoken, peak, _ = measured("run", str(bundle), TEXT, *arguments)
        yield Figure(f"{runtime}: audio", spoken["audio_seconds"], "s")
        yield Figure(f"{runtime}: load", spoken["load_seconds"], "s")
        yield Figure(f"{runtime}: peak memory", peak / 1e9, "GB", (weights + RUN_LIMIT) / 1e9)
        token, ratio = decode_ratio(bundle, runtime)
        yield Figure(f"{runtime}: decode at {EARLY}", 1000 * token, "ms a token")
        yield Figure(f"{runtime}: decode at {LATE}", ratio, f"times that at {EARLY}", DECODE_LIMIT)


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", default="intel-cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    checkpoint = options.folder / "checkpoint"
    if not checkpoint.is_dir():
        random_cosyvoice2.write(checkpoint, random_configuration.Size(), random_cosyvoice2.QWEN2)
    found = []
    for figure in figures(checkpoint, options.folder / "bundles", options.target):
        found.append(figure)
        if not options.json:
            print(figure, flush=True)
    if options.json:
        print(json.dumps([asdict(figure) for figure in found], indent=2))
    return int(not all(figure.passed for figure in found))


if __name__ == "__main__":
    sys.exit(main())
