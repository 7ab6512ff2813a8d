"""Runs a command line in an empty folder."""

from pathlib import Path

import pytest

from cli import Cli, Ran
from edgepack.cli import main


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """`edgepack ARGUMENTS…` in an empty folder; nothing may print colours or a traceback."""
    folder = tmp_path / "current"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("FORCE_COLOR", "EDGEPACK_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        code = main([str(argument) for argument in arguments])
        ran = Ran(code, *capfd.readouterr())
        assert "\x1b" not in ran.out + ran.err
        assert "Traceback" not in ran.out + ran.err
        return ran

    return run
