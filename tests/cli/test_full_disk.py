"""A disk that is full, or a limit: exit 5 in one line, the old file stays, nothing else is left."""

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support import Build, Checkpoints

from cli import contents, samples

EDGEPACK = [sys.executable, "-m", "edgepack"]


def limited(folder: Path, size: int, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """`edgepack ARGUMENTS...` where no file may be larger than `size` bytes."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / ".cache")}
    return subprocess.run(
        [*EDGEPACK, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=folder,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        env=environment,
    )  # fmt: skip


@pytest.mark.parametrize("how", [[], ["-o", "a.flac"], ["--stream", "-o", "a.flac"]])
def test_speaking(bundle: Build, tmp_path: Path, how: Sequence[str]) -> None:
    ran = limited(tmp_path, 4000, "run", bundle("tiny"), "hello", "--guard", "warn", *how)
    assert ran.returncode == 5, ran.stderr
    assert ran.stderr.count("\n") == 1
    name = how[-1] if "-o" in how else "out.wav"
    assert f"edgepack: {name}: no space left" in ran.stderr
    assert contents(tmp_path) == {}


def test_a_stream_leaves_what_was_spoken(bundle: Build, tmp_path: Path) -> None:
    """As after Ctrl-C: a file that everything can read, and how long it is."""
    ran = limited(tmp_path, 4001, "run", bundle("tiny"), "hello", "--guard", "warn", "--stream")
    assert ran.returncode == 5, ran.stderr
    assert ran.stderr == (
        "edgepack: out.wav: no space left; it has the first 0.08 s of what was spoken\n"
    )
    assert list(contents(tmp_path)) == ["out.wav"]
    rate, kept = samples(tmp_path / "out.wav")
    whole = run(bundle("tiny"), tmp_path)
    assert len(kept) == (4000 - 44) // 2
    assert rate == whole[0]
    assert kept.tolist() == whole[1][: len(kept)].tolist()


def run(bundle: Path, folder: Path) -> tuple[int, np.ndarray]:
    """Rate and samples of the same without a limit."""
    command = ["run", bundle, "hello", "--guard", "warn", "--stream", "-o", "whole.wav"]
    subprocess.run([*EDGEPACK, *map(str, command)], check=True, cwd=folder, capture_output=True)
    return samples(folder / "whole.wav")


def test_a_stream_of_nothing_leaves_nothing(bundle: Build, tmp_path: Path) -> None:
    ran = limited(tmp_path, 20, "run", bundle("tiny"), "hello", "--guard", "warn", "--stream")
    assert (ran.returncode, ran.stderr) == (
        5,
        "edgepack: out.wav: no space left; free some and try again\n",
    )
    assert contents(tmp_path) == {}


def test_building(checkpoints: Checkpoints, tmp_path: Path) -> None:
    request = (
        "build",
        checkpoints("tiny"),
        "-t",
        "intel-cpu",
        "--format",
        "ort",
        "-o",
        "a/b",
        "-q",
    )
    ran = limited(tmp_path, 60_000, *request)
    assert ran.returncode == 5, ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ".tmp" not in ran.stderr
    assert not (tmp_path / "a").exists()
