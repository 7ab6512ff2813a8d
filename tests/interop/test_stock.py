"""Every network of the demo voice in the engine of its format, which knows nothing of edgepack."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from linked import linked
from support import Build

from edgepack.bundle.bundle import Bundle
from edgepack.runtime.loading import Host, open_stage
from edgepack.verification import selftest
from interop import SECONDS, answers

pytestmark = pytest.mark.interop

STAGES = [
    "text_embedding", "speech_embedding", "speech_lm", "flow_encoder", "flow_time",
    "flow_estimator", "hift_source", "hift",
]  # fmt: skip
BENCHMARK = Path(sys.executable).with_name("benchmark_app")


@pytest.fixture(params=["intel-cpu", "android-arm64"])
def demo(request: pytest.FixtureRequest, bundle: Build, tmp_path: Path) -> Bundle:
    return linked(bundle("demo", request.param, "fp32"), tmp_path)


@pytest.mark.parametrize(
    ("script", "runtime"), [("run_onnx.py", "ort"), ("run_tflite.py", "tflite")]
)
def test_another_engine_answers_as_ours_and_as_the_hub(
    demo: Bundle, tmp_path: Path, script: str, runtime: str
) -> None:
    calls = selftest.read(demo)
    assert set(calls) == set(demo.manifest.stages) == set(STAGES)
    (tmp_path / "calls").mkdir()
    found = answers(script, demo, runtime, calls, tmp_path / "calls")
    for stage, recorded in calls.items():
        session = open_stage(demo, stage, Host(runtime, 1))
        ours = selftest.execute(session, [call.feeds for call in recorded])
        limit = selftest.limit(demo.manifest.stages[stage].use, "fp32")
        for call, one, other in zip(recorded, found[stage], ours, strict=True):
            assert one.keys() == other.keys()
            for name, value in one.items():
                assert selftest.relative_error(value, other[name]) <= limit, (stage, name)
            for name, value in call.outputs.items():
                assert selftest.relative_error(one[name], value) <= limit, (stage, name)


def test_the_demo_has_files_of_both_containers(bundle: Build) -> None:
    """So that the test above opens some of each."""
    kinds = {
        path.suffix
        for target in ("intel-cpu", "android-arm64")
        for path in Path(bundle("demo", target, "fp32")).glob("*/*.*")
    }
    assert {".onnx", ".ort", ".tflite", ".xml"} <= kinds


@pytest.mark.parametrize("stage", STAGES)
def test_benchmark_app_runs_the_ir(bundle: Build, tmp_path: Path, stage: str) -> None:
    demo = linked(bundle("demo", "intel-cpu", "fp32"), tmp_path)
    network = demo.path(demo.manifest.stages[stage].variants["openvino"].files[0])
    feeds = selftest.read(demo)[stage][0].feeds
    files, shapes = [], []
    for name, value in feeds.items():
        np.save(tmp_path / f"{name}.npy", value)
        files.append(f"{name}:{tmp_path / name}.npy")
        shapes.append(f"{name}{list(value.shape)}".replace(" ", ""))
    ran = subprocess.run(
        [str(BENCHMARK), "-m", str(network), "-i", ",".join(files), "-data_shape", ",".join(shapes),
         "-hint", "none", "-nireq", "1", "-niter", "2"],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Count:            2 iterations" in ran.stdout
