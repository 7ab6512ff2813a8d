"""The rules of docs/architecture.md that a machine can check."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import Build

import edgepack

PACKAGE = Path(edgepack.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))

CORE = {
    "", "errors", "discovery", "report", "ranges", "metrics", "manifest", "consistency", "atomic",
    "bundle", "arrays", "measurements", "tokenizer_file", "voices", "interrupts", "system",
    "telemetry", "utf8", "goals", "links", "locks", "caches", "places", "beside", "shortage",
}  # fmt: skip

# What the modules of a layer may import, besides their own layer and the core.
LAYERS: dict[str, set[str]] = {
    **{name: set() for name in CORE},
    "target": {"recipe"},
    "language": set(),
    "trim": {"language", "runtime"},
    "recipe": set(),
    "choices": {"documents"},
    "documents": set(),
    "calibration": {"graph", "language", "hub", "runtime", "verification"},
    "auction": {"backend", "calibration", "recipe", "runtime", "verification"},
    "trial": {
        "assembly", "backend", "calibration", "hub", "isolation", "plan", "recipe", "runtime",
        "target", "verification",
    },
    "conversion": {"auction", "backend", "recipe", "runtime", "trial", "verification"},
    "budget": {"target"},
    "limits": {"plan", "recipe", "runtime", "target", "verification"},
    "schedule": {"plan", "verification"},
    "host_contract": {"backend", "family", "hub", "runtime"},
    "gpu_plan": {"family", "graph", "hub", "recipe", "runtime", "target"},
    "solving": {"calibration", "runtime", "verification"},
    "grammars": set(),
    "isolation": set(),
    "checkpoint": {"documents"},
    "graph": set(),
    "networks": {"graph"},
    "family": {"checkpoint", "graph"},
    "families": {"family", "networks", "graph", "checkpoint"},
    "backend": {"recipe", "target"},
    "backends": {"backend", "calibration", "graph", "lowering"},
    "lowering": {"graph"},
    "runtime": set(),
    "verification": {"runtime"},
    "bench": {"isolation", "language", "runtime", "verification"},  # intervals, as gates have
    "carried": {"pooling"},
    "pooling": set(),
    "inspection": {"checkpoint", "family"},
    "hub": {"checkpoint", "family", "runtime", "verification"},
    "plan": {"choices", "recipe", "target", "language", "checkpoint", "family", "runtime"},
    "model_hub": set(),
    "model_hubs": {"model_hub"},
    "download": {"checkpoint", "family", "isolation", "model_hub", "plan"},
    "survey": {"checkpoint", "download", "inspection", "isolation", "model_hub", "plan"},
    "text_assets": {"plan", "language", "trim", "grammars", "runtime"},
    "assembly": {
        "plan", "text_assets", "hub", "language", "grammars", "family", "carried", "isolation",
        "runtime", "verification", "host_contract", "gpu_plan",
    },
    "pipeline": {
        "plan", "text_assets", "assembly", "hub", "isolation", "backend", "runtime",
        "verification", "recipe", "auction", "conversion", "trial", "budget", "calibration",
        "limits", "schedule", "solving", "survey",
    },
    "cli": {
        "target", "language", "runtime", "verification", "plan", "pipeline", "bench", "schedule",
        "survey",
    },
    "__main__": {"cli"},
}  # fmt: skip

PLUGINS = {
    "backends",
    "lowering.operators",
    "families",
    "model_hubs",
    "runtime.sessions",
    "runtime.normalizers",
    "runtime.meters",
    "cli",
    "verification.vectors",
}
VAGUE = {"utils", "util", "common", "base", "helpers", "helper", "manager", "misc", "tools"}


def dotted(path: Path) -> str:
    """The name of a module below the package: `runtime.flow`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> Iterator[str]:
    """Names below edgepack that a module imports, wherever the import stands."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (n.removeprefix("edgepack.") for n in names if n.startswith("edgepack."))


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_imports_follow_the_layers(path: Path) -> None:
    layer = dotted(path).split(".")[0]
    allowed = {layer, *CORE, *LAYERS[layer], "__version__"}
    wrong = {name for name in imports(path) if name.split(".")[0] not in allowed}
    assert not wrong, f"{dotted(path)} imports {wrong}"


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_plugins_do_not_know_each_other(path: Path) -> None:
    name = dotted(path)
    folder, _, own = name.rpartition(".")
    if folder not in PLUGINS:
        return
    siblings = {
        found for found in imports(path)
        if found.startswith(f"{folder}.") and not found.removeprefix(f"{folder}.").startswith("_")
    }  # fmt: skip
    assert siblings <= {n for n in siblings if n.startswith(name)}, f"{own} imports {siblings}"


# Calls that change the process for everybody in it, and who may make them: programs at their start
# (`runtime.memory`, `runtime.cpu.affinity`, `hush` of an engine), processes of our own, and blocks
# that put back what they changed; and `telemetry`, which has to come before an engine is imported.
PROCESS_WIDE = re.compile(
    r"os\.(dup2|putenv|unsetenv|chdir|umask|sched_setaffinity|close(range)?\(2)"
    r"|os\.environ(\[[^]]*\] =|\.(update|setdefault|pop|clear))"
    r"|logging\.(disable|basicConfig)|set_default_logger_severity|set_log_level|setLevel"
    r"|warnings\.(filterwarnings|simplefilter)|signal\.(signal|pthread_sigmask)|mallopt\("
    r"|np\.seterr|setrecursionlimit|setlocale|redirect_std|set_start_method"
)
CHANGES = {
    "cli", "interrupts", "isolation", "system", "backend", "backends.tflite", "runtime.memory",
    "runtime.cpu.affinity", "runtime.sessions.ort", "runtime.sessions.tflite", "telemetry",
}  # fmt: skip


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_library_leaves_its_process_as_it_is(path: Path) -> None:
    code = ast.unparse(ast.parse(path.read_text("utf-8")))
    assert dotted(path) in CHANGES or not PROCESS_WIDE.search(code)


# What Windows or macOS lack, and where it is: these modules say what is done there instead.
# `make check` has mypy look for the rest, with the standard library's stubs for these systems.
ONLY_LINUX = re.compile(r"^/(proc|sys|dev)(/|$)|^(proc|sys)/")
ONLY_POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix"}
SYSTEMS = {"system", "interrupts"}
TREES = {
    "system", "runtime.memory", "runtime.cpu.affinity", "runtime.cpu.isa", "runtime.cpu.quota",
    "runtime.cpu.topology", "runtime.gpu.stack", "bench.environment",
    *(f"runtime.meters.{path.stem}" for path in (PACKAGE / "runtime" / "meters").glob("*.py")),
}  # fmt: skip


def only_somewhere(tree: ast.AST) -> Iterator[str]:
    """What of a module not every system has."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in ONLY_POSIX)
        elif isinstance(node, ast.ImportFrom) and node.module in ONLY_POSIX:
            yield node.module
        elif isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if re.match(r"os\.(sched_|fork|getuid|geteuid|killpg|setsid|sysconf|uname)", name):
                yield name
            if re.match(r"ctypes\.CDLL|signal\.(SIGKILL|SIGALRM|SIGXCPU|SIGHUP|pthread_)", name):
                yield name
        elif isinstance(node, ast.Constant) and ONLY_LINUX.match(str(node.value)):
            yield str(node.value)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_what_not_every_system_has_is_where_that_is_said(path: Path) -> None:
    name = dotted(path)
    for found in only_somewhere(ast.parse(path.read_text("utf-8"))):
        ours = TREES if ONLY_LINUX.match(found) else SYSTEMS
        if found == "ctypes.CDLL":
            ours = {*ours, "runtime.meters.perf"}  # a meter of Linux alone
        assert name in ours, f"{name}: {found}; use edgepack.system"


def test_what_not_every_system_has_is_found() -> None:
    code = """
import fcntl
from resource import getrlimit
os.sched_getaffinity(0)
signal.SIGKILL
ctypes.CDLL(None)
open("/proc/meminfo")
"""
    assert len(list(only_somewhere(ast.parse(code)))) == 6


OTHERS = [p for f in ("tests", "benchmarks", "docs", "examples") for p in (ROOT / f).rglob("*.py")]


@pytest.mark.parametrize("path", [*MODULES, *OTHERS], ids=str)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_names_say_what_is_inside(path: Path) -> None:
    assert path.stem.strip("_") not in VAGUE


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_only_families_know_a_family(path: Path) -> None:
    if dotted(path).startswith("families"):
        return
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Compare):
            assert "family" not in ast.unparse(node).replace("family.networks", "")


def test_dependencies_are_light() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert not re.search(r'"(torch|transformers|tensorflow|onnx-tf)\b', text)


def test_help_is_fast_and_light() -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "edgepack", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.split("|")[-1].strip().split(".")[0] for line in run.stderr.splitlines()}
    assert not imported & {"numpy", "onnx", "onnx_ir", "onnxruntime", "openvino", "tokenizers"}
    before = os.times()
    subprocess.run([sys.executable, "-m", "edgepack", "--help"], capture_output=True, check=True)
    after = os.times()
    assert (after.children_user - before.children_user) < 0.5


BLOCKED = ("onnx", "onnx_ir", "onnxscript", "yaml", "ml_dtypes", "openvino", "hypothesis")


def test_the_runtime_works_without_the_build_packages(bundle: Build, tmp_path: Path) -> None:
    """Speaking imports nothing that only the build needs."""
    script = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(name=name)
sys.meta_path.insert(0, Blocker())
from edgepack.cli import main
sys.exit(main(["run", {str(bundle("demo"))!r}, "Good morning.", "-o", "x.wav", "--quiet"]))
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert (tmp_path / "x.wav").stat().st_size > 10_000
