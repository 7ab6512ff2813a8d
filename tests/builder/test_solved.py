"""The calibrated solver of a bundle: its figures, its gate, its use, on the build's own path."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support import RUNTIMES, Build, shuffled

from edgepack.builder.calibration.exact import HELD_OUT
from edgepack.builder.pipeline import build
from edgepack.builder.planning import BuildRequest
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.errors import GateError, UsageError
from edgepack.runtime.loading import load
from edgepack.runtime.synthesizer import Settings, Synthesizer
from edgepack.verification.quality import mel_cepstral_distortion

TEXT = "今天天气很好，我们一起去公园散步吧。"


@pytest.fixture(autouse=True)
def use_cache(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "cache"))


def request(int8_demo: Bundle, output: Path, **options: object) -> BuildRequest:
    """A build that repeats the recipes of `int8_demo` in ONNX Runtime."""
    made = BuildRequest(
        "demo", ["intel-cpu"], output, ["ort"], precision="int8", recipe=int8_demo.folder
    )
    return replace(made, languages=["zh"], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_ten_evaluations_are_as_exact_as_twenty(int8_demo: Bundle, runtime: str) -> None:
    found = int8_demo.manifest.solvers[runtime]
    assert found.utterances == HELD_OUT
    assert found.accuracy.evaluations == found.solver.evaluations <= 10
    assert found.accuracy.decibel <= found.limit == found.euler.decibel
    assert found.euler.evaluations == 20
    assert {point.evaluations for point in found.curve} == {5, 6, 7, 8, 9, 10}
    assert found.curve[-1].decibel < found.curve[0].decibel


def test_a_bundle_of_fp32_has_the_solver_of_the_checkpoint(bundle: Build) -> None:
    opened = open_bundle(bundle("demo"))
    assert opened.manifest.solvers == {}
    loaded = load(opened.folder, "ort", 2)
    assert loaded.solver().evaluations == 20
    with pytest.raises(UsageError, match="--solver reference"):
        loaded.solver("calibrated")
    with pytest.raises(UsageError, match="did you mean 'reference'"):
        loaded.solver("referense")


@pytest.mark.slow
def test_the_gate_refuses_a_shuffled_table(int8_demo: Bundle, tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    right = int8_demo.manifest.solvers["ort"].solver
    table.write_bytes(msgspec.json.encode(shuffled(right)))
    wanted = request(int8_demo, tmp_path / "wrong", solver=str(table))
    with pytest.raises(GateError, match=r"ort: solver_error is .*at most"):
        build(wanted)
    assert not list(tmp_path.glob("wrong/*/manifest.json"))


@pytest.mark.slow
def test_a_rebuild_repeats_the_table_and_may_have_another(
    int8_demo: Bundle, tmp_path: Path
) -> None:
    (again,) = build(request(int8_demo, tmp_path))
    assert again.bundle.manifest.solvers["ort"].solver == int8_demo.manifest.solvers["ort"].solver
    with pytest.raises(UsageError, match="--force"):
        build(request(int8_demo, tmp_path, solver="reference"))
    (plain,) = build(request(int8_demo, tmp_path, solver="reference", force=True))
    assert plain.bundle.manifest.solvers == {}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[]", "a JSON file with steps"),
        ("\xff", "a JSON file with steps"),
        ("[" * 100_000, "a JSON file with steps"),
        ('{"steps": []}', "length >= 1"),
        (
            '{"steps": [{"time": 0.5, "guided": false, "conditional": [1], "free": []}]}',
            "rise from 0",
        ),
        (
            '{"steps": [{"time": 0, "guided": true, "conditional": [1], "free": []}]}',
            "lacks the weight",
        ),
    ],
)
def test_a_table_that_is_none_is_a_usage_error(
    int8_demo: Bundle, tmp_path: Path, content: str, problem: str
) -> None:
    table = tmp_path / "table.json"
    table.write_text(content, "latin-1")
    with pytest.raises(UsageError, match=problem):
        build(request(int8_demo, tmp_path, solver=str(table)))


def test_the_solver_is_a_choice_of_the_run(int8_demo: Bundle) -> None:
    synthesizer = Synthesizer.load(int8_demo.folder, "ort", 2)
    spoken = {
        name: synthesizer.speak(TEXT, Settings(solver=name))
        for name in ("auto", "calibrated", "reference")
    }
    np.testing.assert_array_equal(spoken["auto"].audio, spoken["calibrated"].audio)
    one, other = (spoken[name].audio for name in ("calibrated", "reference"))
    assert not np.array_equal(one, other)
    assert mel_cepstral_distortion(one, other, 24000) < 2.0
    times = [spoken[name].stages["flow_estimator"] for name in ("calibrated", "reference")]
    assert times[0] < times[1]
    with pytest.raises(UsageError, match="--steps are of the reference solver"):
        synthesizer.speak(TEXT, Settings(solver="calibrated", steps=3))
