"""Checkpoints read in a process with limits: whatever a reader missed is one line."""

import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import DATA

from edgepack.builder.download import Downloaded
from edgepack.builder.planning import open_source
from edgepack.builder.survey import reading, summary, survey, writing
from edgepack.bundle.manifest import Origin
from edgepack.cli import main
from edgepack.errors import EdgepackError, IntegrityError, ResourceError, UsageError
from edgepack.model.inspection import inspect_checkpoint
from edgepack.model.releases import Recognised
from edgepack.process.isolation import Bounds, isolated
from edgepack.report import Step, silent

SOURCE = DATA / "checkpoints" / "cosyvoice2-s2"
MB = 1 << 20


def crashes(step: Step) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
    time.sleep(60)


def grows(step: Step) -> int:
    return len(bytearray(300 * MB))


def spins(step: Step) -> None:
    while True:
        pass


def misses(step: Step) -> None:
    raise KeyError("a missing case")


def writes(folder: Path, step: Step) -> None:
    (folder / "a").write_bytes(b"x" * 4096)


@pytest.mark.parametrize(
    ("function", "arguments", "error", "match"),
    [
        (crashes, (), IntegrityError, r"model: what reads it crashed \(code -11\)"),
        (grows, (), ResourceError, "model: what reads it took more than 200 MiB of memory"),
        (spins, (), ResourceError, "model: what reads it took more than 1 s of processor time"),
        (misses, (), IntegrityError, r"model: cannot be read \(KeyError: 'a missing case'\)"),
        (writes, "here", ResourceError, "model: what reads it took more than 0 MiB in a file"),
    ],
)
def test_what_a_reader_missed_is_one_line(
    function: Callable[..., object],
    arguments: object,
    error: type[EdgepackError],
    match: str,
    tmp_path: Path,
) -> None:
    given = (tmp_path,) if arguments else ()
    bounds = Bounds("model", 200 * MB, 1 if function is spins else 60)
    with pytest.raises(error, match=match) as caught:
        isolated(function, *given, step=silent, bounds=bounds)
    assert type(caught.value) is error


def limits(step: Step) -> list[int]:
    kinds = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)
    return [resource.getrlimit(kind)[0] for kind in kinds]


def test_limits_follow_the_size_of_the_files() -> None:
    before = limits(silent)
    memory, seconds, written, core = isolated(limits, step=silent, bounds=reading(SOURCE))
    size = sum(path.stat().st_size for path in SOURCE.rglob("*") if path.is_file())
    assert 2 * size < memory - (2 << 30) < 2 * size + (1 << 30)
    assert 60 <= seconds < 70
    assert (written, core) == (0, 0)
    assert writing(SOURCE).written > 1 << 30
    assert limits(silent) == before


def test_the_process_finds_what_this_one_would() -> None:
    here, there = open_source(str(SOURCE)), survey(str(SOURCE))
    assert (there.name, there.family_name, there.hashes) == (
        here.name, here.family_name, here.hashes
    )  # fmt: skip
    assert there.checkpoint.folder == here.checkpoint.folder
    assert summary(str(SOURCE)) == (inspect_checkpoint(SOURCE), None)


@pytest.mark.parametrize(
    ("repository", "names"),
    [
        ("CosyVoice-300M-Instruct", ("CosyVoice-300M-Instruct",)),
        ("renamed", ("CosyVoice-300M-SFT", "CosyVoice-300M-Instruct")),
    ],
)
def test_the_repository_tells_releases_of_the_same_networks_apart(
    repository: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = Origin(hub="huggingface", repository=f"FunAudioLLM/{repository}", revision="4ad")
    either = Recognised("CosyVoice 1", ("CosyVoice-300M-SFT", "CosyVoice-300M-Instruct"))
    read = replace(inspect_checkpoint(SOURCE), release=either)
    monkeypatch.setattr("edgepack.builder.survey.download", lambda *_: Downloaded(SOURCE, origin))
    monkeypatch.setattr("edgepack.builder.survey.isolated", lambda *_, **__: read)
    told, downloaded = summary(origin.repository)
    assert told.release.names == names
    assert downloaded is not None
    assert downloaded.origin.revision == "4ad"


@pytest.mark.parametrize("model", ["nowhere", "no\0where", "/"])
def test_what_is_no_checkpoint_is_not_measured(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgepack.builder.survey.reading", lambda folder: pytest.fail("measured"))
    with pytest.raises(UsageError, match=r"no such checkpoint folder|not a CosyVoice checkpoint"):
        survey(model)
    with pytest.raises(UsageError, match=r"no such checkpoint folder|not a CosyVoice checkpoint"):
        summary(model)


@pytest.mark.parametrize("command", ["inspect", "build"])
def test_a_reader_that_crashes_is_one_line_of_a_command(
    command: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a module that the process imports in place of the reader, as nothing crashes the real."""
    model = tmp_path / "model"
    shutil.copytree(SOURCE, model)
    planted = tmp_path / "sitecustomize.py"
    planted.write_text(
        "import os, sys\n"
        "class Crash:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'edgepack.model.families.cosyvoice2':\n"
        "            os.abort()\n"
        "sys.meta_path.insert(0, Crash())\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    more = ["-t", "intel-cpu", "-o", str(tmp_path / "out")] if command == "build" else []
    assert main([command, str(model), *more]) == IntegrityError.exit_code
    (*_, line) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"edgepack: {model}: what reads it crashed (code -6)")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
