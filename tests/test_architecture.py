"""The rules of docs/architecture.md that a machine can check."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from packaging.requirements import Requirement
from support import Build

import edgepack
from edgepack import discovery
from edgepack.bundle.host import HostLoops
from edgepack.model.family import PACKAGE as FAMILIES
from edgepack.model.family import Family
from edgepack.verification.reference import packages

PACKAGE = Path(edgepack.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))

CORE = {"", "errors", "discovery", "report", "files", "process"}

# What the modules of a layer may import, besides their own layer and the core.
LAYERS: dict[str, set[str]] = {
    **{name: set() for name in CORE},
    "": {"builder", "runtime", "bundle"},  # the public names, imported when they are used
    "bundle": set(),
    "profiles": {"bundle"},
    "machine": {"bundle"},
    "energy": {"bundle", "machine"},
    "graph": {"bundle"},
    "model": {"bundle", "graph", "runtime"},  # a family says which kinds of host loops it has
    "runtime": {"bundle", "machine", "energy"},
    "verification": {"bundle", "machine", "runtime"},
    "bench": {"bundle", "profiles", "machine", "energy", "runtime", "verification"},
    "serve": {"bundle", "energy", "machine", "runtime"},
    "export": {"bundle", "runtime"},
    "builder": {"bundle", "profiles", "machine", "graph", "model", "runtime", "verification"},
    "cli": {
        "bundle", "profiles", "machine", "energy", "model", "runtime", "verification", "bench",
        "builder", "serve", "export",
    },
    "__main__": {"cli"},
}  # fmt: skip

PLUGINS = {
    "builder.backends",
    "builder.lowering.operators",
    "builder.model_hubs",
    "model.families",
    "runtime.engines.adapters",
    "runtime.text.normalizers",
    *(f"runtime.strategies.{part}" for part in HostLoops.__struct_fields__),
    "energy.meters",
    "cli",
    *(f"verification.vectors.{family}" for family in packages()),
}
VAGUE = {"utils", "util", "common", "base", "helpers", "helper", "manager", "misc", "tools"}


def dotted(path: Path) -> str:
    """The name of a module below the package: `runtime.loading`."""
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
# (`machine.memory`, `machine.cpu.affinity`, `hush` of an engine), processes of our own, and blocks
# that put back what they changed; and `telemetry`, which has to come before an engine is imported.
PROCESS_WIDE = re.compile(
    r"os\.(dup2|putenv|unsetenv|chdir|umask|sched_setaffinity|close(range)?\(2)"
    r"|os\.environ(\[[^]]*\] =|\.(update|setdefault|pop|clear))"
    r"|logging\.(disable|basicConfig)|set_default_logger_severity|set_log_level|setLevel"
    r"|warnings\.(filterwarnings|simplefilter)|signal\.(signal|pthread_sigmask)|mallopt\("
    r"|np\.seterr|setrecursionlimit|setlocale|redirect_std|set_start_method"
)
CHANGES = {
    "cli", "process.interrupts", "process.isolation", "process.system", "process.telemetry",
    "builder.backend", "builder.backends.tflite", "builder.gpu_delegate", "machine.memory",
    "machine.cpu.affinity", "runtime.engines.adapters.ort", "runtime.engines.adapters.tflite",
    "serve.ray_cluster", "serve.server",
}  # fmt: skip


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_library_leaves_its_process_as_it_is(path: Path) -> None:
    code = ast.unparse(ast.parse(path.read_text("utf-8")))
    assert dotted(path) in CHANGES or not PROCESS_WIDE.search(code)


# What Windows or macOS lack, and where it is: these modules say what is done there instead.
# `make check` has mypy look for the rest, with the standard library's stubs for these systems.
ONLY_LINUX = re.compile(r"^/(proc|sys|dev)(/|$)|^(proc|sys)/")
ONLY_POSIX = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix"}
SYSTEMS = {"process.system", "process.interrupts"}
TREES = {
    "process.system", "machine.memory", "machine.cpu.affinity", "machine.cpu.isa",
    "machine.cpu.quota", "machine.cpu.topology", "machine.gpu_stack", "bench.environment",
    *(f"energy.meters.{path.stem}" for path in (PACKAGE / "energy" / "meters").glob("*.py")),
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
            ours = {*ours, "energy.meters.perf"}  # a meter of Linux alone
        assert name in ours, f"{name}: {found}; use edgepack.process.system"


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


# onnxscript reads the inputs of a pattern from the signature of these functions.
MANY_PARAMETERS = {
    "builder.backends._ort_attention": {"pattern", "rewrite"},
    "builder.backends._ort_decoder": {"pattern", "rewrite"},
}


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many parameters a function has, its object or class and what it collects not counted."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return len([one for one in named if one.arg not in ("self", "cls")])


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_functions_have_few_parameters(path: Path) -> None:
    """More than six are one value: a dataclass that says what each of them is."""
    many = {
        node.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and parameters(node) > 6
    }
    assert many == MANY_PARAMETERS.get(dotted(path), set())


def test_a_name_stands_for_one_thing() -> None:
    """No class, and no type that is defined by an assignment, is defined in two modules."""
    found: dict[str, set[str]] = {}
    kinds = {f"runtime.strategies.{part}" for part in HostLoops.__struct_fields__}
    for path in MODULES:
        if dotted(path).rpartition(".")[0] in kinds:
            continue  # each has a Record
        for node in ast.parse(path.read_text("utf-8")).body:
            names = [node.name] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.Assign):
                names = [one.id for one in node.targets if isinstance(one, ast.Name)]
            for name in names:
                if re.match(r"[A-Z]+[a-z]", name):
                    found.setdefault(name, set()).add(dotted(path))
    assert {name for name, where in found.items() if len(where) > 1} == set()


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_only_families_know_a_family(path: Path) -> None:
    if dotted(path).startswith("model.families"):
        return
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Compare):
            assert "family" not in ast.unparse(node).replace("family.networks", "")


# Names of stages. What differs from one to another they say themselves: `bundle.stages`.
STAGES = {
    "speech_lm", "flow_encoder", "flow_estimator", "flow_time", "hift", "hift_source",
    "text_embedding", "speech_embedding",
}  # fmt: skip
NAMING = ("model.families", "model.networks", "runtime.strategies", "verification.vectors")


def stages_named(tree: ast.AST) -> set[str]:
    """Names of stages that stand alone in a string, or as a key of what a call is given."""
    found = {str(n.value) for n in ast.walk(tree) if isinstance(n, ast.Constant)}
    found |= {str(n.arg) for n in ast.walk(tree) if isinstance(n, ast.keyword)}
    return found & STAGES


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_only_who_writes_a_stage_knows_its_name(path: Path) -> None:
    if not dotted(path).startswith(NAMING):
        named = stages_named(ast.parse(path.read_text("utf-8")))
        assert not named, f"{dotted(path)} names {named}; go by `Use` (edgepack.bundle.stages)"


def test_names_of_stages_are_found_where_they_are() -> None:
    family = cast(Family, discovery.load(FAMILIES, "cosyvoice2", "FAMILY"))
    assert set(family.stages) == STAGES
    code = """
open_stage(bundle, "hift")
Variants(speech_lm=variant)
f"{flow_time} and hift"
"""
    assert stages_named(ast.parse(code)) == {"hift", "speech_lm"}


def test_dependencies_are_light() -> None:
    """But for two extras, which have to be asked for by their names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = {"tensorflow": extras.pop("tensorflow"), "interop": extras.pop("interop")}
    heavy = re.compile(r"(edgepack\[.*)?(torch|transformers|tensorflow|onnx-tf)\b")
    for needed in (project["dependencies"], *extras.values()):
        assert not [one for one in needed if heavy.match(one)]
    assert [one for one in named["tensorflow"] if heavy.match(one)] == named["tensorflow"]
    assert "edgepack[build,tensorflow]" in named["interop"]


@pytest.mark.parametrize(
    ("system", "machine", "wanted"),
    [
        ("linux", "x86_64", "tensorflow-cpu"),
        ("win32", "AMD64", "tensorflow-cpu"),
        ("linux", "aarch64", "tensorflow"),
        ("darwin", "arm64", "tensorflow"),
        ("darwin", "x86_64", "tensorflow"),  # pip says that it has no wheel
    ],
)
def test_each_machine_gets_one_tensorflow(system: str, machine: str, wanted: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    there = {"sys_platform": system, "platform_machine": machine}
    needed = [Requirement(line) for line in project["optional-dependencies"]["tensorflow"]]
    assert [one.name for one in needed if one.marker and one.marker.evaluate(there)] == [wanted]


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
