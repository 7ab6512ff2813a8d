"""Documents say what is there."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import reference

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def test_command_line_reference_is_the_help() -> None:
    assert (ROOT / "docs" / "cli.md").read_text("utf-8") == reference.page(), "run: make docs"


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#:]+)\)", document.read_text("utf-8")):
            assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_files_named_in_documents_exist() -> None:
    named = re.compile(r"`((?:edgepack|tests|benchmarks|docs|examples)/[\w./-]+)`")
    for document in DOCUMENTS:
        if document.name == "adding.md":  # names files that are to be added
            continue
        for path in named.findall(document.read_text("utf-8")):
            found = (ROOT / path).exists() or (ROOT / f"{path}.py").exists()
            assert found, f"{document.name}: {path}"


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
