"""Windows and macOS, as far as Linux can show: without what they lack."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import Build

TESTS = Path(__file__).parent.parent
SYSTEMS = ("win32", "darwin")
ENGINES = ("onnxruntime", "openvino", "ai_edge_litert.interpreter")


def there(system: str, script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """A script in a process that looks like one of another system."""
    begin = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r})\n"
        f"from elsewhere import hide; hide({system!r}, *{ENGINES})\n"
    )
    command = [sys.executable, "-c", begin + script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


SPEAK = """
from pathlib import Path
from edgepack.cli import main
from edgepack.runtime.synthesizer import Settings, Synthesizer
bundle = Path({bundle!r})
for runtime in ("ort", "openvino"):
    loaded = Synthesizer.load(bundle, runtime)
    print(len(loaded.speak("Hello.", Settings(seed=1)).audio) > 5000)
    del loaded
codes = [
    main(["run", str(bundle), "Good morning.", "-o", "a.wav", "--quiet"]),
    main(["run", str(bundle), "Good evening.", "-o", "a.wav", "--quiet"]),
    main(["run", str(bundle), "Hello.", "-o", "s.wav", "--stream", "--quiet"]),
    main(["doctor", "--json"]),
]
print(codes, [path.name for path in sorted(Path().iterdir())])
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_it_speaks(bundle: Build, tmp_path: Path, system: str) -> None:
    ran = there(system, SPEAK.format(bundle=str(bundle("demo"))), tmp_path)
    assert ran.returncode == 0, ran.stderr
    one, other, *doctor, end = ran.stdout.splitlines()
    assert (one, other) == ("True", "True"), ran.stderr
    assert end == "[0, 0, 0, 0] ['a.wav', 's.wav']", ran.stderr
    found = json.loads("\n".join(doctor))
    assert found["threads"] >= 1
    assert found["cpus"]
    assert found["memory_bytes"] > 1 << 28
    assert found["runtimes"]["ort"]["version"]
    assert not found["isa"]
    assert all(of["reason"] for of in found["meters"].values() if not of["usable"])


# Plug-ins of engines and readers that are imported when they are used. What runs inside Triton
# needs a module that only Triton has.
IMPORTS = """
import importlib, pkgutil
import edgepack
names = [m.name for m in pkgutil.walk_packages(edgepack.__path__, "edgepack.")]
for name in names:
    if not name.endswith(("__main__", "triton_model")):
        importlib.import_module(name)
print(len(names))
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_module_can_be_imported(tmp_path: Path, system: str) -> None:
    begin = "import importlib\nfor n in ('onnx', 'onnx_ir', 'onnxscript', 'ml_dtypes', 'yaml',"
    begin += " 'jinja2', 'matplotlib.pyplot', 'scipy.optimize', 'asyncio', 'uvicorn',"
    begin += " 'starlette.applications', 'prometheus_client'):\n"
    begin += "    importlib.import_module(n)\n"
    script = f"""
import sys; sys.path.insert(0, {str(TESTS)!r})
from elsewhere import hide; hide({system!r}, *{ENGINES})
"""
    command = [sys.executable, "-c", begin + script + IMPORTS]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 200


def test_what_they_cannot_do_is_said(bundle: Build, tmp_path: Path) -> None:
    script = f"""
from edgepack.cli import main
print(main(["run", {str(bundle("demo"))!r}, "Hello.", "-o", "a.wav", "--cpus", "0"]))
print(main(["build", "demo", "--target", "intel-cpu", "-o", "out"]))
print(main(["inspect", "demo"]))
"""
    ran = there("darwin", script, tmp_path)
    assert ran.stdout.split() == ["3", "3", "3"], ran.stderr
    lines = ran.stderr.splitlines()
    pinned, built, seen = [line for line in lines if line.startswith("edgepack: ")]
    assert pinned == "edgepack: --cpus: macOS cannot pin processes to CPUs; leave it out"
    assert "which only Linux enforces; do it on Linux" in built
    assert "which only Linux enforces; do it on Linux" in seen
    assert list(tmp_path.glob("**/manifest.json")) == []


def test_windows_keeps_a_process_on_cpus(bundle: Build, tmp_path: Path) -> None:
    script = f"""
from edgepack.cli import main
print(main(["run", {str(bundle("demo"))!r}, "Hello.", "-o", "a.wav", "--cpus", "0", "--json"]))
"""
    ran = there("win32", script, tmp_path)
    record, code = ran.stdout.rsplit("\n", 2)[:2]
    assert code == "0", ran.stderr
    assert json.loads(record)["pinning"]["observed"].keys() == {"0"}
