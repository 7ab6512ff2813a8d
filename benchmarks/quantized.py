"""Integer weights against fp32 at full size: bytes, speed of each network, memory.

    python benchmarks/quantized.py FOLDER [--precision int8] [--format ort] [--language zh]

FOLDER keeps a random CosyVoice2-0.5B checkpoint (2.6 GB, written once) and its bundles. Each
bundle speaks 250 forced speech tokens, 10 s of audio, in processes of its own that take turns;
figures are medians. Random weights may fail a gate that is made for speech, so bundles are built
all the same, and what failed is printed. Exits with 1 if a limit is passed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import random_configuration
import random_cosyvoice2
from full_size import Figure, measured

from edgepack.bundle import voices
from edgepack.machine.memory import peak_rss_bytes, return_large_blocks
from edgepack.runtime.load_options import LoadOptions
from edgepack.runtime.loading import load
from edgepack.verification.speaking import condition, vocode

TOKENS, ROUNDS, WARM_UP = 250, 3, 5
TEXT = "你好，今天天气很好，我们一起去公园散步吧。"
LARGEST = {"int8": 590e6, "int4": 430e6}  # bytes of a bundle for one runtime, without enrolment
FASTER = {"speech_lm": 1.8, "flow": 1.0, "all": 1.5}
BUILD_SECONDS, BUILD_BYTES = 25 * 60, 8e9
LOW_ABOVE = 200  # MB that one network at a time may take beyond the largest


def speak(bundle: Path, runtime: str, memory: str) -> dict[str, float]:
    """Seconds of each part for 250 speech tokens, and peak memory; in this process."""
    return_large_blocks()
    loaded = load(bundle, runtime, options=LoadOptions(memory=memory))
    decoder = loaded.decoder
    _, voice = voices.read(loaded.bundle, None)
    start = time.perf_counter()
    decoder.language_model.reset()
    block = decoder.prefix(loaded.frontend.ids(TEXT))
    tokens: list[int] = []
    steps = []
    for _ in range(TOKENS):
        before = time.perf_counter()
        logits = decoder.language_model.run({"embeddings": block})["logits"][0]
        tokens.append(int(logits[: decoder.settings.speech_tokens].argmax()))
        block = decoder.embed_speech(tokens[-1:])
        steps.append(time.perf_counter() - before)
    decoded = time.perf_counter()
    mel = loaded.flow.mel(tokens, condition(voice))
    drawn = time.perf_counter()
    vocode(loaded, mel, 0)
    return {
        "speech_lm": statistics.median(steps[WARM_UP:]),
        "flow": drawn - decoded,
        "vocoder": time.perf_counter() - drawn,
        "all": time.perf_counter() - start,
        "peak": float(peak_rss_bytes()),
    }


def spoken(bundle: Path, runtime: str, memory: str = "all") -> dict[str, float]:
    """The same in a fresh process."""
    command = [sys.executable, __file__, str(bundle), "--format", runtime, "--speak", memory]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def built(checkpoint: Path, output: Path, *options: str) -> tuple[dict[str, Any], int, float]:
    """The record of a bundle without the enrolment networks, peak memory and seconds."""
    arguments = ["build", str(checkpoint), "--output", str(output), "--force", *options]
    document, peak, seconds = measured(*arguments, "--allow-failed-gate")
    (record,) = document["bundles"]
    return record, peak, seconds


def figures(
    checkpoint: Path, folder: Path, precision: str, runtime: str, language: str, recipe: str | None
) -> Iterator[Figure]:
    """Everything measured, in order."""
    common = ("--target", "intel-cpu", "--format", runtime, "--language", language)
    whole, _, _ = built(checkpoint, folder / "fp32", *common, "--precision", "fp32")
    fixed = ("--recipe", recipe) if recipe else ()
    options = ("--precision", precision, *fixed)
    small, peak, seconds = built(checkpoint, folder / precision, *common, *options)
    yield Figure("build", seconds, "s", BUILD_SECONDS)
    yield Figure("build peak memory", peak / 1e9, "GB", BUILD_BYTES / 1e9)
    for name, stage in small["stages"].items():
        variant = stage["runtimes"][runtime]
        yield Figure(f"{name} with {variant['recipe']}", variant["bytes"] / 1e6, "MB")
    enrolment = sum(file.stat().st_size for file in Path(small["path"], "enrolment").glob("*"))
    size = small["bytes"] - enrolment
    yield Figure("bundle without enrolment", size / 1e6, "MB", LARGEST[precision] / 1e6)
    for failed in (small["quality"] or {}).get("failed", []):
        print(f"failed gate: {failed}")
    runs: dict[str, list[dict[str, float]]] = {"fp32": [], precision: []}
    for _ in range(ROUNDS):
        for name, record in (("fp32", whole), (precision, small)):
            runs[name].append(spoken(Path(record["path"]), runtime))
    for part in ("speech_lm", "flow", "vocoder", "all"):
        one, other = (statistics.median(run[part] for run in runs[name]) for name in runs)
        unit = f"times fp32's speed ({1000 * one:.0f} ms became {1000 * other:.0f} ms)"
        yield Figure(part, one / other, unit, FASTER.get(part), least=True)
    most = statistics.median(run["peak"] for run in runs[precision])
    yield Figure("run peak memory", most / 1e6, "MB", (1.15 * size + 250e6) / 1e6)
    largest = max(stage["runtimes"][runtime]["bytes"] for stage in small["stages"].values())
    low = spoken(Path(small["path"]), runtime, "low")["peak"]
    yield Figure("the same with --memory low", low / 1e6, "MB", largest / 1e6 + LOW_ABOVE)


def main() -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="int8", choices=list(LARGEST))
    parser.add_argument("--format", default="ort")
    parser.add_argument("--language", default="zh")
    parser.add_argument("--recipe", help="fix the recipes, without an auction")
    parser.add_argument("--speak", metavar="MEMORY", help="only speak with a bundle: all or low")
    options = parser.parse_args()
    if options.speak:
        print(json.dumps(speak(options.folder, options.format, options.speak)))
        return 0
    checkpoint = options.folder / "checkpoint"
    if not checkpoint.is_dir():
        random_cosyvoice2.write(checkpoint, random_configuration.Size(), random_cosyvoice2.QWEN2)
    passed = True
    arguments = (options.precision, options.format, options.language, options.recipe)
    for figure in figures(checkpoint, options.folder, *arguments):
        print(figure, flush=True)
        passed = passed and figure.passed
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
