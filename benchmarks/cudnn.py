"""How cuDNN should choose the vocoder's convolutions: a new length, a known one, what it refuses.

    python benchmarks/cudnn.py BUNDLE [--step 2]

BUNDLE is one for the target nvidia-gpu. For each way of choosing, the vocoder runs twice on mels of
80 to 500 frames. Needs onnxruntime-gpu.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgepack.bundle.bundle import open_bundle

SHORTEST, LONGEST = 80, 500  # frames: 1.6 s and 10 s
QUIET = 4
WAYS = {
    "heuristics": {"cudnn_conv_algo_search": "HEURISTIC"},
    "heuristics, nc1d": {"cudnn_conv_algo_search": "HEURISTIC", "cudnn_conv1d_pad_to_nc1d": "1"},
    "fallback": {"cudnn_conv_algo_search": "DEFAULT"},
    "fallback, nc1d": {"cudnn_conv_algo_search": "DEFAULT", "cudnn_conv1d_pad_to_nc1d": "1"},
}


def tried(session: Any, feeds: dict[str, np.ndarray]) -> tuple[float, bool]:
    """Milliseconds of a call, and whether its output is finite."""
    start = time.perf_counter()
    audio = session.run(None, feeds)[0]
    return 1000 * (time.perf_counter() - start), bool(np.isfinite(audio).all())


def measure(network: Path, frame: int, mels: int, options: dict[str, str], step: int) -> str:
    """One line of the table."""
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = QUIET
    cuda = ("CUDAExecutionProvider", {"use_tf32": "0", **options})
    session = onnxruntime.InferenceSession(str(network), settings, providers=[cuda])
    session.disable_fallback()
    rng = np.random.default_rng(0)
    new, known, refused, broken = [], [], 0, 0
    for frames in range(SHORTEST, LONGEST + 1, step):
        feeds = {
            "mel": rng.normal(-4, 2, (1, mels, frames)).astype(np.float32),
            "source": rng.normal(0, 0.1, (1, 1, frames * frame)).astype(np.float32),
        }
        try:
            runs = [tried(session, feeds) for _ in range(2)]
        except Exception:  # the engine's own exceptions share no base class
            refused += 1
            continue
        new.append(runs[0][0])
        known.append(runs[1][0])
        broken += not all(finite for _, finite in runs)
    times = f"{statistics.mean(new):.0f} ms | {statistics.mean(known):.1f} ms" if new else " | "
    return f"{times} | {refused} of {refused + len(new)} | {broken} |"


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--step", type=int, default=2, help="frames from one length to the next")
    options = parser.parse_args()
    onnxruntime.preload_dlls()
    onnxruntime.set_default_logger_severity(QUIET)
    opened = open_bundle(options.bundle)
    manifest = opened.manifest
    files = manifest.stages["hift"].variants["ort"].files
    print("| network | choice | new length | known length | refused | not finite |")
    print("|---|---|---|---|---|---|")
    for file in (f for f in files if f.endswith(".onnx")):
        for name, way in WAYS.items():
            sizes = (manifest.host.vocoder.frame, manifest.host.flow.mels)
            line = measure(opened.path(file), *sizes, way, options.step)
            print(f"| {Path(file).name} | {name} | {line}", flush=True)


if __name__ == "__main__":
    main()
