"""What is installed: the contents of the wheel, and a device that has one engine and no more."""

import json
import os
import shutil
import subprocess
import sys
import venv
import wave
import zipfile
from collections.abc import Sequence
from email.parser import Parser
from pathlib import Path

import pytest
from support import GOLDEN, Build, Checkpoints

ROOT = Path(__file__).parent.parent
RECORDING = GOLDEN / "common" / "prompt_24k.wav"
BUILD_ONLY = ("onnx", "onnxscript", "onnx_ir", "yaml", "ml_dtypes")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout; pip fetches the build backend."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--quiet", "--disable-pip-version-check", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], check=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_is_the_package_and_nothing_else(wheel: Path) -> None:
    package = ROOT / "edgepack"
    folders = os.walk(package, followlinks=True)  # profiles/targets is a link in the repository
    found = [Path(folder, name) for folder, _, names in folders for name in names]
    files = {str(p.relative_to(ROOT)): p for p in found if "__pycache__" not in p.parts}
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
        assert names == set(files)
        for name, path in files.items():
            assert archive.getinfo(name).file_size == path.stat().st_size
        licence = next(n for n in archive.namelist() if n.endswith(".dist-info/licenses/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    assert {"edgepack/py.typed", "edgepack/profiles/targets/intel-cpu.yaml"} <= names
    assert {"edgepack/demo_voice/llm.pt", "edgepack/demo_voice/MODEL_CARD.md"} <= names
    assert not any(Path(name).name.startswith(("test_", "conftest")) for name in names)


def test_the_wheel_asks_for_little_unless_told_to(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
        scripts = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    needed = metadata.get_all("Requires-Dist") or []
    always = " ".join(line for line in needed if "extra ==" not in line).lower()
    for package in ("onnx", "openvino", "yaml", "torch", "transformers", "ml_dtypes", "pytest"):
        assert package not in always
    assert {"ort", "openvino", "build", "dev"} <= set(metadata.get_all("Provides-Extra") or [])
    assert "edgepack = edgepack.__main__:entry" in scripts


def without(packages: Sequence[str], *arguments: object) -> "subprocess.CompletedProcess[str]":
    """`edgepack ARGUMENTS…` in a process where these packages cannot be imported."""
    script = f"""
import sys
for name in {list(packages)!r}:
    sys.modules[name] = None
from edgepack.__main__ import entry
entry()
"""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_device_needs_one_engine_and_no_build_packages(bundle: Build, tmp_path: Path) -> None:
    absent = (*BUILD_ONLY, "openvino")
    copy, sound = shutil.copytree(bundle("tiny"), tmp_path / "b"), tmp_path / "a.wav"
    for arguments in (
        ["voice", "add", copy, "me", RECORDING, "--text", "Hi"],
        ["voice", "list", copy],
        ["inspect", copy],
        ["verify", copy, "--format", "ort"],
        ["run", copy, "hello", "--voice", "me", "--guard", "warn", "-o", sound],
    ):
        ran = without(absent, *arguments, "--quiet")
        assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
    with wave.open(str(sound)) as file:
        assert file.getnframes() > 1000


SPEAK = """
import sys
from pathlib import Path
for name in {absent!r}:
    sys.modules[name] = None
from edgepack import Settings, Synthesizer
loaded = Synthesizer.load(Path({bundle!r}), threads=1)
print(loaded.loaded.host.runtime, len(loaded.speak("hi", Settings(strict=False)).audio) > 1000)
"""


def test_a_device_speaks_with_the_engine_that_it_has(bundle: Build, tmp_path: Path) -> None:
    """A bundle for three runtimes, on a device with its second: no option is needed."""
    absent: tuple[str, ...] = (*BUILD_ONLY, "onnxruntime", "ai_edge_litert", "tensorflow")
    absent = tuple(name for name in absent if name != "openvino")
    tiny = bundle("tiny")
    ran = without(absent, "run", tiny, "hi", "--guard", "warn", "-o", tmp_path / "a.wav", "--json")
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["runtime"] == "openvino"
    script = SPEAK.format(absent=absent, bundle=str(tiny))
    spoken = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert spoken.stdout == "openvino True\n", spoken.stderr
    checked = without(absent, "verify", tiny)
    assert checked.returncode == 0, checked.stderr
    assert "ort was not checked: onnxruntime is not installed" in checked.stderr
    assert "all checks passed in openvino" in checked.stdout
    measured = without(
        absent, "bench", tiny, "--sentences", 1, "--rounds", 1, "--warm-up", 0, "--no-long",
        "--baseline", 0,
    )  # fmt: skip
    assert measured.returncode == 0, measured.stderr
    assert "tflite is skipped: ai_edge_litert is not installed" in measured.stderr
    assert "openvino" in measured.stdout
    none = without((*absent, "openvino"), "run", tiny, "hi", "-o", tmp_path / "b.wav")
    assert none.returncode == 3
    assert "nothing is installed that it speaks with" in none.stderr
    assert none.stderr.count("\n") == 1


@pytest.mark.parametrize("package", BUILD_ONLY)
def test_a_build_names_the_package_that_is_missing(
    checkpoints: Checkpoints, tmp_path: Path, package: str
) -> None:
    ran = without([package], "build", checkpoints("tiny"), "-t", "intel-cpu", "-o", tmp_path, "-q")
    assert ran.returncode == 3
    assert ran.stderr == f"edgepack: {package} is not installed; pip install 'edgepack[build]'\n"


@pytest.mark.slow
def test_a_fresh_installation_speaks(wheel: Path, bundle: Build, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    scripts = tmp_path / "venv" / "bin"
    pip = [str(scripts / "python"), "-m", "pip", "install", "--quiet", f"{wheel}[ort]"]
    subprocess.run(pip, check=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}

    def edgepack(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [str(scripts / "edgepack"), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
        )

    spoken = edgepack("run", bundle("tiny"), "hello", "--guard", "warn", "--json")
    assert spoken.returncode == 0, spoken.stderr
    told = json.loads(spoken.stdout)
    with wave.open(str(tmp_path / told["output"])) as file:
        assert file.getnframes() == round(told["audio_seconds"] * told["sample_rate"])
    refused = edgepack("build", "demo", "-t", "intel-cpu")
    assert refused.returncode == 3
    assert refused.stderr.startswith("edgepack: ")
    assert refused.stderr.endswith(" is not installed; pip install 'edgepack[build]'\n")
    assert refused.stderr.count("\n") == 1
    other = edgepack("run", bundle("tiny"), "hello", "--format", "openvino")
    assert other.returncode == 3
    assert other.stderr == "edgepack: openvino is not installed; pip install 'edgepack[openvino]'\n"
