"""TensorFlow beside edgepack: its interpreter as the engine, and its analyzer in `inspect`."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from linked import linked
from support import GOLDEN, Build

pytestmark = pytest.mark.interop

ENTRY = """
import sys
for name in {absent!r}:
    sys.modules[name] = None
from edgepack.__main__ import entry
entry()
"""
DEMO = ("demo", "intel-cpu", "fp32")
RECORDED = "cosyvoice2-s1"
LITERT = ("ai_edge_litert",)


def edgepack(
    *arguments: object, absent: Sequence[str] = LITERT
) -> "subprocess.CompletedProcess[str]":
    """`edgepack ARGUMENTS…` in a process where packages are not to be had."""
    command = [sys.executable, "-c", ENTRY.format(absent=tuple(absent)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_litert_is_taken_where_both_are_installed(bundle: Build) -> None:
    told = edgepack("doctor", "--json", absent=())
    assert re.match(r"[\d.]+$", json.loads(told.stdout)["runtimes"]["tflite"]["version"])
    instead = edgepack("doctor", "--json")
    assert instead.stderr == ""
    version = json.loads(instead.stdout)["runtimes"]["tflite"]["version"]
    assert re.match(r"[\d.]+ \(TensorFlow\)$", version)
    neither = edgepack(
        "verify",
        bundle(*DEMO),
        "--format",
        "tflite",
        absent=(*LITERT, "tensorflow"),
    )
    assert neither.returncode == 3
    assert "ai_edge_litert is not installed; pip install 'edgepack[tflite]'" in neither.stderr


def test_it_speaks_as_litert_does_and_says_nothing(bundle: Build, tmp_path: Path) -> None:
    """With the same speech tokens, threads and CPUs."""
    told = []
    for absent in (LITERT, ()):
        ran = edgepack(
            "run", bundle(*DEMO), "Good morning.", "--format", "tflite", "--seed", "1", "--cpus",
            "0", "--threads", "1", "-o", tmp_path / "a.wav", "--json", absent=absent,
        )  # fmt: skip
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
        told.append(json.loads(ran.stdout))
    one, other = told
    assert "TensorFlow" in one["runtime_version"]
    for key in ("runtime", "audio_seconds", "threads", "cpus"):
        assert one[key] == other[key]
    assert one["audio_seconds"] > 0.3


def test_it_calls_nobody_and_leaves_one_file(tmp_path: Path) -> None:
    """docs/tflite.md names the file."""
    trace, home = tmp_path / "trace", tmp_path / "home"
    home.mkdir()
    script = ENTRY.format(absent=(*LITERT, "matplotlib"))
    command = [sys.executable, "-c", script, "doctor", "--quiet"]
    strace = shutil.which("strace")
    if strace and subprocess.run([strace, "-o", os.devnull, "true"], check=False).returncode:
        strace = None  # not allowed here; files are looked for in any case
    if strace:
        command = [strace, "-f", "-e", "trace=connect,sendto,sendmsg", "-o", str(trace), *command]
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    left = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    assert left == [".keras/keras.json"]
    assert not strace or "AF_INET" not in trace.read_text("utf-8")


def test_it_holds_to_the_original(bundle: Build) -> None:
    """fp32 networks against recordings of the original implementation, with its own limits."""
    ran = edgepack(
        "verify", bundle(RECORDED), "--format", "tflite", "--against", GOLDEN / RECORDED, "--json"
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["passed"] is True


def test_what_the_analyzer_says_is_told_with_what_it_is_worth(
    bundle: Build, tmp_path: Path
) -> None:
    demo = linked(bundle(*DEMO), tmp_path)
    told = edgepack("inspect", demo.folder, "--json")
    assert (told.returncode, told.stderr) == (0, "")
    found = json.loads(told.stdout)["gpu_delegate"]
    files = {name for name in demo.manifest.files if name.endswith(".tflite")}
    assert set(found["networks"]) == files
    assert all(network["operators"] for network in found["networks"].values())
    assert re.match(r"\d+\.\d+", found["tensorflow"])
    shown = edgepack("inspect", demo.folder).stdout
    for name in files:
        assert name in shown
    warned = found["networks"]["tflite/flow_encoder.tflite"]["warnings"]
    if found["checked"]:  # not by TensorFlow 2.21
        assert warned["Not supported op SHAPE"]
        assert found["reason"] is None
    else:
        assert not warned
        assert "looks at no operator" in found["reason"]
        assert "not known; the analyzer of TensorFlow" in shown


def test_a_file_that_the_analyzer_crashes_over_is_one_line(bundle: Build, tmp_path: Path) -> None:
    """Listed with its hash, so that only its content is wrong."""
    import msgspec

    from edgepack.bundle import bundle as bundles

    demo = linked(bundle(*DEMO), tmp_path)
    name = "tflite/flow_time.tflite"
    path = demo.folder / name
    content = bytearray(path.read_bytes())
    path.unlink()
    content[0:4] = b"\xff\xff\xff\x7f"  # where the root table is
    path.write_bytes(content)
    files = {**demo.manifest.files, name: bundles.stored(path)}
    demo.with_manifest(msgspec.structs.replace(demo.manifest, files=files))
    told = edgepack("inspect", demo.folder)
    assert told.returncode == 4, told.stderr
    *_, last = told.stderr.splitlines()
    assert "what reads it crashed" in last
    assert "Traceback" not in told.stderr


def test_onnx_tf_cannot_be_used(tmp_path: Path) -> None:
    """docs/tflite.md says so: its last release does not import with the onnx of this project."""
    options = ["--no-deps", "--quiet", "--disable-pip-version-check", "--target", str(tmp_path)]
    pip = [sys.executable, "-m", "pip", "install", *options, "onnx-tf"]
    subprocess.run(pip, check=True, capture_output=True)
    assert [path.name for path in tmp_path.glob("onnx_tf-*")] == ["onnx_tf-1.10.0.dist-info"]
    script = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import onnx_tf"
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "cannot import name 'mapping' from 'onnx'" in ran.stderr
