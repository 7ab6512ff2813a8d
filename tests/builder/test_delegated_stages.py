"""A stage of one runtime that another one runs, and attention as one operator of ONNX Runtime."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from linked import linked
from support import Build

from edgepack.bench import measure
from edgepack.bench.request import MeasureRequest
from edgepack.builder.backends._ort_attention import fuse_attention
from edgepack.builder.hub import author
from edgepack.builder.pipeline import build
from edgepack.builder.planning import BuildRequest
from edgepack.bundle.bundle import Bundle, open_bundle
from edgepack.errors import UnsupportedError, UsageError
from edgepack.machine.cpu.plan import current
from edgepack.machine.probe import Machine
from edgepack.model.checkpoint.folder import open_checkpoint
from edgepack.profiles import recipe, target
from edgepack.report import silent
from edgepack.runtime.engines.session import Options, engine
from edgepack.runtime.loading import load
from edgepack.runtime.synthesizer import Synthesizer
from edgepack.verification.selftest import relative_error

RECIPE = "ort: {hift: tflite/fp16, default: fp32}"
FEW, MANY = 40, 90


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "recipe.yaml").write_text(RECIPE)
    request = BuildRequest("demo", ["intel-cpu"], folder, ["ort"], recipe=folder / "recipe.yaml")
    return build(replace(request, languages=["zh"]))[0].bundle


def test_a_guest_runs_its_stage(mixed: Bundle, bundle: Build) -> None:
    variant = mixed.manifest.stages["hift"].variants["ort"]
    assert variant.engine == "tflite"
    assert variant.files == ("ort/hift.tflite",)
    assert mixed.manifest.stages["flow_estimator"].variants["ort"].engine == ""
    own = Synthesizer.load(bundle("demo"), "ort", 2)
    tokens = own.speak("你好，世界。").utterances[0].decoded.speech_tokens
    one, other = (s.speak_tokens(tokens).audio for s in (own, Synthesizer.load(mixed.folder)))
    error = np.linalg.norm(one - other) / np.linalg.norm(one)
    assert error < 0.01  # weights have 11 bits


def test_a_profile_has_every_stage_but_those_of_a_guest_without_times(mixed: Bundle) -> None:
    """The host's stages on both sides of the guest's; the guest is named, not the runtime."""
    request = MeasureRequest(
        ((mixed.folder, "ort"),), current(), ("你好。",), rounds=1, profile=True, long_texts=0
    )
    (subject,) = measure.run(request, silent, Machine()).subjects
    assert set(subject.operators) == set(mixed.manifest.stages) - {"hift"}
    assert all(sum(seconds.values()) > 0 for seconds in subject.operators.values())
    assert subject.operators_missing == "tflite gives no times of operators (hift)"


def test_a_missing_guest_is_named(
    mixed: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    for package in ("ai_edge_litert", "tensorflow"):
        monkeypatch.setitem(sys.modules, package, None)
    folder = linked(mixed.folder, tmp_path).folder
    for runtime in ("ort", None):
        with pytest.raises(UnsupportedError, match=r"pip install 'edgepack\[tflite\]'") as raised:
            load(folder, runtime, 1)
        assert str(raised.value).startswith(f"{folder}: its ort files leave hift to tflite")


def test_recipes_of_guests_are_tried_last() -> None:
    profile = target.load("intel-cpu")
    options = profile.runtimes["openvino"]
    names = recipe.candidates(
        "openvino", "vocoder", "int8", profile.isa, options.delegates_of("vocoder")
    )
    assert names == ["fp32", "fp16", "ort/fp32", "ort/fp16", "tflite/fp32", "tflite/fp16"]
    assert [recipe.named("openvino", name).engine for name in names[::2]] == [
        "openvino", "ort", "tflite",
    ]  # fmt: skip
    assert options.delegates_of("language_model") == []


@pytest.mark.parametrize("name", ["litert/fp32", "tflite/fp64", "fp64"])
def test_an_unknown_recipe_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="unknown"):
        recipe.named("ort", name)


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The estimator of the demo voice, as in the hub."""
    from importlib import resources

    folder = tmp_path_factory.mktemp("hub")
    demo = open_checkpoint(Path(str(resources.files("edgepack") / "demo_voice")))
    author(demo, None, folder, silent)
    return folder / "flow_estimator.onnx"


def feeds(model: Path, frames: int, chunk: int, rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in onnx.load(model, load_external_data=False).graph.input
    }

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    mels = shapes["x"][1]
    return {
        **{name: draw(rows, mels, frames) for name in ("mu", "cond")}, "x": draw(1, mels, frames),
        "spk": draw(rows, mels), "shift": draw(1, shapes["shift"][1]),
        "step": np.full(rows, 0.1, np.float32), "chunk": np.array([chunk], np.int64),
    }  # fmt: skip


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("chunk", [MANY, 25])
@pytest.mark.parametrize("frames", [FEW, MANY])
def test_fused_attention_is_the_same(
    estimator: Path, tmp_path: Path, frames: int, chunk: int, rows: int
) -> None:
    fused = tmp_path / estimator.name
    (tmp_path / f"{estimator.name}.data").hardlink_to(f"{estimator}.data")
    assert fuse_attention(estimator, fused)
    given = feeds(estimator, frames, chunk, rows)
    sessions = [engine("ort").open(path, (), Options(1)) for path in (estimator, fused)]
    one, other = (session.run(given) for session in sessions)
    assert relative_error(other["velocity"], one["velocity"]) < 1e-5
    assert relative_error(other["next"], one["next"]) < 1e-5


def test_every_attention_of_the_estimator_is_fused(bundle: Build) -> None:
    opened = open_bundle(bundle("demo"))
    stage = opened.manifest.stages["flow_estimator"]
    path = opened.path(stage.variants["ort"].files[0])
    graph = onnx.load(path, load_external_data=False).graph
    branches = [n for n in graph.node if n.op_type == "If"]
    assert len(branches) == stage.operators["Softmax"]
    assert "Softmax" not in {n.op_type for n in graph.node}


def test_what_has_no_attention_stays_as_it_is(estimator: Path, tmp_path: Path) -> None:
    vocoder = estimator.with_name("hift.onnx")
    assert not fuse_attention(vocoder, tmp_path / "hift.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_keeps_the_operators_of_onnx() -> None:
    for name in ("nvidia-gpu", "jetson-orin", "jetson-nano"):
        assert not target.load(name).runtimes["ort"].fuse
