"""Bundles of the demo voice for GPUs, on this machine's CPU."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from support import Build

from edgepack.bundle.bundle import open_bundle
from edgepack.errors import UnsupportedError
from edgepack.profiles import target
from edgepack.runtime.gpu import description
from edgepack.runtime.gpu.placement import ON_CPU, Wanted
from edgepack.runtime.loading import load
from edgepack.runtime.synthesizer import LoadOptions, Synthesizer
from edgepack.verification import evaluation, gates

TARGETS = [name for name in target.names() if target.load(name).gpu]
# The options of onnxruntime-gpu 1.31's TensorRT provider that are used; strings of its library.
KNOWN = {
    "trt_engine_cache_enable", "trt_engine_cache_path", "trt_fp16_enable", "trt_int8_enable",
    "trt_layer_norm_fp32_fallback", "trt_max_workspace_size", "trt_op_types_to_exclude",
    "trt_profile_max_shapes", "trt_profile_min_shapes", "trt_profile_opt_shapes",
    "trt_timing_cache_enable", "trt_timing_cache_path",
}  # fmt: skip

FIRST = "jetson-orin"  # in the default suite
EACH = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n == FIRST else [pytest.mark.slow]) for n in TARGETS]
)


def described(folder: Path) -> description.Description:
    found = description.read(open_bundle(folder))
    assert found
    return found


def test_there_are_such_targets() -> None:
    assert {"jetson-nano", "jetson-orin"} <= set(TARGETS)


@EACH
def test_promises_are_the_profiles(bundle: Build, name: str) -> None:
    found, gpu = described(bundle("demo", name)), target.load(name).gpu
    assert gpu
    assert found.architecture == gpu.architecture
    assert found.releases == gpu.releases
    uses = open_bundle(bundle("demo", name)).manifest.uses
    assert {stage: s.provider for stage, s in found.stages.items()} == {
        stage: gpu.provider(use.role) for stage, use in uses.items()
    }


@EACH
def test_networks_are_fp16_with_islands(bundle: Build, name: str) -> None:
    folder = bundle("demo", name)
    for stage, on_gpu in described(folder).stages.items():
        if stage == "hift_source":
            assert on_gpu.precision == "fp32"
            continue
        assert on_gpu.fp16_nodes > 0
        recorded = json.loads((folder / on_gpu.islands).read_text("utf-8"))
        nodes = {node.name for node in onnx.load(
            folder / on_gpu.files[0], load_external_data=False).graph.node}  # fmt: skip
        assert set(recorded["islands"]) <= nodes
        assert ("embedding" in stage) == (not recorded["islands"])


@EACH
def test_options_are_known_and_there_is_no_engine(bundle: Build, name: str) -> None:
    folder = bundle("demo", name)
    for stage, on_gpu in described(folder).stages.items():
        options = on_gpu.options.get("tensorrt", {})
        assert set(options) <= KNOWN
        assert bool(options) == (on_gpu.provider == "tensorrt")
        if options:
            assert options["trt_fp16_enable"] == "1"
            assert options["trt_engine_cache_path"] == f"{description.CACHE}/{stage}"
            assert {"Exp", "Softmax"} <= set(options["trt_op_types_to_exclude"].split(","))
    assert not [p for p in folder.rglob("*") if p.suffix in (".engine", ".plan", ".profile")]


def shapes(text: str) -> dict[str, list[int]]:
    pairs = (entry.split(":") for entry in text.split(","))
    return {value: [int(n) for n in axes.split("x")] for value, axes in pairs}


def test_shapes_are_ordered_and_of_the_graph(bundle: Build) -> None:
    folder = bundle("demo", "jetson-orin")
    for stage in ("flow_encoder", "flow_estimator"):
        on_gpu = described(folder).stages[stage]
        least, usual, most = (
            shapes(on_gpu.options["tensorrt"][f"trt_profile_{end}_shapes"])
            for end in ("min", "opt", "max")
        )
        graph = onnx.load(folder / on_gpu.files[0], load_external_data=False).graph
        axes = {v.name: v.type.tensor_type.shape.dim for v in graph.input}
        changing = {name for name, dims in axes.items() if any(d.dim_param for d in dims)}
        assert set(least) == set(usual) == set(most) == changing
        for name in changing:
            for position, dim in enumerate(axes[name]):
                ends = [end[name][position] for end in (least, usual, most)]
                assert ends == sorted(ends)
                assert (ends[0] < ends[2]) == bool(dim.dim_param)
                assert dim.dim_param or ends[0] == dim.dim_value
    encoder, estimator = (
        shapes(described(folder).stages[stage].options["tensorrt"]["trt_profile_max_shapes"])
        for stage in ("flow_encoder", "flow_estimator")
    )
    assert encoder["tokens"] == [1, 1503]
    assert estimator["x"] == [1, 80, 3000]


@pytest.mark.slow
def test_the_nano_gets_an_opset_that_it_knows(bundle: Build) -> None:
    for path in (bundle("demo", "jetson-nano") / "ort").glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        assert [o.version for o in model.opset_import if o.domain == ""] == [16]
        assert model.ir_version == 8


@EACH
def test_it_speaks_on_the_cpu_if_that_is_asked_for(bundle: Build, name: str) -> None:
    folder = bundle("demo", name)
    speech = Synthesizer.load(folder, options=LoadOptions(wanted=ON_CPU)).speak("你好。")
    assert speech.audio_seconds > 0.3
    assert np.isfinite(speech.audio).all()


@pytest.mark.slow
@EACH
def test_it_passed_its_exam_and_does_again(bundle: Build, name: str) -> None:
    opened = open_bundle(bundle("demo", name))
    quality = opened.manifest.quality
    assert quality
    assert not quality.failed
    found = gates.examine(
        load(opened.folder, options=LoadOptions(wanted=ON_CPU)), evaluation.of(opened)
    )
    assert quality.limits["ort"]
    assert not gates.failures(found, quality.limits["ort"])


@pytest.mark.parametrize(
    "name", ["jetson-orin", pytest.param("nvidia-gpu", marks=pytest.mark.slow)]
)
def test_without_its_gpu_it_says_what_to_do(bundle: Build, name: str) -> None:
    with pytest.raises(UnsupportedError, match="--allow-fallback or --provider cpu"):
        Synthesizer.load(bundle("demo", name))


def recipes(folder: Path) -> dict[str, str]:
    stages = open_bundle(folder).manifest.stages
    return {name: stage.variants["ort"].recipe for name, stage in stages.items()}


@pytest.mark.slow
def test_int8_is_for_what_multiplies_it(bundle: Build) -> None:
    found = recipes(bundle("demo", "jetson-orin", "int8"))
    assert found["flow_estimator"] == "qdq-gpu"
    assert found["speech_lm"] == "fp16-islands"


@pytest.mark.slow
def test_int8_is_not_for_what_has_no_units_for_it(bundle: Build) -> None:
    assert recipes(bundle("demo", "jetson-nano", "int8"))["flow_estimator"] == "fp16-islands"


def test_a_bundle_for_the_cpu_can_be_asked_onto_a_gpu(bundle: Build) -> None:
    with pytest.raises(UnsupportedError, match="cuda is not in this ONNX Runtime"):
        load(bundle("demo"), "ort", options=LoadOptions(wanted=Wanted("cuda")))
