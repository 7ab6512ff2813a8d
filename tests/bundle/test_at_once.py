"""Several processes at work on one bundle: nothing is lost, and who waits says for whom."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from linked import linked
from support import GOLDEN, Build, Checkpoints

from edgepack.bundle import voices
from edgepack.bundle.bundle import MANIFEST, open_bundle
from edgepack.errors import UsageError
from edgepack.files import locks

EDGEPACK = [sys.executable, "-m", "edgepack"]
HOLDING = """
import sys
from pathlib import Path
from edgepack.files import locks
with locks.alone(Path(sys.argv[1])):
    print("ready", flush=True)
    sys.stdin.read()
"""


def started(*command: object, **options: object) -> "subprocess.Popen[str]":
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*map(str, command)], stdin=pipe, stdout=pipe, stderr=pipe, text=True, **options
    )  # type: ignore[call-overload]


def holder(place: Path) -> "subprocess.Popen[str]":
    """A process that has the lock of a place."""
    process = started(sys.executable, "-c", HOLDING, place)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


ADDING = """
import sys
from pathlib import Path
from edgepack.bundle import voices
from edgepack.bundle.bundle import open_bundle
bundle = open_bundle(Path(sys.argv[1]))
voice = voices.read(bundle, None)[1]
print("ready", flush=True)
sys.stdin.readline()
for number in range(4):
    voices.add(bundle, f"{sys.argv[2]}{number}", voice)
    voices.make_default(bundle, f"{sys.argv[2]}{number}")
"""


def test_voices_that_are_added_at_once_are_all_there(bundle: Build, tmp_path: Path) -> None:
    tiny = linked(bundle("tiny"), tmp_path)
    adding = [started(sys.executable, "-c", ADDING, tiny.folder, name) for name in "abc"]
    for process in adding:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in adding:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in adding:
        _, said = process.communicate()
        assert process.returncode == 0, said
    found = open_bundle(tiny.folder)
    assert set(found.manifest.voices) == {"random"} | {f"{n}{i}" for n in "abc" for i in range(4)}
    found.check(found.manifest.files)
    assert not list(tiny.folder.glob(".*"))


@pytest.mark.slow
def test_two_builds_of_one_bundle_take_turns(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """The second says who builds, and finds the bundle there."""
    command = [*EDGEPACK, "build", checkpoints("tiny"), "-t", "intel-cpu", "--format", "ort"]
    both = [started(*command, "-o", tmp_path / "shared") for _ in range(2)]
    ended = [(process, *process.communicate()) for process in both]
    assert [process.returncode for process in both] == [0, 0], ended
    (waited,) = [(out, err) for _, out, err in ended if "waiting" in err]
    (other,) = [process.pid for process, _, err in ended if "waiting" not in err]
    assert f"tiny-intel-cpu: process {other} on {os.uname().nodename} is at work on it" in waited[1]
    assert "is up to date" in waited[0]
    names = {path.name for path in (tmp_path / "shared").iterdir()}
    assert names == {"tiny-intel-cpu", "tiny-intel-cpu.build.json"}


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    place = tmp_path / "new" / "b"
    process = holder(place)
    waiting = started(sys.executable, "-c", HOLDING, place)
    assert waiting.stderr
    assert waiting.stderr.readline() == (
        f"edgepack: {place}: process {process.pid} on {os.uname().nodename} is at work on it; "
        "waiting\n"
    )
    process.send_signal(signal.SIGKILL)
    assert waiting.communicate()[0] == "ready\n"
    process.communicate()
    assert waiting.returncode == 0
    assert not list(place.parent.iterdir())


def test_who_waits_in_a_folder_that_is_removed_makes_it_again(tmp_path: Path) -> None:
    place = tmp_path / "new" / "b"
    with locks.alone(place):
        waiting = started(sys.executable, "-c", HOLDING, place)
        assert waiting.stderr
        assert waiting.stderr.readline()
    assert waiting.communicate()[0] == "ready\n"
    assert waiting.returncode == 0


def test_a_lock_is_no_other_processes_to_remove(tmp_path: Path) -> None:
    """Of a bundle that was replaced: the next has a lock of the same name by then."""
    place = tmp_path / "b"
    with locks.alone(place):
        locks.file_of(place).rename(tmp_path / "gone")
        with holder(place) as other:
            assert locks.file_of(place).is_file()
            theirs = locks.file_of(place).read_text()
            assert theirs.split()[1] == str(other.pid)
            other.communicate()


def test_a_voice_waits_for_a_build_that_replaces_its_bundle(bundle: Build, tmp_path: Path) -> None:
    tiny = linked(bundle("tiny"), tmp_path)
    with locks.alone(tiny.folder / MANIFEST):
        adding = started(*EDGEPACK, "voice", "default", tiny.folder, "random")
        assert adding.stderr
        assert f"process {os.getpid()} on" in adding.stderr.readline()
        time.sleep(0.3)
        assert adding.poll() is None
    said = adding.communicate()
    assert adding.returncode == 0, said


def test_what_a_hub_shares_is_not_changed(bundle: Build, tmp_path: Path) -> None:
    from hub_cache import snapshot_of

    found = open_bundle(snapshot_of(bundle("tiny"), tmp_path))
    before = (found.folder / MANIFEST).read_bytes()
    with pytest.raises(UsageError, match="in the cache of a hub"):
        voices.add(found, "more", voices.read(found, None)[1])
    assert (found.folder / MANIFEST).read_bytes() == before


def test_a_bundle_that_cannot_be_changed_is_refused_before_a_recording_is_heard(
    bundle: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgepack.cli import main
    from edgepack.runtime.audio import waveform

    def never(path: Path) -> None:
        raise AssertionError("too early")

    monkeypatch.setattr(waveform, "read", never)
    demo = linked(bundle("demo"), tmp_path)
    monkeypatch.setattr(voices, "require_writable", refuse)
    recording = GOLDEN / "common" / "prompt_24k.wav"
    arguments = ["voice", "add", str(demo.folder), "me", str(recording), "-t", "Hi"]
    assert main(arguments) == 2


def refuse(path: Path) -> None:
    raise PermissionError(13, "Permission denied", str(path))
