"""arm64 bundles in an emulated arm64 Python say what they say on the build host.

`make test-arm64` sets the emulator up and writes what was found to `.arm64/report.md`. It proves
what is computed, never how fast.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.builder.pipeline import build
from edgepack.builder.planning import BuildRequest
from edgepack.verification.quality import mel_cepstral_distortion

pytestmark = pytest.mark.device

HERE = Path(__file__).parent
ENVIRONMENT = Path(os.environ.get("EDGEPACK_ARM64", HERE.parents[1] / ".arm64"))
CORES = {"cortex-a72": "Raspberry Pi 4", "cortex-a76": "Raspberry Pi 5"}
RUNTIMES = ("ort", "tflite")
PRECISIONS = ("fp32", "int8")
CASES = [(p, r, c) for p in PRECISIONS for r in RUNTIMES for c in CORES]
RATE = 24000

# Largest relative errors (L2) against x86. Integer products are rounded in another order there,
# and what the vocoder makes of a slightly other mel differs in phase: it is held to 1 dB of MCD.
STAGE = {"fp32": 1e-3, "int8": 0.1}
MEL = {"fp32": 1e-4, "int8": 2e-2}
WAVEFORM = 1e-3  # -60 dB, fp32
DISTORTION_DB = 1.0

Arrays = dict[str, np.ndarray]
Found = dict[tuple[str, str, str], Arrays]


def probe(python: list[str], bundle: Path, runtime: str, result: Path, **extra: str) -> Arrays:
    """What one machine made of a bundle."""
    command = [*python, str(HERE / "probe.py"), str(bundle), runtime, str(result)]
    done = subprocess.run(
        command, env={**os.environ, **extra}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with np.load(result) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """Everything every machine made, the build host being the core `x86`."""
    if not (ENVIRONMENT / "python").exists():
        pytest.fail(f"{ENVIRONMENT} has no emulated Python; run: make test-arm64")
    folder = tmp_path_factory.mktemp("arm64")
    bundles = {}
    for precision in PRECISIONS:
        request = BuildRequest(
            "demo", ["android-arm64"], folder / precision, RUNTIMES, precision, ["zh"]
        )
        bundles[precision] = build(request)[0].bundle.folder

    def run(case: tuple[str, str, str]) -> Arrays:
        precision, runtime, core = case
        emulated = core != "x86"
        python = str(ENVIRONMENT / "python") if emulated else sys.executable
        result = folder / f"{'-'.join(case)}.npz"
        return probe([python], bundles[precision], runtime, result, ARM64_CPU=core)

    every = [*CASES, *((p, r, "x86") for p in PRECISIONS for r in RUNTIMES)]
    with ThreadPoolExecutor(2) as pool:
        results = dict(zip(every, pool.map(run, every), strict=True))
    yield results
    (ENVIRONMENT / "report.md").write_text(report(results), "utf-8")


def error(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / (np.linalg.norm(other) or 1.0))


def stages(arrays: Arrays) -> list[str]:
    return [name for name in arrays if name.startswith("stage/")]


def report(found: Found) -> str:
    """A table of what was found, with versions."""
    lines = ["# arm64 against x86", "", "Emulated: what is computed, not how fast.", ""]
    machines = {json.loads(str(arrays["machine"]))["engine"] for arrays in found.values()}
    guest: dict[str, Any] = json.loads(str(found[CASES[0]]["machine"]))
    lines.append(f"{guest['machine']}, Python {guest['python']}, numpy {guest['numpy']}; ")
    lines += [", ".join(sorted(machines)), ""]
    lines += ["| precision | runtime | core | greedy tokens | mel | audio | worst network |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for precision, runtime, core in CASES:
        arm, x86 = found[precision, runtime, core], found[precision, runtime, "x86"]
        same = "the same" if np.array_equal(arm["greedy"], x86["greedy"]) else "DIFFERENT"
        worst = max((error(arm[name], x86[name]), name) for name in stages(x86))
        distortion = mel_cepstral_distortion(arm["audio"], x86["audio"], RATE)
        sound = f"{error(arm['audio'], x86['audio']):.1e}, MCD {distortion:.2f} dB"
        columns = [precision, runtime, f"{core} ({CORES[core]})", same]
        columns += [f"{error(arm['mel'], x86['mel']):.1e}", sound]
        columns += [f"{worst[0]:.1e} {worst[1].removeprefix('stage/')}"]
        lines.append(f"| {' | '.join(columns)} |")
    return "\n".join([*lines, ""])


def each_case(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.parametrize(("precision", "runtime", "core"), CASES)(test)


@each_case
def test_greedy_tokens_are_the_same(found: Found, precision: str, runtime: str, core: str) -> None:
    arm, x86 = (found[precision, runtime, where]["greedy"] for where in (core, "x86"))
    assert len(x86) >= 25
    np.testing.assert_array_equal(arm, x86)


@each_case
def test_every_network_answers_alike(found: Found, precision: str, runtime: str, core: str) -> None:
    arm, x86 = found[precision, runtime, core], found[precision, runtime, "x86"]
    assert len(stages(x86)) >= 7
    for name in stages(x86):
        assert error(arm[name], x86[name]) <= STAGE[precision], name
    assert error(arm["mel"], x86["mel"]) <= MEL[precision]


@each_case
def test_it_sounds_alike(found: Found, precision: str, runtime: str, core: str) -> None:
    arm, x86 = found[precision, runtime, core], found[precision, runtime, "x86"]
    for name in ("audio", "host"):
        assert arm[name].shape == x86[name].shape
        assert np.isfinite(arm[name]).all()
        if precision == "fp32":
            assert error(arm[name], x86[name]) <= WAVEFORM
        one, other = (value.reshape(-1) for value in (arm[name], x86[name]))
        assert mel_cepstral_distortion(one, other, RATE) <= DISTORTION_DB


def test_the_guest_is_arm(found: Found) -> None:
    for case, arrays in found.items():
        machine = json.loads(str(arrays["machine"]))["machine"]
        assert machine == ("x86_64" if case[2] == "x86" else "aarch64")
