"""Caches of a process that has no home directory, as services and containers often have none."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

NO_USER = "import pwd\ndef unknown(uid):\n    raise KeyError(uid)\npwd.getpwuid = unknown\n"
TWICE = """
from edgepack.builder.calibration import recordings
made = recordings.recorded("kind", "key", lambda folder: None)
assert recordings.recorded("kind", "key", None) == made
print(made.parents[1])
"""


def run(script: str, temporary: Path, **more: str) -> "subprocess.CompletedProcess[str]":
    kept = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    environment: Mapping[str, str] = {**kept, "TMPDIR": str(temporary), **more}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("home", [None, "/proc/nonexistent"])
def test_without_a_home_directory_they_are_temporary(tmp_path: Path, home: str | None) -> None:
    ran = run(TWICE, tmp_path, HOME=home) if home else run(NO_USER + TWICE, tmp_path)
    assert ran.returncode == 0, ran.stderr
    (made,) = tmp_path.iterdir()
    assert ran.stdout.strip() == str(made)
    assert made.stat().st_mode & 0o777 == 0o700
    assert ran.stderr.count("\n") == 1
    assert f"no home directory for caches: they are in {made}" in ran.stderr
    assert run(NO_USER + TWICE, tmp_path).stdout.strip() == str(made)


def test_a_folder_that_others_can_write_to_is_not_trusted(tmp_path: Path) -> None:
    theirs = tmp_path / f"edgepack-{os.getuid()}"
    theirs.mkdir()
    theirs.chmod(0o777)
    ran = run(NO_USER + TWICE, tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert Path(ran.stdout.strip()) != theirs
    assert not list(theirs.iterdir())


def test_a_home_directory_is_used(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    ran = run(TWICE, tmp_path, HOME=str(tmp_path / "home"))
    assert ran.stdout.strip() == str(tmp_path / "home" / ".cache" / "edgepack")
    assert ran.stderr == ""


def test_the_doctor_needs_none(tmp_path: Path) -> None:
    script = NO_USER + "import sys; from edgepack.cli import main; sys.exit(main(['doctor', '-q']))"
    ran = run(script, tmp_path)
    assert ran.returncode == 0, ran.stderr
