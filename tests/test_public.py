"""What a program imports of edgepack, and that documents and examples import nothing else."""

import ast
import re
import subprocess
import sys
import wave
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from support import Build

import edgepack

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
BLOCKS = [(p.name, code) for p in PAGES for code in BLOCK.findall(p.read_text("utf-8"))]
EXAMPLES = [(p.name, p.read_text("utf-8")) for p in sorted(ROOT.glob("examples/*.py"))]
LAZY = sorted({*edgepack.__all__} - {"__version__"})


def private(code: str) -> Iterator[str]:
    """What a piece of code imports of edgepack that is not public."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from (name for name in names if name.startswith("edgepack."))
        elif isinstance(node, ast.ImportFrom) and node.module == "edgepack":
            yield from (a.name for a in node.names if a.name not in edgepack.__all__)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgepack."):
            yield str(node.module)


def seen_by_type_checkers() -> dict[str, str]:
    """The module of every public name, from the imports that only type checkers see."""
    tree = ast.parse(Path(edgepack.__file__).read_text("utf-8"))
    block = next(n for n in tree.body if isinstance(n, ast.If))
    return {
        alias.name: str(node.module)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize(("where", "code"), [*BLOCKS, *EXAMPLES])
def test_documents_and_examples_import_public_names_only(where: str, code: str) -> None:
    assert not list(private(code)), where


def test_private_imports_are_found() -> None:
    code = (
        "import edgepack.report\nfrom edgepack import report, build\nfrom edgepack.bundle import x"
    )
    assert list(private(code)) == ["edgepack.report", "report", "edgepack.bundle"]


def test_there_is_something_to_look_at() -> None:
    assert {"README.md", "device.md"} <= {where for where, _ in BLOCKS}
    assert any("from edgepack import" in code for _, code in EXAMPLES)


def test_every_public_name_is_the_one_that_type_checkers_see() -> None:
    declared = seen_by_type_checkers()
    assert sorted(declared) == LAZY
    for name, module in declared.items():
        assert getattr(edgepack, name) is getattr(import_module(module), name)
    assert set(edgepack.__all__) <= set(dir(edgepack))


def test_an_unknown_name_is_an_attribute_error() -> None:
    name = "Synthesiser"
    with pytest.raises(AttributeError, match="'edgepack' has no attribute 'Synthesiser'"):
        getattr(edgepack, name)


def test_nothing_is_imported_before_it_is_used() -> None:
    """Not by `import edgepack`; `Bundle` takes no engine and nothing of the build."""
    script = """
import sys
import edgepack
before = {n for n in sys.modules if n.startswith("edgepack.")}
assert before == {"edgepack.process", "edgepack.process.telemetry"}, before
assert "numpy" not in sys.modules
edgepack.Bundle
assert "edgepack.bundle.bundle" in sys.modules
assert not [n for n in sys.modules if n.startswith(("edgepack.builder", "edgepack.runtime"))]
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_readme_speaks(bundle: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = next(c for where, c in BLOCKS if where == "README.md" and "Synthesizer.load" in c)
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "demo-intel-cpu").symlink_to(bundle("demo"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(code, names)
    assert isinstance(names["speech"], edgepack.Speech)
    assert names["speech"].audio_seconds > 0.5


def test_the_example_of_a_stream_writes_sound(bundle: Build, tmp_path: Path) -> None:
    script, sound = ROOT / "examples" / "speak.py", tmp_path / "a.wav"
    command = [sys.executable, str(script), str(bundle("demo")), "Hello.", str(sound)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with wave.open(str(sound)) as file:
        assert file.getnframes() > 0.3 * file.getframerate()
    refused = subprocess.run(
        [*command[:2], str(tmp_path), "Hello.", str(sound)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 1
    assert "no bundle there" in refused.stderr
