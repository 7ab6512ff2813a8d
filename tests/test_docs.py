"""Documents say what is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import reference
import solver_plot

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/*.md")]
_LAYERS = (ROOT / "docs" / "architecture.md").read_text("utf-8").split("\n## Layers")[1]
TABLE = _LAYERS.split("\n## ")[0]


def test_command_line_reference_is_the_help() -> None:
    assert (ROOT / "docs" / "cli.md").read_text("utf-8") == reference.page(), "run: make docs"


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text("utf-8")):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_files_named_in_documents_exist() -> None:
    named = re.compile(r"`((?:edgepack|tests|benchmarks|deploy|docs|examples)/[\w./-]+)`")
    for document in DOCUMENTS:
        if document.name == "adding.md":  # names files that are to be added
            continue
        for path in named.findall(document.read_text("utf-8")):
            found = (ROOT / path).exists() or (ROOT / f"{path}.py").exists()
            assert found, f"{document.name}: {path}"


def test_every_module_has_a_row_in_the_table_of_the_architecture() -> None:
    rows: dict[str, set[str]] = {"": set()}  # by folder of the package; none: one row for all of it
    folder = ""
    for cell in re.findall(r"^\| (.+?) \|", TABLE, re.MULTILINE):
        names = re.findall(r"`([\w./]+)`", cell)
        if cell.startswith("**"):
            (folder,) = names
            rows[folder] = set()
        else:
            rows[folder] |= set(names)
    for path in (ROOT / "edgepack").rglob("*.py"):
        own = path.relative_to(ROOT / "edgepack").with_suffix("").as_posix()
        top, _, rest = own.partition("/") if "/" in own else ("", "", own)
        entries = rows.get(f"{top}/" if top else "")
        assert entries is not None, f"{top}/ has no row"
        inner, deeper, _ = rest.partition("/")
        assert path.name.startswith("_") or not entries or f"{inner}{deeper}" in entries, own


@pytest.mark.slow
def test_demo_builds_and_speaks_with_every_runtime(tmp_path: Path) -> None:
    script = ROOT / "examples" / "demo.py"
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spoken = sorted(path.name for path in tmp_path.glob("*.wav"))
    assert spoken == ["openvino-en.wav", "openvino-zh.wav", "ort-en.wav", "ort-zh.wav"]
    assert "RTF" in done.stdout
    assert "peak RSS" in done.stdout
    shown = next(line for line in done.stdout.splitlines() if line.startswith("try:"))
    assert Path(shlex.split(shown)[1]).absolute() == Path(sys.executable).with_name("edgepack")


def test_the_readme_says_where_the_command_is() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert "`.venv/bin/edgepack`" in text.split("## Your own checkpoint", maxsplit=1)[0]
    assert "pip install '.[build,report,hub]'" in text  # as `bench --report` is shown


def test_picture_of_solvers_is_of_the_figures_in_its_page() -> None:
    assert f"sha256:{solver_plot.digest()}" in solver_plot.PICTURE.read_text("utf-8"), "make docs"
    figures, page = solver_plot.read(), (ROOT / "docs" / "solver.md").read_text("utf-8")
    assert figures.euler[20] == figures.limit
    for runtime, curve in figures.calibrated.items():
        chosen = figures.chosen[runtime]
        cells = [f"**{e:g}**" if n == chosen else f"{e:g}" for n, e in sorted(curve.items())]
        assert f"{solver_plot.NAMES[runtime]}, `" in page
        assert f"| {' | '.join(cells)} |" in page
        assert curve[chosen] <= figures.limit


def test_the_same_figures_give_the_same_picture() -> None:
    figures = solver_plot.read()
    assert solver_plot.picture(figures) == solver_plot.picture(figures)
    moved = msgspec.structs.replace(figures, limit=2 * figures.limit)
    assert solver_plot.picture(moved) != solver_plot.picture(figures)
