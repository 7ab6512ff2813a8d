"""What makes speech real time on two cores: fp32 and int8, the original's solver and ours.

    python benchmarks/real_time.py FOLDER [--family cosyvoice3] [--format ort] [--language zh]
        [-o TABLE.md]

FOLDER keeps a random checkpoint of full size (2.6 GB for CosyVoice2, written once) and its bundles,
which are measured as they are if they are there. A bundle at fp32 and one at int8 speak 250 given
speech tokens (10 s of audio) after a prompt of 3 s, each way of solving the flow decoder's ODE in a
process of its own. They take turns; figures are medians, ratios medians of paired ones. "sound" is
flow decoder and vocoder, "all" the language model too, which decodes the same tokens, beside a
plain decoder of the same size. Exits with 1 if a limit is passed.
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import plain_decoder
import random_configuration
import random_cosyvoice2
import random_cosyvoice3
import soundfile
from full_size import Figure
from quantized import TEXT, built

from edgepack.bench.remote import Remote
from edgepack.bench.worker import Spec
from edgepack.bundle.bundle import open_bundle
from edgepack.machine.cpu.plan import Wish, current

SHORT = "今天天气很好。"
TOKENS, ROUNDS, DECODED, PAST = 250, 3, 60, 200
VOICE, PROMPT_SECONDS, RATE = "prompted", 3, 16000
FASTER = {
    "cosyvoice2": {"fp32, Euler-10": 3.0, "int8, Euler-10": 1.8},
    "cosyvoice3": {"fp32, Euler-10": 3.5},
}
FIRST_AUDIO, AT_ONCE, PLAIN = 0.25, 1.9, 1.0
BITS, BLOCK = 8, 128
WAYS = {
    "fp32, Euler-10": ("fp32", "reference"),
    "int8, Euler-10": ("int8", "reference"),
    "int8, calibrated": ("int8", "auto"),
}
OURS = list(WAYS)[-1]
PARTS = {
    "flow": ("flow_encoder", "flow_time", "flow_estimator"),
    "vocoder": ("hift_source", "hift"),
}


@dataclass
class Way:
    """A bundle and a solver in a process of its own, with what each round gave."""

    worker: Remote
    runs: list[dict[str, float]] = field(default_factory=list)

    def turn(self, tokens: Sequence[int]) -> None:
        """Speak and decode once."""
        sound = self.worker.ask("sound", tokens)
        found = {"sound": sound["seconds"]}
        for part, stages in PARTS.items():
            found[part] = sum(sound["stages"].get(stage, 0.0) for stage in stages)
        decoded = self.worker.ask("decode", TEXT, tokens[:DECODED])
        found["token"] = statistics.median(decoded["tokens"])
        found["all"] = found["sound"] + decoded["prefill"] + len(tokens) * found["token"]
        found["first audio"] = self.worker.ask("first_audio", TEXT)
        self.runs.append(found)

    def median(self, part: str) -> float:
        """Of all rounds."""
        return statistics.median(run[part] for run in self.runs)


def ratio(one: Way, other: Way, part: str) -> float:
    """How many times as fast the second is, the median of rounds."""
    pairs = zip(one.runs, other.runs, strict=True)
    return statistics.median(a[part] / b[part] for a, b in pairs)


def bundles(folder: Path, family: str, formats: Sequence[str], language: str) -> dict[str, Path]:
    """Both bundles by precision; builds those that are not there."""
    checkpoint = folder / "checkpoint"
    if not checkpoint.is_dir():
        if family == "cosyvoice3":
            large = random_cosyvoice3.FULL
            random_cosyvoice3.write(checkpoint, large, random_cosyvoice2.QWEN2)
        else:
            size = random_configuration.Size()
            random_cosyvoice2.write(checkpoint, size, random_cosyvoice2.QWEN2)
    prompt = folder / "prompt.wav"
    if not prompt.is_file():
        noise = np.random.default_rng(0).normal(0, 0.1, PROMPT_SECONDS * RATE)
        soundfile.write(prompt, noise.astype(np.float32), RATE)
    wanted = [option for name in formats for option in ("--format", name)]
    options = ("--target", "intel-cpu", "--language", language, *wanted)
    found = {}
    for precision in ("fp32", "int8"):
        output = folder / "-".join(["real-time", precision, *formats])
        if not list(output.glob("*/manifest.json")):
            voice = ("--voice", f"{VOICE}={prompt}:{TEXT}")
            built(checkpoint, output, *options, *voice, "--precision", precision)
        found[precision] = next(output.glob("*/manifest.json")).parent
    return found


def plain_token(folder: Path) -> list[float]:
    """Seconds of steps of a plain decoder of the same size, after as many tokens."""
    size, path = random_configuration.Size(), folder / f"plain{BITS}.onnx"
    if not path.is_file():
        plain_decoder.write(path, size, BITS, BLOCK)
    return plain_decoder.timed(path, size, PAST, DECODED, threads=2)


def figures(folder: Path, family: str, runtime: str, paths: dict[str, Path]) -> Iterator[Figure]:
    """Everything of one runtime, in order."""
    plan = current(Wish(threads=2))
    limit = open_bundle(paths["int8"]).manifest.host.language_model.speech_tokens
    tokens = np.random.default_rng(1).integers(0, limit, TOKENS).tolist()
    ways: dict[str, Way] = {}
    try:
        for name, (precision, solver) in WAYS.items():
            spec = Spec(paths[precision], runtime, VOICE, plan, 0, solver=solver, strict=False)
            ways[name] = Way(Remote(spec))
        for way in ways.values():  # warm up
            way.worker.ask("sound", tokens[: TOKENS // 5])
        plain: list[float] = []
        for _ in range(ROUNDS):
            for way in ways.values():
                way.turn(tokens)
            if runtime == "ort" and family == "cosyvoice2":  # its size
                plain += plain_token(folder)
        yield from _told(ways, FASTER[family])
        if plain:
            share = ways[OURS].median("token") / statistics.median(plain)
            yield Figure("token, by a plain decoder's", share, "of its time", PLAIN)
        ask = ways[OURS].worker.ask
        pairs = [[ask("at_once", [SHORT] * n, n)["wall"] for n in (1, 2)] for _ in range(ROUNDS)]
        both = statistics.median(two / one for one, two in pairs)
        yield Figure("two utterances at once", both, "times one's time", AT_ONCE)
    finally:
        for way in ways.values():
            way.worker.close()


def _told(ways: dict[str, Way], faster: dict[str, float]) -> Iterator[Figure]:
    for name, way in ways.items():
        solver = way.worker.described["solver"]
        yield Figure(f"{name}: evaluations", solver[1], "")
        for part in ("flow", "vocoder", "sound", "all"):
            yield Figure(f"{name}: {part}", way.median(part), "s")
        yield Figure(f"{name}: token", 1000 * way.median("token"), "ms")
        yield Figure(f"{name}: real-time factor", way.median("all") / (TOKENS / 25), "")
    ours = ways[OURS]
    for name, least in faster.items():
        yield Figure(f"sound, by {name}", ratio(ways[name], ours, "sound"), "×", least, least=True)
        yield Figure(f"all, by {name}", ratio(ways[name], ours, "all"), "×")
    share = statistics.median(run["first audio"] / run["all"] for run in ours.runs)
    yield Figure("first audio of a stream", share, "of the offline time", FIRST_AUDIO)


def table(found: dict[str, list[Figure]]) -> str:
    """Markdown: a column a runtime."""
    lines = [f"| | {' | '.join(found)} | limit |", f"|---|{'---|' * len(found)}---|"]
    named = {r: {f.name: f for f in of_it} for r, of_it in found.items()}
    for figure in next(iter(found.values())):
        cells = [named[r].get(figure.name) for r in found]
        values = [f"{c.value:.3g} {c.unit}".strip() if c else "" for c in cells]
        bound = "≥" if figure.least else "≤"
        limit = "" if figure.limit is None else f"{bound} {figure.limit:g}"
        lines.append(f"| {figure.name} | {' | '.join(values)} | {limit} |")
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--family", choices=FASTER, default="cosyvoice2")
    parser.add_argument("--format", action="append", help="runtimes; default: ort")
    parser.add_argument("--language", default="zh")
    parser.add_argument("-o", "--output", type=Path, help="write the table as Markdown")
    options: Any = parser.parse_args(arguments)
    formats = options.format or ["ort"]
    found: dict[str, list[Figure]] = {}
    for runtime in formats:
        paths = bundles(options.folder, options.family, [runtime], options.language)
        for figure in figures(options.folder, options.family, runtime, paths):
            found.setdefault(runtime, []).append(figure)
            print(f"{runtime} {figure}", flush=True)
    if options.output:
        options.output.write_text(table(found), "utf-8")
    return int(not all(figure.passed for of_it in found.values() for figure in of_it))


if __name__ == "__main__":
    sys.exit(main())
