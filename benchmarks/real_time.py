"""What makes speech real time on two cores: fp32 and int8, the original's solver and ours.

    python benchmarks/real_time.py FOLDER [--family cosyvoice3] [--format ort] [--language zh]
        [--rounds 5] [--genai DIR] [-o TABLE.md]

FOLDER keeps a random checkpoint of full size (2.6 GB for CosyVoice2, written once) and its bundles,
which are measured as they are if they are there. A bundle at fp32 and one at int8 speak 250 given
speech tokens (10 s of audio) after a prompt of 3 s, each way of solving the flow decoder's ODE in a
process of its own. They take turns; figures are medians, ratios medians of paired ones. "sound" is
flow decoder and vocoder, "all" the language model too, which decodes the same tokens, beside a
plain decoder of the same size, and one of onnxruntime-genai with `--genai`: DIR is what
`benchmarks/peers/genai_decoder.py` wrote, and has an environment of its own.

An interval is from the least to the most of all rounds: it has the median in it with a probability
of 1 - 2^(1 - rounds). A limit that is inside it is neither kept nor passed: "undecided". Rounds in
which others use the CPUs are repeated. Exits with 1 if a limit is passed, with 3 if nothing can be
judged because others use the CPUs.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
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
from quiet import BusyError, require_quiet, undisturbed

from edgepack.bench.remote import Remote
from edgepack.bench.worker import Spec
from edgepack.bundle.bundle import open_bundle
from edgepack.machine.cpu.plan import Wish, current

SHORT = "今天天气很好。"
TOKENS, ROUNDS, DECODED, PAST = 250, 5, 60, 200
VOICE, PROMPT_SECONDS, RATE = "prompted", 3, 16000
FASTER = {
    "cosyvoice2": {"fp32, Euler-10": 3.0, "int8, Euler-10": 1.8},
    "cosyvoice3": {"fp32, Euler-10": 3.5},
}
FIRST_AUDIO, AT_ONCE, PLAIN, GENAI = 0.25, 1.9, 1.0, 1.05
STREAM, FIRST_SECONDS = 1.7, 1.2  # processor seconds a second of audio; until the first audio
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

    def turn(self, tokens: Sequence[int], *, streams: bool) -> None:
        """Speak and decode once, and stream if it `streams`."""
        sound = self.worker.ask("sound", tokens)
        found = {"sound": sound["seconds"]}
        for part, stages in PARTS.items():
            found[part] = sum(sound["stages"].get(stage, 0.0) for stage in stages)
        decoded = self.worker.ask("decode", TEXT, tokens[:DECODED])
        found["token"] = statistics.median(decoded["tokens"])
        found["all"] = found["sound"] + decoded["prefill"] + len(tokens) * found["token"]
        if streams:
            streamed = self.worker.ask("stream", TEXT, tokens)
            found["first audio"] = streamed["first_audio_seconds"]
            found["gaps"], found["waited"] = streamed["waits"], streamed["waited_seconds"]
            found["stream"] = streamed["cpu_seconds"] / streamed["audio_seconds"]
        self.runs.append(found)

    def values(self, part: str) -> list[float]:
        """Of each round."""
        return [run[part] for run in self.runs]

    def median(self, part: str) -> float:
        """Of all rounds."""
        return statistics.median(self.values(part))


def spread(
    name: str,
    values: Sequence[float],
    unit: str,
    limit: float | None = None,
    *,
    least: bool = False,
) -> Figure:
    """The median of all rounds, with its interval."""
    ends = (min(values), max(values))
    return Figure(name, statistics.median(values), unit, limit, least, ends)


def ratios(one: Sequence[float], other: Sequence[float]) -> list[float]:
    """Of each round."""
    return [a / b for a, b in zip(one, other, strict=True)]


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


def genai_token(genai: Path) -> float:
    """Seconds of a step of onnxruntime-genai's decoder after as many tokens, in its environment."""
    script = Path(__file__).parent / "peers" / "genai_decoder.py"
    arguments = ["time", genai, "--past", PAST, "--tokens", DECODED, "--threads", 2]
    command = [str(genai / "bin" / "python"), str(script), *map(str, arguments)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(statistics.median(json.loads(told)))


def figures(
    folder: Path,
    family: str,
    runtime: str,
    paths: dict[str, Path],
    rounds: int,
    genai: Path | None,
) -> Iterator[Figure]:
    """Everything of one runtime, in order."""
    require_quiet()
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
        beside: dict[str, list[float]] = {"plain": [], "genai": [], "two": []}
        ask = ways[OURS].worker.ask

        def take() -> Callable[[], None]:
            lists = [way.runs for way in ways.values()] + list(beside.values())
            before = [len(values) for values in lists]
            for name, way in ways.items():
                way.turn(tokens, streams=name == OURS)
            if runtime == "ort" and family == "cosyvoice2":  # its size
                beside["plain"].append(statistics.median(plain_token(folder)))
                if genai:
                    beside["genai"].append(genai_token(genai))
            one, two = (ask("at_once", [SHORT] * n, n)["wall"] for n in (1, 2))
            beside["two"].append(two / one)

            def drop() -> None:
                for values, count in zip(lists, before, strict=True):
                    del values[count:]

            return drop

        undisturbed(rounds, take)
        yield from _told(ways, FASTER[family])
        token = ways[OURS].values("token")
        for name, most in (("plain", PLAIN), ("genai", GENAI)):
            if beside[name]:
                shares = ratios(token, beside[name])
                yield spread(f"token, by {name}'s", shares, "of its time", most)
        yield spread("two utterances at once", beside["two"], "times one's time", AT_ONCE)
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
        for part, limit in (("sound", least), ("all", None)):
            found = ratios(ways[name].values(part), ours.values(part))
            yield spread(f"{part}, by {name}", found, "×", limit, least=limit is not None)
    first = ours.values("first audio")
    shares = ratios(first, ours.values("all"))
    yield spread("first audio of a stream", shares, "of the offline time", FIRST_AUDIO)
    yield spread("first audio of a stream, seconds", first, "s", FIRST_SECONDS)
    yield spread("stream", ours.values("stream"), "CPU s a second of audio", STREAM)
    yield spread("stream, gaps", ours.values("gaps"), "", 0)
    yield spread("stream, seconds in gaps", ours.values("waited"), "s")


def table(found: dict[str, list[Figure]]) -> str:
    """Markdown: a column a runtime."""
    lines = [f"| | {' | '.join(found)} | limit |", f"|---|{'---|' * len(found)}---|"]
    named = {r: {f.name: f for f in of_it} for r, of_it in found.items()}
    for figure in next(iter(found.values())):
        cells = [named[r].get(figure.name) for r in found]
        values = [f"{c.value:.3g} {c.unit}{c.spread}".strip() if c else "" for c in cells]
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
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--genai", type=Path, help="what genai_decoder.py wrote")
    parser.add_argument("-o", "--output", type=Path, help="write the table as Markdown")
    options: Any = parser.parse_args(arguments)
    formats = options.format or ["ort"]
    found: dict[str, list[Figure]] = {}
    try:
        for runtime in formats:
            paths = bundles(options.folder, options.family, [runtime], options.language)
            for figure in figures(
                options.folder, options.family, runtime, paths, options.rounds, options.genai
            ):
                found.setdefault(runtime, []).append(figure)
                print(f"{runtime} {figure}", flush=True)
    except BusyError as error:
        print(error, file=sys.stderr)
        return 3
    if options.output:
        options.output.write_text(table(found), "utf-8")
    return int(not all(figure.passed for of_it in found.values() for figure in of_it))


if __name__ == "__main__":
    sys.exit(main())
