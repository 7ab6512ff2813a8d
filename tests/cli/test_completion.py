"""A shell that asks how a word goes on, as click's scripts for bash do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import Build

from cli import Cli

WORDS = {
    "tar": ["targets"],
    "build demo --target intel-cpu-": [
        "intel-cpu-avx2", "intel-cpu-hybrid", "intel-cpu-server", "intel-cpu-stream",
    ],
    "build demo --precision int": ["int8", "int4"],
    "build demo --language zh,e": ["zh,en", "zh,es"],
    "build demo --language zh,en,z": [],
    "build demo --format op": ["openvino"],
    "run BUNDLE --voice r": ["random"],
    "run BUNDLE --format o": ["ort", "openvino"],
    "voice remove BUNDLE r": ["random"],
    "run nowhere --voice r": [],
}  # fmt: skip


@pytest.mark.parametrize("line", WORDS)
def test_words_are_completed(bundle: Build, tmp_path: Path, line: str) -> None:
    typed = f"edgepack {line.replace('BUNDLE', str(bundle('tiny')))}"
    asked = {"_EDGEPACK_COMPLETE": "bash_complete", "COMP_WORDS": typed}
    asked["COMP_CWORD"] = str(len(typed.split()) - 1)
    command = [sys.executable, "-c", "from edgepack.__main__ import entry; entry()"]
    ran = subprocess.run(
        command, env={**os.environ, **asked}, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [row.split(",", 1)[1] for row in ran.stdout.splitlines() if row] == WORDS[line]


SHELLS = {
    "bash": ("--norc", 'eval "$(_EDGEPACK_COMPLETE=bash_source edgepack)"; complete -p edgepack'),
    "zsh": (
        "-f",
        'autoload -Uz compinit && compinit -uD; eval "$(_EDGEPACK_COMPLETE=zsh_source edgepack)"; '
        "print $_comps[edgepack]",
    ),
    "fish": ("-N", '_EDGEPACK_COMPLETE=fish_source edgepack | source; complete -C "edgepack tar"'),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_without_any_settings_can_be_told(tmp_path: Path, shell: str) -> None:
    """As the README says it for each of them."""
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell} on this machine")
    program = tmp_path / "edgepack"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m edgepack "$@"\n')
    program.chmod(0o755)
    option, line = SHELLS[shell]
    ran = subprocess.run(
        [found, option, "-c", line],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert {"bash": "-F _edgepack", "zsh": "_edgepack", "fish": "targets"}[shell] in ran.stdout


def test_versions_are_told_when_asked_for(cli: Cli, bundle: Build) -> None:
    speak = ("run", bundle("tiny"), "hello", "--guard", "warn", "-v", "--format", "ort", "-q")
    ran = cli(*speak)
    assert ran.code == 0
    assert "tiny for intel-cpu, format 5, built by edgepack 0.1.0" in ran.err
    assert "with ort 1." in ran.err
