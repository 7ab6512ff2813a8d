"""Which provider a network gets, what is promised, and what a fallback says."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from linked import linked
from support import Build

from edgepack.bundle.bundle import Bundle, open_bundle, stored
from edgepack.errors import IntegrityError, UnsupportedError, UsageError
from edgepack.machine.gpu_stack import Stack
from edgepack.runtime.engines.session import Placed
from edgepack.runtime.gpu import description, engine_cache, placement
from edgepack.runtime.gpu.description import Description, StageOnGpu
from edgepack.runtime.gpu.placement import AS_PROMISED, Placement, Wanted

STACK = Stack("36.4.3", "10.3.0", "12.6", "sm_87", "1.20.0")
ALL = ("tensorrt", "cuda", "cpu")


def on_gpu(provider: str, stage: str) -> StageOnGpu:
    options = {
        "tensorrt": {"trt_fp16_enable": "1", "trt_engine_cache_path": f"{{cache}}/{stage}"},
        "cuda": {"use_tf32": "0"},
    }
    return StageOnGpu(
        provider=provider, files=("a.onnx",), model="ab" * 32, precision="fp16", fp16_nodes=2,
        fp32_nodes=1, islands="", options=options,
    )  # fmt: skip


PROMISES = Description(
    schema=description.SCHEMA,
    architecture="sm_87",
    releases=(),
    stages={"a": on_gpu("tensorrt", "a"), "b": on_gpu("cuda", "b")},
)


def placed(available: Sequence[str] = ALL, wanted: Wanted = AS_PROMISED) -> Placement:
    return Placement(wanted, PROMISES, STACK, available)


@pytest.fixture(autouse=True)
def _engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def names(made: Placement, stage: str) -> list[str]:
    found = made.accelerator(stage)
    return [name for name, _ in found.providers] if found else []


def test_the_order_is_tensorrt_then_cuda() -> None:
    assert names(placed(), "a") == ["tensorrt", "cuda"]
    assert names(placed(), "b") == ["cuda"]
    assert names(placed(), "unheard of") == []


def test_options_name_this_devices_engine_folder(tmp_path: Path) -> None:
    found = placed().accelerator("a")
    assert found
    options = dict(found.providers)["tensorrt"]
    engines = Path(options["trt_engine_cache_path"])
    assert engines.is_relative_to(tmp_path / "edgepack/engines")
    assert engines.name == "a"
    assert engines.parent.is_dir()


def test_building_an_engine_is_announced_once() -> None:
    said: list[str] = []
    made = placed(wanted=Wanted(announce=said.append))
    found = made.accelerator("a")
    assert said == ["a: building a TensorRT engine, minutes, but only once"]
    assert found
    Path(dict(found.providers)["tensorrt"]["trt_engine_cache_path"]).mkdir()
    made.accelerator("a")
    assert len(said) == 1


def test_a_provider_that_is_missing_is_an_error() -> None:
    with pytest.raises(UnsupportedError) as caught:
        placed(["cpu"]).accelerator("b")
    message = str(caught.value)
    assert message.startswith("b: cuda is not in this ONNX Runtime 1.20.0, which has cpu")
    assert message.endswith("or give --allow-fallback or --provider cpu")


def test_a_fallback_that_is_allowed_is_reported_with_its_networks() -> None:
    made = placed(["cpu"], Wanted(allow_fallback=True))
    for stage in ("a", "b"):
        assert made.accelerator(stage) is None
        made.settle(stage, Placed("cpu", {"cpu": 9}))
    warnings = made.warnings()
    assert len(warnings) == 2
    assert warnings[0].startswith("fallback: a: tensorrt is not in this ONNX Runtime")
    assert made.record()["stages"]["a"] == {
        "promised": "tensorrt", "used": "cpu", "operators": {"cpu": 9},
    }  # fmt: skip


def test_tensorrt_may_be_replaced_by_cuda() -> None:
    made = placed(["cuda", "cpu"], Wanted(allow_fallback=True))
    assert names(made, "a") == ["cuda"]
    with pytest.raises(UnsupportedError, match="tensorrt is not in this"):
        placed(["cuda", "cpu"]).accelerator("a")


def test_a_network_that_ended_up_elsewhere_is_an_error() -> None:
    with pytest.raises(UnsupportedError, match=r"a: tensorrt was not used but cuda \(operators: 7"):
        placed().settle("a", Placed("cuda", {"cuda": 7}))
    allowed = placed(wanted=Wanted(allow_fallback=True))
    allowed.settle("a", Placed("cuda", {"cuda": 7}))
    assert "a: tensorrt was not used but cuda" in allowed.warnings()[0]


def test_the_cpu_as_asked_for_is_no_fallback() -> None:
    made = placed(wanted=Wanted("cpu"))
    assert names(made, "a") == []
    made.settle("a", Placed("cpu", {}))
    assert not made.accelerated
    assert made.warnings() == ["a bundle for a GPU on the CPU, as asked for: a smoke test, slow"]


def test_reruns_are_reported() -> None:
    made = placed()
    made.reruns.not_finite["a"] += 2
    made.reruns.refused["b"] += 1
    assert made.warnings() == [
        "a: 2 calls were not finite in fp16 and were repeated in fp32",
        "b: 1 calls were refused in fp16 by the GPU's libraries and were repeated in fp32",
    ]
    assert made.record()["fp32_reruns"] == {"not_finite": {"a": 2}, "refused": {"b": 1}}


def test_a_bundle_for_no_gpu_is_on_the_cpu(bundle: Build) -> None:
    opened = open_bundle(bundle("tiny"))
    made = placement.place(opened, "ort", Wanted())
    assert made.promises is None
    assert not made.accelerated
    assert made.warnings() == []
    asked = placement.place(opened, "ort", Wanted("cuda", allow_fallback=True))
    assert asked.provider("flow_estimator") == "cuda"


def test_other_engines_have_no_gpu(bundle: Build) -> None:
    with pytest.raises(UsageError, match="openvino computes on the CPU"):
        placement.place(open_bundle(bundle("tiny")), "openvino", Wanted("cuda"))


def test_a_provider_that_is_none(bundle: Build) -> None:
    with pytest.raises(UsageError, match="did you mean 'cuda'"):
        placement.place(open_bundle(bundle("tiny")), "ort", Wanted("cud"))


def test_a_description_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / description.FILE
    assert description.parse(description.encode(PROMISES), path) == PROMISES


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", "\xff", description.encode(PROMISES).decode().replace("trt/1", "trt/9")],
)
def test_a_description_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / description.FILE
    with pytest.raises(IntegrityError, match=r"trt\.json"):
        description.parse(text.encode("latin-1"), path)


HOSTILE = [
    ("tensorrt", "trt_extra_plugin_lib_paths", "/tmp/evil.so"),
    ("tensorrt", "trt_engine_cache_path", "/home/user"),
    ("tensorrt", "trt_engine_cache_path", "{cache}/../../.."),
    ("tensorrt", "trt_engine_cache_path", "{cache}/b"),
    ("tensorrt", "trt_timing_cache_path", "/home/user"),
    ("tensorrt", "trt_engine_decryption_lib_path", "evil.so"),
    ("tensorrt", "trt_ep_context_file_path", "/home/user"),
    ("tensorrt", "trt_dump_ep_context_model", "1"),
    ("tensorrt", "trt_onnx_model_folder_path", "/"),
    ("tensorrt", "trt_max_workspace_size", "-1"),
    ("tensorrt", "trt_max_workspace_size", "9" * 30),
    ("tensorrt", "trt_op_types_to_exclude", "A;B"),
    ("tensorrt", "trt_profile_min_shapes", "x:1x-1"),
    ("tensorrt", "trt_profile_min_shapes", "x:" + "9" * 30),
    ("tensorrt", "trt_fp16_enable", "2"),
    ("tensorrt", "trt_fp16_enable", "1\n"),
    ("cuda", "gpu_external_alloc", "140737488355328"),
    ("cuda", "user_compute_stream", "140737488355328"),
    ("cuda", "has_user_compute_stream", "1"),
    ("cuda", "gpu_mem_limit", "1"),
    ("cuda", "enable_cuda_graph", "1"),
    ("cuda", "arena_extend_strategy", "kOther"),
    ("cpu", "use_tf32", "0"),
    ("openvino", "cache_dir", "/home/user"),
]


@pytest.mark.parametrize(("provider", "option", "value"), HOSTILE)
def test_options_that_load_or_write_anything_else_are_refused(
    tmp_path: Path, provider: str, option: str, value: str
) -> None:
    """A bundle is data: it names no libraries, no folders and no addresses."""
    options = {provider: {option: value}}
    stages = {"a": msgspec.structs.replace(PROMISES.stages["a"], options=options)}
    found = msgspec.structs.replace(PROMISES, stages=stages)
    with pytest.raises(IntegrityError, match=r"trt\.json"):
        description.parse(description.encode(found), tmp_path / "trt.json")


@pytest.mark.parametrize("name", ["../a", "a/b", "", "a\0"])
def test_a_network_whose_name_is_a_path_is_refused(tmp_path: Path, name: str) -> None:
    found = msgspec.structs.replace(PROMISES, stages={name: on_gpu("tensorrt", name)})
    with pytest.raises(IntegrityError, match=r"trt\.json"):
        description.parse(description.encode(found), tmp_path / "trt.json")


def described(bundle: Bundle, **changes: object) -> Bundle:
    """A bundle with a description of one network's use of a GPU."""
    files = bundle.manifest.stages["hift"].variants["ort"].files
    hashes = [bundle.manifest.files[file].sha256 for file in files]
    honest = msgspec.structs.replace(
        on_gpu("tensorrt", "hift"), files=files, model=description.of_files(hashes)
    )
    stage = msgspec.structs.replace(honest, **changes)
    found = msgspec.structs.replace(PROMISES, stages={"hift": stage})
    path = bundle.folder / description.FILE
    path.write_bytes(description.encode(found))
    listed = bundle.manifest.files | {description.FILE: stored(path)}
    return bundle.with_manifest(msgspec.structs.replace(bundle.manifest, files=listed))


def test_engines_are_kept_by_the_hashes_of_files(bundle: Build, tmp_path: Path) -> None:
    """Another bundle cannot say that its engines are those of this one."""
    own = linked(bundle("tiny"), tmp_path)
    read = description.read(described(own))
    assert read
    with pytest.raises(IntegrityError, match="hift is not about the files of this bundle"):
        description.read(described(own, model="ab" * 32))
    others = own.manifest.stages["speech_lm"].variants["openvino"].files
    with pytest.raises(IntegrityError, match="hift is not a network of this bundle"):
        description.read(described(own, files=(*others, "tokenizer.json")))
    folders = set()
    for options in ({}, {"trt_fp16_enable": "1"}, {"trt_fp16_enable": "0"}):
        folders.add(engine_cache.folder(read.stages["hift"].model, options, STACK))
    assert len(folders) == 3


def test_what_is_wanted_of_a_gpu_that_is_not_the_bundles() -> None:
    made = replace(placed(), stack=replace(STACK, gpu="sm_72"))
    with pytest.raises(UnsupportedError, match="this GPU is sm_72"):
        made.require_fit()
