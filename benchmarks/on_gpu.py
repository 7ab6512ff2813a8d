"""A GPU at full size: exactness at fp32, a thousand seeds at fp16, speed, energy.

    python benchmarks/on_gpu.py FOLDER [--seeds 1000] [--minutes-of-load 0.5] [-o RESULT.md]
    python benchmarks/on_gpu.py FOLDER --only-build
    python benchmarks/on_gpu.py FOLDER --only-seeds 0:250    # some of them, beside other processes

FOLDER keeps a random CosyVoice2-0.5B checkpoint (2.6 GB) and its bundles for the target
nvidia-gpu, at fp16 and at fp32; those that are there are measured as they are. Needs
onnxruntime-gpu and nvidia-ml-py. Speeds are medians of runs that take turns; the CPU is the same
fp32 bundle with --provider cpu. Random weights may fail a gate that is made for speech, so bundles
are built all the same. Exits with 1 if a limit is passed.
"""

import argparse
import importlib
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import random_configuration
import random_cosyvoice2
from full_size import Figure
from quantized import built

from edgepack.builder import pipeline
from edgepack.builder.planning import BuildRequest
from edgepack.bundle import bundle
from edgepack.bundle.manifest import Device
from edgepack.energy import measurement
from edgepack.machine.probe import Machine
from edgepack.runtime.gpu.placement import Wanted
from edgepack.runtime.gpu.reruns import Reruns
from edgepack.runtime.load_options import LoadOptions
from edgepack.runtime.loading import Loaded, load
from edgepack.runtime.stages.flow import Condition
from edgepack.verification import reference

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests/data/golden/cosyvoice2-s1"
CHECKPOINT = ROOT / "tests/data/checkpoints/cosyvoice2-s1"
TOKENS, PROMPT, ROUNDS, DECODED = 250, 75, 3, 100
FASTER_THAN_FP32, FASTER_THAN_CPU, ENERGY_SHARE = 1.5, 5.0, 0.05
SHORTEST, OF_A_LENGTH = 40, 5  # tokens of a seed's utterance; seeds in a row of equal lengths
SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class UtteranceTiming:
    """What one seed is: speech tokens, a prompt's, a speaker and the start noise of the flow."""

    tokens: list[int]
    condition: Condition
    noise: np.ndarray


def drawn(loaded: Loaded, seed: int, count: int) -> UtteranceTiming:
    """Random speech of a seed."""
    rng = np.random.default_rng(seed)
    manifest = loaded.bundle.manifest
    limit, mels = manifest.host.language_model.speech_tokens, manifest.host.flow.mels
    speaker = rng.standard_normal(random_cosyvoice2.SPEAKER, np.float32)
    prompt = rng.integers(0, limit, PROMPT).tolist()
    mel = rng.standard_normal((manifest.host.flow.frames(PROMPT), mels), np.float32)
    frames = manifest.host.flow.noise_frames
    return UtteranceTiming(
        rng.integers(0, limit, count).tolist(),
        Condition(speaker, prompt, mel),
        rng.standard_normal((1, mels, frames), np.float32),
    )


def mel_of(loaded: Loaded, spoken: UtteranceTiming) -> np.ndarray:
    """The flow's mel from the seed's own noise."""
    flow = replace(loaded.flow)
    flow.__dict__["noise"] = spoken.noise  # in the place of the cached property
    return flow.mel(spoken.tokens, spoken.condition)


def audio_of(loaded: Loaded, mel: np.ndarray, seed: int) -> np.ndarray:
    """The vocoder's audio."""
    rng = np.random.default_rng(seed)
    return loaded.vocoder.synthesize(mel, loaded.vocoder.noise(mel.shape[2], rng)).audio


def exactness() -> Iterator[Figure]:
    """The golden vectors of the original implementation, at fp32 on the GPU."""
    with tempfile.TemporaryDirectory() as folder:
        request = BuildRequest(str(CHECKPOINT), ["nvidia-gpu"], Path(folder), precision="fp32")
        made = pipeline.build(request)[0].bundle.folder
        rows = reference.run(load(made, options=LoadOptions(wanted=Wanted("cuda"))), GOLDEN)
    shares = [row.error / row.limit for row in rows if row.error is not None and row.limit]
    yield Figure("golden arrays compared at fp32", len(shares), "")
    worst = max(shares)
    yield Figure("golden arrays, worst error by its limit", worst, "", 1.0)


def seeds(half: Loaded, numbers: range) -> Iterator[Figure]:
    """Flow and vocoder on many seeds, of many lengths."""
    broken: Counter[str] = Counter()
    for seed in numbers:
        length = SHORTEST + seed // OF_A_LENGTH * 37 % (TOKENS - SHORTEST)
        try:
            mel = mel_of(half, drawn(half, seed, length))
            audio = audio_of(half, mel, seed)
        except Exception as error:  # every failure counts, whatever it is
            print(f"seed {seed}: {error}", file=sys.stderr)
            broken["failed"] += 1
            continue
        broken["mel"] += not np.isfinite(mel).all()
        broken["audio"] += not np.isfinite(audio).all()
    yield Figure("seeds of flow and vocoder at fp16", len(numbers), "")
    yield Figure("of these not finite or failed", broken.total(), "", 0)
    yield Figure("calls not finite in fp16", reruns(half).not_finite.total(), "", 0)
    yield Figure("calls refused in fp16 by cuDNN", reruns(half).refused.total(), "", 0)


def reruns(loaded: Loaded) -> Reruns:
    """The calls that were repeated in fp32 up to now."""
    return loaded.host.placement.reruns if loaded.host.placement else Reruns()


def guarded(half: Loaded) -> Iterator[Figure]:
    """Inputs that overflow float16, to see that the guard repeats them in fp32."""
    before = reruns(half).total()
    spoken = drawn(half, 0, SHORTEST)
    mel = mel_of(half, replace(spoken, noise=spoken.noise * np.float32(1e6)))
    again = reruns(half).total() - before
    yield Figure("calls repeated for noise of 10⁶", again, "", 1, least=True)
    yield Figure("its mel finite", float(np.isfinite(mel).all()), "", 1, least=True)


def _seconds(loaded: Loaded, number: int) -> dict[str, float]:
    spoken = drawn(loaded, number, TOKENS)
    start = time.perf_counter()
    mel = mel_of(loaded, spoken)
    flowed = time.perf_counter()
    audio_of(loaded, mel, number)
    vocoded = time.perf_counter()
    decoder = loaded.decoder
    decoder.language_model.reset()
    block = decoder.prefix(list(range(40)))
    steps = []
    for token in spoken.tokens[:DECODED]:
        begun = time.perf_counter()
        decoder.language_model.run({"embeddings": block})
        block = decoder.embed_speech([token])
        steps.append(time.perf_counter() - begun)
    return {
        "flow": flowed - start,
        "vocoder": vocoded - flowed,
        "token": statistics.median(steps),
    }


def speed(subjects: dict[str, Loaded]) -> Iterator[Figure]:
    """10 s of audio with a prompt of 3 s, again and again, in turns."""
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in subjects}
    for number in range(ROUNDS + 1):
        for name, loaded in subjects.items():
            found = _seconds(loaded, number)
            if number:  # the first warms up
                taken[name].append(found)
    for part in ("flow", "vocoder", "token"):
        times = {n: statistics.median(run[part] for run in runs) for n, runs in taken.items()}
        for name, seconds in times.items():
            yield Figure(f"{part}, {name}", 1000 * seconds, "ms")
        limits = (FASTER_THAN_FP32, FASTER_THAN_CPU) if part == "flow" else (None, None)
        for other, limit in zip(("GPU fp32", "CPU fp32"), limits, strict=True):
            ratio = times[other] / times["GPU fp16"]
            yield Figure(f"{part}, fp16 by {other}", ratio, "times", limit, least=True)


def joules(half: Loaded, minutes: float) -> Iterator[Figure]:
    """The driver's energy counter against its power, summed up over the same load."""
    pynvml, board = _board()
    machine = Machine()
    meters = measurement.select("nvml", machine, Device())
    samples: list[tuple[float, float]] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_SECONDS):
            samples.append((time.monotonic(), _power(pynvml, board)))

    spoken = drawn(half, 1, TOKENS)
    audio = 0.0
    until = time.monotonic() + 60 * minutes
    with measurement.measuring(meters, machine) as readings:
        thread = threading.Thread(target=sample)
        thread.start()
        while time.monotonic() < until:
            mel = mel_of(half, spoken)
            audio += audio_of(half, mel, 1).size / half.bundle.manifest.sample_rate
        done.set()
        thread.join()
    counted = readings[0]
    times, watts = (np.array(column) for column in zip(*samples, strict=True))
    mean = float(np.trapezoid(watts, times) / (times[-1] - times[0]))
    used = float(counted.joules or 0)
    by_counter = used / counted.seconds
    yield Figure("NVML energy counter, mean", by_counter, "W")
    yield Figure("NVML power, summed up, mean", mean, "W")
    yield Figure("they differ by", abs(mean / by_counter - 1), "", ENERGY_SHARE)
    yield Figure("flow and vocoder, board", used / audio, "J a second of audio")


def _board() -> tuple[Any, Any]:
    """NVML and the first GPU."""
    pynvml = importlib.import_module("pynvml")
    pynvml.nvmlInit()
    return pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)


def _power(pynvml: Any, board: Any) -> float:
    """Watts at this moment, not the mean of a second that the older call gives."""
    field = pynvml.nvmlDeviceGetFieldValues(board, [pynvml.NVML_FI_DEV_POWER_INSTANT])[0]
    return float(field.value.uiVal) / 1000


def _described() -> list[str]:
    pynvml, board = _board()
    driver, cuda = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion()
    return [
        f"{pynvml.nvmlDeviceGetName(board)}, driver {driver}, CUDA {cuda // 1000}."
        f"{cuda % 1000 // 10}, ONNX Runtime {onnxruntime.__version__}",
    ]


def bundles(folder: Path, precisions: Sequence[str] = ("fp16", "fp32")) -> dict[str, Path]:
    """Bundles by precision; builds those that are not there."""
    for precision in precisions:
        if not list((folder / precision).glob("*/manifest.json")):
            if not (folder / "checkpoint").is_dir():
                full = random_configuration.Size()
                random_cosyvoice2.write(folder / "checkpoint", full, random_cosyvoice2.QWEN2)
            options = ("--target", "nvidia-gpu", "--language", "zh", "--precision", precision)
            built(folder / "checkpoint", folder / precision, *options)
    return {p: next((folder / p).glob("*/manifest.json")).parent for p in precisions}


def some_seeds(folder: Path, numbers: range) -> Iterator[Figure]:
    """A part of the seeds alone; several processes do several parts at once."""
    yield from seeds(
        load(bundles(folder, ("fp16",))["fp16"], options=LoadOptions(wanted=Wanted("cuda"))),
        numbers,
    )


def figures(folder: Path, count: int, minutes: float) -> Iterator[Figure]:
    """Everything, in turn."""
    yield from exactness()
    paths = bundles(folder)
    for precision, path in paths.items():
        size = sum(f.bytes for f in bundle.open_bundle(path).manifest.files.values())
        yield Figure(f"bundle at {precision}", size / 1e6, "MB")
    subjects = {
        "GPU fp16": load(paths["fp16"], options=LoadOptions(wanted=Wanted("cuda"))),
        "GPU fp32": load(paths["fp32"], options=LoadOptions(wanted=Wanted("cuda"))),
        "CPU fp32": load(paths["fp32"], options=LoadOptions(wanted=Wanted("cpu"))),
    }
    yield from speed(subjects)
    half = subjects["GPU fp16"]
    yield from seeds(half, range(count))
    yield from guarded(half)
    yield from joules(half, minutes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--minutes-of-load", type=float, default=0.5)
    parser.add_argument("-o", "--output", type=Path, help="write the table as Markdown")
    parser.add_argument("--only-build", action="store_true", help="measure nothing yet")
    parser.add_argument("--only-seeds", metavar="FIRST:LAST", help="these, and nothing else")
    options = parser.parse_args(arguments)
    if options.only_build:
        bundles(options.folder)
        return 0
    lines = [*_described(), "", "| figure | value | limit |", "|---|---|---|"]
    print(lines[0])
    passed = True
    if options.only_seeds:
        numbers = range(*map(int, options.only_seeds.split(":")))
        measured = some_seeds(options.folder, numbers)
    else:
        measured = figures(options.folder, options.seeds, options.minutes_of_load)
    for figure in measured:
        print(figure, flush=True)
        bound = "≥" if figure.least else "≤"
        limit = "" if figure.limit is None else f"{bound} {figure.limit:g}"
        lines.append(f"| {figure.name} | {figure.value:.4g} {figure.unit} | {limit} |")
        passed = passed and figure.passed
    if options.output:
        options.output.write_text("\n".join([*lines, ""]), "utf-8")
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
