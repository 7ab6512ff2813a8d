"""Nothing leaves a machine: no host is looked up, no file is left that counts what was done."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgepack

ROOT = Path(edgepack.__file__).parent.parent

ENTRIES = {
    "command": "from edgepack.cli import main; main(['doctor', '--quiet'])",
    "library": """
from edgepack.runtime.engines.session import engine
from edgepack.runtime.synthesizer import Synthesizer
print(engine("ort").version(), engine("openvino").version())
""",
    "child": """
import importlib
from edgepack.process.isolation import isolated
from edgepack.report import silent
from importing import everything
if __name__ == "__main__":
    print(isolated(everything, step=silent))
""",
}
# What a child process of a build has: engines, and what quantizes for them.
IMPORTING = """
def everything(step):
    import openvino, nncf, onnxruntime, ai_edge_litert, ai_edge_quantizer.quantizer
    import openvino.tools.ovc
    openvino.Core().available_devices
    return "imported"
"""
TRACED = "trace=connect,sendto,sendmsg,sendmmsg"


@pytest.mark.parametrize("entry", ENTRIES)
def test_nothing_leaves_the_machine(tmp_path: Path, entry: str) -> None:
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    (tmp_path / "importing.py").write_text(IMPORTING)
    (tmp_path / "entry.py").write_text(ENTRIES[entry])
    kept = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "CI")}
    path = os.pathsep.join(filter(None, [str(tmp_path), str(ROOT), kept.get("PYTHONPATH")]))
    environment = kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    command = [sys.executable, str(tmp_path / "entry.py")]
    traced = ["strace", "-f", "-e", TRACED, "-o", str(trace)]
    ran = subprocess.run(
        [*(traced if _strace() else []), *command],
        env=environment | {"PYTHONPATH": path},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    left = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    assert [name for name in left if not name.startswith(".cache/matplotlib")] == []
    if _strace():
        assert [line for line in trace.read_text().splitlines() if "AF_INET" in line] == []


def _strace() -> bool:
    """Whether calls can be seen; files are looked for in any case."""
    try:
        seen = subprocess.run(["strace", "-o", os.devnull, "true"], check=False)
    except OSError:
        return False
    return seen.returncode == 0
