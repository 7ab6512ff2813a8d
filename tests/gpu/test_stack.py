"""What is found out about a Jetson: trees of JetPack 4 to 7, and what does not fit together."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from energy.fakes import machine
from trees import grow

from edgepack.machine.gpu_stack import Stack, problems, read, same, version
from edgepack.profiles import target
from edgepack.runtime.gpu import engine_cache

LIBRARIES = "usr/lib/aarch64-linux-gnu"
JETPACKS: dict[str, tuple[dict[str, object], Stack]] = {
    "4.6.1, Nano": (
        {
            "etc/nv_tegra_release": "# R32 (release), REVISION: 7.1, GCID: 29818004",
            "proc/device-tree/compatible": "nvidia,p3450-0000\0nvidia,tegra210",
            "usr/local/cuda/version.txt": "CUDA Version 10.2.300",
            f"{LIBRARIES}/libnvinfer.so.8": "",
            f"{LIBRARIES}/libnvinfer.so.8.2.1": "",
        },
        Stack("32.7.1", "8.2.1", "10.2.300", "sm_53", "1.11.0"),
    ),
    "5.1.2, Xavier": (
        {
            "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178",
            "proc/device-tree/compatible": "nvidia,p3668-0000\0nvidia,tegra194",
            "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "11.4.19"}}',
            f"{LIBRARIES}/libnvinfer.so.8": "",
            f"{LIBRARIES}/libnvinfer.so.8.5.2": "",
        },
        Stack("35.4.1", "8.5.2", "11.4.19", "sm_72", "1.16.0"),
    ),
    "6.2, Orin": (
        {
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081",
            "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234",
            "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}',
            f"{LIBRARIES}/libnvinfer.so.10": "",
            f"{LIBRARIES}/libnvinfer.so.10.3.0": "",
        },
        Stack("36.4.3", "10.3.0", "12.6.11", "sm_87", "1.20.0"),
    ),
    "7.0, Thor": (
        {
            "etc/nv_tegra_release": "# R38 (release), REVISION: 2.0, GCID: 41844464",
            "proc/device-tree/compatible": "nvidia,p3971-0080+p3834-0008\0nvidia,tegra264",
            "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "13.0.48"}}',
            f"{LIBRARIES}/libnvinfer.so.10.13.3": "",
        },
        Stack("38.2.0", "10.13.3", "13.0.48", "sm_110", "1.23.0"),
    ),
}
ORIN = JETPACKS["6.2, Orin"][1]


@pytest.mark.parametrize("name", JETPACKS)
def test_what_a_jetson_has(tmp_path: Path, name: str) -> None:
    files, wanted = JETPACKS[name]
    assert read(machine(grow(tmp_path, files)), wanted.onnxruntime) == wanted
    assert wanted.jetson


def test_a_machine_without_any_of_it(tmp_path: Path) -> None:
    found = read(machine(tmp_path), "1.32.0")
    assert (found.l4t, found.tensorrt, found.cuda, found.jetson) == ("", "", "", False)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cuda": 3}', '{"cuda": {}}', "\x00"])
def test_a_file_that_says_nothing(tmp_path: Path, text: str) -> None:
    files = {"usr/local/cuda/version.json": text, "etc/nv_tegra_release": text}
    found = read(machine(grow(tmp_path, files)), "1")
    assert (found.cuda, found.l4t) == ("", "")


def told(stack: Stack, name: str = "jetson-orin") -> list[str]:
    gpu = target.load(name).gpu
    assert gpu
    return problems(stack, gpu.releases, gpu.architecture)


def test_what_belongs_together_has_no_problem() -> None:
    assert told(ORIN) == []
    assert told(JETPACKS["4.6.1, Nano"][1], "jetson-nano") == []


def test_a_bundle_for_any_gpu_has_no_problem() -> None:
    assert told(Stack(gpu="sm_90", onnxruntime="1.31.1"), "nvidia-gpu") == []


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        (replace(ORIN, gpu="sm_72"), "this GPU is sm_72, the bundle is for sm_87"),
        (replace(ORIN, l4t="35.4.1"), "L4T 35.4.1 is not of a JetPack that the bundle is for: 6.1"),
        (replace(ORIN, l4t=""), "this is no Jetson"),
        (replace(ORIN, tensorrt="8.6.2"), "comes with TensorRT 10.3, found 8.6.2"),
        (replace(ORIN, tensorrt=""), "TensorRT 10.3 is missing"),
        (replace(ORIN, cuda="12.2.140"), "comes with CUDA 12.6, found 12.2.140"),
        (
            replace(ORIN, onnxruntime="1.16.3"),
            "ONNX Runtime 1.16.3 was not made for TensorRT 10.3; JetPack 6.1 (L4T 36.4.3) needs "
            "1.18 or newer, built for it",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_said(stack: Stack, words: str) -> None:
    (problem,) = told(stack)
    assert words in problem


def test_every_mismatch_has_its_line() -> None:
    assert (
        len(told(replace(ORIN, gpu="sm_72", tensorrt="8.6", cuda="11.4", onnxruntime="1.2"))) == 4
    )


def test_versions() -> None:
    assert version("1.18.0+cu126") == (1, 18, 0)
    assert version("10") == (10,)
    assert version("") == version("x") == ()
    assert same("10.3.0.30", "10.3")
    assert not same("10.30.1", "10.3")
    assert not same("10", "10.3")


@pytest.mark.parametrize("field", [field.name for field in fields(Stack)])
def test_an_engine_is_for_one_stack(field: str) -> None:
    assert engine_cache.key("m", {}, ORIN) == engine_cache.key("m", {}, replace(ORIN))
    assert engine_cache.key("m", {}, replace(ORIN, **{field: "other"})) != engine_cache.key(
        "m", {}, ORIN
    )


def test_an_engine_is_for_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    one, other = engine_cache.folder("m", {}, ORIN), engine_cache.folder("n", {}, ORIN)
    assert one != other
    assert one.parent == other.parent == tmp_path / "edgepack/engines"
