"""What cannot work is refused before anything is loaded, hashed, built or measured."""

import shutil
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support import GOLDEN, Build, Checkpoints

from cli import Cli, contents
from edgepack.bench import measure, page
from edgepack.builder import planning
from edgepack.errors import UsageError
from edgepack.model.checkpoint.folder import Checkpoint
from edgepack.runtime import loading
from edgepack.verification import selftest

RECORDING = GOLDEN / "common" / "prompt_24k.wav"


def never(*arguments: object, **options: object) -> None:
    raise AssertionError("too early")


RUN = {
    "--voice randon": "did you mean 'random'",
    "--mode sff": "did you mean 'sft'",
    "--solver calibratd": "did you mean 'calibrated'",
    "--solver calibrated": "has no calibrated solver",
    "--energy rappl": "did you mean 'rapl'",
    "--output /proc/a.wav": "/proc/a.wav: ",
    "--dump /proc/dump": "/proc/dump: ",
}


@pytest.mark.parametrize("options", RUN)
def test_speaking(cli: Cli, bundle: Build, monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setattr(loading, "open_stage", never)
    ran = cli("run", bundle("tiny"), "hello", *options.split())
    assert ran.code == 2
    assert RUN[options] in ran.message
    assert ".tmp" not in ran.err


@pytest.mark.parametrize("given", ["-f nofile", "--convert nofile", "--speech-tokens nofile"])
def test_speaking_what_is_not_there(
    cli: Cli, bundle: Build, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setattr(loading, "open_stage", never)
    ran = cli("run", bundle("tiny"), *given.split())
    assert ran.code == 2
    assert "nofile: " in ran.message


def three_hours(path: Path) -> None:
    """A sound file of which nothing but the header is on the disk."""
    size = 3 * 3600 * 48000 * 2
    chunks = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 48000, 96000, 2, 16)
    with path.open("wb") as file:
        file.write(b"RIFF" + struct.pack("<I", size + 36) + b"WAVE" + chunks)
        file.write(b"data" + struct.pack("<I", size))
        file.truncate(44 + size)


BUILD = {
    "-t intel-cpux": "did you mean 'intel-cpu'",
    "-t intel-cpu --format opnvino": "did you mean 'openvino'",
    "-t intel-cpu --precision INT8": "int8",
    "-t intel-cpu --solver refrence": "solver 'refrence'",
    "-t intel-cpu --recipe nofile": "nofile",
    "-t intel-cpu --language zh --keep-text nofile": "nofile",
    "-t intel-cpu --calibration nofile": "nofile",
    "-t intel-cpu --calibration spoken": "spoken/anna.wav: 10800.0 s long",
    "-t intel-cpu --voice me=short.wav:Hi": "short.wav: 0.0 s long",
    "-t intel-cpu --output /proc/out": "/proc/out: ",
}


@pytest.mark.parametrize("options", BUILD)
def test_building(
    cli: Cli, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    monkeypatch.setattr(Checkpoint, "sha256", never)
    data = RECORDING.read_bytes()
    Path("short.wav").write_bytes(data[:44])
    Path("spoken").mkdir()
    Path("spoken/a.txt").write_text("line\n" * 8)
    Path("spoken/._a.txt").write_bytes(b"\xff")
    Path("spoken/anna.txt").write_text("Hi")
    three_hours(Path("spoken/anna.wav"))
    before = [path for path in Path().rglob("*") if path.is_file()]
    ran = cli("build", checkpoints("tiny"), *options.split())
    assert ran.code == 2
    assert BUILD[options] in ran.message
    assert {path for path in Path().rglob("*") if path.is_file()} == set(before)


def test_a_disk_that_is_too_small_for_a_build(
    cli: Cli, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 10**5, 10**5)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    ran = cli("build", checkpoints("tiny"), "-t", "intel-cpu", "-o", "a/b")
    assert ran.code == 5
    assert "a/b: 0 MB are free on its disk" in ran.message
    assert not Path("a").exists()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_page_needs_its_packages(
    cli: Cli, bundle: Build, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(measure, "run", never)
    ran = cli("bench", bundle("tiny"), "--report", "page.html")
    assert ran.code == 3
    assert ran.message == f"{package} is not installed; pip install 'edgepack[report]'"


BENCH = {
    "--voice randon": "did you mean 'random'",
    "--solver calibratd": "did you mean 'calibrated'",
    "--energy rappl": "did you mean 'rapl'",
    "-f nofile": "nofile",
    "--report /proc/page.html": "/proc/page.html: ",
    "-o nowhere/result.json": "nowhere/result.json: not a file name",
}


@pytest.mark.parametrize("options", BENCH)
def test_measuring(cli: Cli, bundle: Build, monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setattr(measure, "run", never)
    ran = cli("bench", bundle("tiny"), "--format", "ort", *options.split())
    assert ran.code == 2
    assert BENCH[options] in ran.message


VERIFY = {
    "--against nowhere": "nowhere: none of flow.npz, ",
    "--solver calibratd": "did you mean 'calibrated'",
    "--solver calibrated": "has no calibrated solver",
}


@pytest.mark.parametrize("options", VERIFY)
def test_verifying(cli: Cli, bundle: Build, monkeypatch: pytest.MonkeyPatch, options: str) -> None:
    monkeypatch.setattr(selftest, "run", never)
    ran = cli("verify", bundle("tiny"), "--format", "ort", *options.split())
    assert ran.code == 2
    assert VERIFY[options] in ran.message


@pytest.mark.parametrize("extra", [[], ["--json"], ["-o", "kept.json"]])
def test_what_was_measured_outlives_its_page(
    cli: Cli, bundle: Build, monkeypatch: pytest.MonkeyPatch, extra: Sequence[str]
) -> None:
    def fails(results: object) -> str:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(page, "render", fails)
    ran = cli(
        "bench", bundle("tiny"), "--format", "ort", "--sentences", 1, "--rounds", 1,
        "--warm-up", 0, "--no-long", "--report", "page.html", *extra,
    )  # fmt: skip
    assert ran.code == 1
    kept = "kept.json" if "-o" in extra else "page.json"
    assert f"no fonts); {kept} has what was measured" in ran.err
    assert set(contents(Path())) == {kept}
    assert ("RTF P50" in ran.out) == (extra != ["--json"])
    monkeypatch.undo()


def test_names_are_checked_before_a_checkpoint_is_opened() -> None:
    request = planning.BuildRequest("nowhere", ["intel-cpux"], Path("out"))
    with pytest.raises(UsageError, match="did you mean 'intel-cpu'"):
        planning.require_possible(request)
