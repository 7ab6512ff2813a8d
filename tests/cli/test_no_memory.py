"""A limit of address space: exit 5 in one line, whichever library meets it, and nothing is left."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support import RUNTIMES, Build, Checkpoints

from cli import contents
from edgepack.bench import diagnosis
from edgepack.errors import ResourceError
from edgepack.runtime.engines.session import Engine, engine

EDGEPACK = [sys.executable, "-m", "edgepack"]
NOISE = ["--guard", "warn"]
MEASURED = ["--rounds", "1", "--sentences", "1"]


def limited(folder: Path, megabytes: int, *arguments: object) -> str:
    """The error of `edgepack ARGUMENTS...` where it may have so much address space."""
    limit = megabytes << 20
    ran = subprocess.run(
        [*EDGEPACK, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=folder,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        env={**os.environ, "XDG_CACHE_HOME": str(folder / ".cache")}, timeout=100,
    )  # fmt: skip
    assert ran.returncode == 5, (megabytes, ran)
    assert ran.stderr.count("\n") == 1, ran.stderr
    assert ran.stderr.startswith("edgepack: "), ran.stderr
    return ran.stderr


def test_less_than_the_libraries_of_the_program_need(bundle: Build, tmp_path: Path) -> None:
    """Where OpenBLAS would end the process, or interrupt it."""
    commands: dict[int, list[object]] = {
        80: ["doctor"], 146: ["run", bundle("tiny"), "x"], 156: ["inspect", bundle("tiny")],
    }  # fmt: skip
    for megabytes, command in commands.items():
        assert "limit of address space" in limited(tmp_path, megabytes, *command)


def test_a_machine_is_examined_where_an_engine_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it lacks is a part of what is told."""

    def no_room(name: str) -> Engine:
        if name == "ort":
            raise ResourceError("onnxruntime: memory ran out while it was loaded")
        return engine(name)

    monkeypatch.setattr(diagnosis, "engine", no_room)
    found = diagnosis.examine()
    assert found["runtimes"]["ort"] == {
        "version": None, "advice": "onnxruntime: memory ran out while it was loaded",
    }  # fmt: skip
    assert found["runtimes"]["openvino"]["version"]
    assert found["gpu"]["providers"] == []


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("how", [[], ["--stream"]])
def test_speaking(bundle: Build, tmp_path: Path, runtime: str, how: list[str]) -> None:
    """From where Python starts to where an engine's libraries, threads and networks find none."""
    for megabytes in (200, 300):
        limited(
            tmp_path, megabytes, "run", bundle("tiny"), "hello", "--format", runtime, *NOISE, *how
        )
    assert contents(tmp_path) == {}


def test_networks_that_are_too_much(bundle: Build, tmp_path: Path) -> None:
    for megabytes in (500, 750, 1000):
        request = ["run", bundle("tiny"), "hello", "--format", "openvino", *NOISE]
        assert "limit of address space" in limited(tmp_path, megabytes, *request)
    assert contents(tmp_path) == {}


def test_measuring(bundle: Build, tmp_path: Path) -> None:
    for command in (["bench", "--no-long", "--baseline", "0", "-o", "a.json"], ["tune"]):
        name, *more = command
        limited(tmp_path, 400, name, bundle("tiny"), *more, "--format", "openvino", *MEASURED, "-q")
    assert contents(tmp_path) == {}


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_building(checkpoints: Checkpoints, tmp_path: Path, runtime: str) -> None:
    request = ["build", checkpoints("tiny"), "-t", "intel-cpu", "--format", runtime, "-o", "a/b"]
    limited(tmp_path, 300, *request, "-q")
    assert not (tmp_path / "a").exists()
