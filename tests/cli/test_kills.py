"""Programs that are killed while they write leave what was there before, or the new thing, whole.

An audit hook in every process of a command counts changes below the output folder, and kills the
whole process group at the one that is chosen.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import GOLDEN, Build, Checkpoints

from edgepack.bundle import open_bundle

HOOK = """
import os, signal, sys
watched, counter = os.environ["KILL_WATCH"], os.environ["KILL_COUNT"]
fatal = int(os.environ["KILL_AT"])
tally = os.open(counter, os.O_WRONLY | os.O_APPEND)
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate",
           "shutil.rmtree", "shutil.copyfile", "shutil.move"}
WRITES = os.O_WRONLY | os.O_RDWR

def hook(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        if isinstance(path, int) or not (flags or 0) & WRITES:
            return
    elif event not in CHANGES:
        return
    if not any(isinstance(a, (str, bytes, os.PathLike)) and
               os.path.abspath(os.fsdecode(a)).startswith(watched) for a in arguments[:2]):
        return
    os.write(tally, b".")
    if fatal and os.fstat(tally).st_size == fatal:
        os.killpg(0, signal.SIGKILL)

sys.addaudithook(hook)
"""
TEXT = "Good morning."


@dataclass(frozen=True)
class Command:
    """A command line on a folder, and what the folder says of it: a short name of its state."""

    arguments: Callable[[Path], Sequence[object]]
    state: Callable[[Path], str]


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hook")
    (folder / "sitecustomize.py").write_text(HOOK)
    return folder


def run(hooked: Path, arguments: Sequence[object], watched: Path, fatal: int) -> int:
    """Run a command that is killed at a change; how many there were."""
    counter = watched.with_name(f"{watched.name}.count")
    counter.write_bytes(b"")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(hooked), os.environ.get("PYTHONPATH", "")]),
        "KILL_WATCH": str(watched),
        "KILL_COUNT": str(counter),
        "KILL_AT": str(fatal),
    }
    command = [sys.executable, "-m", "edgepack", *map(str, arguments), "--quiet"]
    done = subprocess.run(
        command, env=environment, capture_output=True, start_new_session=True, check=False
    )
    assert done.returncode == (-signal.SIGKILL if fatal else 0), done.stderr.decode()
    return counter.stat().st_size


def whole(folder: Path) -> str:
    """A bundle's state: its key and voices, every file of it checked."""
    bundle = open_bundle(folder)
    bundle.check(bundle.manifest.files)
    return f"{bundle.manifest.build} {sorted(bundle.manifest.voices)}"


def survives(
    hooked: Path,
    tmp_path: Path,
    before: Path,
    command: Command,
    points: int,
) -> None:
    """Kill the command at up to `points` changes, spread over all of them."""
    watched = tmp_path / "work"

    def fresh() -> Path:
        shutil.rmtree(watched, ignore_errors=True)
        shutil.copytree(before, watched)
        return watched

    old = command.state(fresh())
    count = run(hooked, command.arguments(watched), watched, 0)
    new = command.state(watched)
    left = names(watched)
    assert new != old
    assert count >= 2
    chosen = sorted({1 + (count - 1) * n // max(points - 1, 1) for n in range(points)})
    seen = set()
    for fatal in chosen:
        run(hooked, command.arguments(fresh()), watched, fatal)
        state = command.state(watched)
        assert state in (old, new), f"killed at change {fatal} of {count}"
        seen.add(state)
        assert state == old or fatal > 1
    assert old in seen
    run(hooked, command.arguments(watched), watched, 0)
    assert command.state(watched) == new  # and what the last kill left is no hindrance
    assert names(watched) == left  # nor there any more


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def heard(folder: Path) -> str:
    return str(hash((folder / "out.wav").read_bytes()))


@pytest.mark.parametrize("stream", [[], ["--stream"]], ids=["whole", "stream"])
def test_run(hooked: Path, tmp_path: Path, bundle: Build, stream: list[str]) -> None:
    before = tmp_path / "before"
    before.mkdir()
    (before / "out.wav").write_bytes(b"what was there")
    demo = bundle("demo")
    command = Command(
        lambda folder: ["run", demo, TEXT, "-o", folder / "out.wav", "--guard", "warn", *stream],
        heard,
    )
    survives(hooked, tmp_path, before, command, 6)


def test_voice_add(hooked: Path, tmp_path: Path, bundle: Build) -> None:
    recording = GOLDEN / "common" / "prompt_24k.wav"
    command = Command(
        lambda folder: ["voice", "add", folder, "anna", recording, "--text", "good", "--force"],
        whole,
    )
    survives(hooked, tmp_path, bundle("tiny"), command, 8)


@pytest.mark.parametrize(
    "points", [3, pytest.param(40, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_build(
    hooked: Path, tmp_path: Path, bundle: Build, checkpoints: Checkpoints, points: int
) -> None:
    tiny = bundle("tiny")
    before = tmp_path / "before"
    before.mkdir()
    shutil.copytree(tiny, before / tiny.name)

    def arguments(folder: Path) -> Sequence[object]:
        model = checkpoints("tiny")
        options = ["--format", "ort", "--precision", "fp16", "--force"]
        return ["build", model, "--target", "intel-cpu", "-o", folder, *options]

    survives(hooked, tmp_path, before, Command(arguments, lambda f: whole(f / tiny.name)), points)
