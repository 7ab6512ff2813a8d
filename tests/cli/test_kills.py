"""Programs that are killed while they write leave what was there before, or the new thing, whole.

All processes of a command are killed, at changes of the output folder that are spread over the run.
"""

import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import killing
import pytest
from support import GOLDEN, Build, Checkpoints

from edgepack.bundle.bundle import open_bundle

TEXT = "Good morning."


@dataclass(frozen=True)
class Command:
    """A command line on a folder, and what the folder says of it: a short name of its state."""

    arguments: Callable[[Path], Sequence[object]]
    state: Callable[[Path], str]


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hook")
    (folder / "sitecustomize.py").write_text(killing.HOOK)
    return folder


def run(hooked: Path, arguments: Sequence[object], watched: Path, fatal: int) -> int:
    """Run a command that is killed at a change; how many there were."""
    done = killing.run(hooked, arguments, watched, killing.Shot(change=fatal))
    assert done.code == (-signal.SIGKILL if fatal else 0), done.lines
    return done.changes


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


@pytest.mark.parametrize(
    "stream", [pytest.param([], marks=pytest.mark.slow), ["--stream"]], ids=["whole", "stream"]
)
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


@pytest.mark.slow
def test_voice_add(hooked: Path, tmp_path: Path, bundle: Build) -> None:
    recording = GOLDEN / "common" / "prompt_24k.wav"
    command = Command(
        lambda folder: ["voice", "add", folder, "anna", recording, "--text", "good", "--force"],
        whole,
    )
    survives(hooked, tmp_path, bundle("tiny"), command, 8)


@pytest.mark.parametrize(
    "points", [pytest.param(n, marks=pytest.mark.slow) for n in (3, 40)], ids=["some", "many"]
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
