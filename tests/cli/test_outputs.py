"""Outputs that are no new files, and outputs that cannot be: told before the work."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from linked import linked
from outputs import Pipe, device, unchangeable
from support import DATA, Build, Checkpoints

from cli import Cli, contents, samples
from edgepack.bench import measure, page, result, tuning
from edgepack.builder import pipeline
from edgepack.bundle import measurements
from edgepack.runtime import loading

NOISE = ("--guard", "warn")
RESULT = DATA / "fuzz" / "bench" / "result.json"


def never(*arguments: object, **options: object) -> None:
    raise AssertionError("too early")


@pytest.fixture
def tiny(bundle: Build) -> Path:
    return bundle("tiny")


@pytest.mark.parametrize("how", [(), ("--stream",)])
def test_speaking_into_a_pipe(cli: Cli, tiny: Path, how: tuple[str, ...]) -> None:
    with Pipe(Path("pipe")) as pipe:
        told = cli("run", tiny, "hello", "-o", "pipe", *NOISE, *how, "--json").document
    heard, rate = soundfile.read(io.BytesIO(pipe.heard))
    assert len(heard) == round(rate * told["audio_seconds"]) > 0


def test_speaking_into_standard_output(tiny: Path, tmp_path: Path) -> None:
    """With nothing else in it, and without a JSON document."""
    command = [sys.executable, "-m", "edgepack", "run", str(tiny), "hello", *NOISE]
    command += ["-o", "/dev/stdout"]
    told = subprocess.run([*command, "--json"], capture_output=True, cwd=tmp_path, check=False)
    assert told.returncode == 2
    assert b"/dev/stdout: standard output, where the document of --json goes" in told.stderr
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=tmp_path, check=True)
    assert len(soundfile.read(io.BytesIO(done.stdout))[0]) * 2 == len(done.stdout) - 44 > 0
    assert list(tmp_path.iterdir()) == []


def test_speaking_through_a_link_and_into_a_device(cli: Cli, tiny: Path) -> None:
    Path("far").mkdir()
    Path("far/a.wav").write_bytes(b"old")
    Path("link.wav").symlink_to("far/a.wav")
    assert cli("run", tiny, "hello", "-o", "link.wav", *NOISE).code == 0
    assert Path("link.wav").is_symlink()
    assert len(samples(Path("far/a.wav"))[1]) > 0
    null = device(Path("null"), 3)
    for how in ((), ("--stream",)):
        assert cli("run", tiny, "hello", "-o", "null", *NOISE, *how).code == 0
    assert null.is_char_device()


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.ogg", "a.opus"])
def test_a_stream_that_cannot_be_in_a_pipe(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(loading, "open_stage", never)
    os.mkfifo(name)
    ran = cli("run", tiny, "hello", "-o", name, "--stream")
    assert ran.code == 2
    assert ran.message == (
        f"{name}: a stream into a device or a pipe is wav; name it .wav, or leave out --stream"
    )


def test_a_page_in_a_pipe_in_standard_output_and_through_a_link(cli: Cli) -> None:
    with Pipe(Path("pipe")) as pipe:
        assert cli("report", RESULT, "-o", "pipe").code == 0
    assert pipe.heard.startswith(b"<!")
    ran = cli("report", RESULT, "-o", "/dev/stdout")
    assert ran.out.encode() == pipe.heard
    assert cli("report", RESULT, "-o", "-").out == ran.out
    for name in ("-", "/dev/stdout"):
        assert cli("report", RESULT, "-o", name, "--json").code == 2
    assert sorted(contents(Path())) == []
    Path("link").symlink_to("page.html")
    assert cli("report", RESULT, "-o", "link").code == 0
    assert Path("link").is_symlink()
    assert Path("page.html").read_bytes() == pipe.heard


def test_a_measurement_in_pipes_and_in_standard_output(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "run", lambda *arguments: result.read(RESULT))
    with Pipe(Path("one")) as one, Pipe(Path("two")) as two:
        ran = cli("bench", tiny, "--format", "ort", "-o", "one", "--report", "two")
    assert "RTF P50" in ran.out
    assert json.loads(one.heard)["subjects"]
    assert two.heard.startswith(b"<!")
    ran = cli("bench", tiny, "--format", "ort", "-o", "/dev/stdout")
    assert ran.out.encode() == one.heard
    assert cli("bench", tiny, "--format", "ort", "-o", "-").out == ran.out
    assert cli("bench", tiny, "--format", "ort", "--report", "-").out.encode() == two.heard
    for name in ("-", "/dev/stdout"):
        assert cli("bench", tiny, "-o", name, "--json").code == 2
        told = cli("bench", tiny, "-o", name, "--report", name)
        assert (told.code, told.out) == (2, "")
        assert "only one output" in told.message
    assert contents(Path()) == {}


@pytest.mark.parametrize("how", [("-", "--stream"), ("/dev/full", "--stream"), ("/dev/full",)])
def test_a_full_device_is_named(tiny: Path, how: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "edgepack", "run", str(tiny), "hello", *NOISE, "-o", *how]
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert ran.returncode == 5
    assert ran.stderr == f"edgepack: {how[0]}: no space left; free some and try again\n".encode()


def test_standard_output_that_is_closed(tiny: Path, tmp_path: Path) -> None:
    run = f"{sys.executable} -m edgepack run {tiny} hello -o - --stream >&-"
    report = f"{sys.executable} -m edgepack report {RESULT} -o - >&-"
    for command in (run, report):
        ran = subprocess.run(command, shell=True, stderr=subprocess.PIPE, cwd=tmp_path, check=False)
        assert ran.returncode == 2
        assert ran.stderr == b"edgepack: standard output is closed; give the name of a file\n"
    assert contents(tmp_path) == {}


def test_a_folder_that_is_standard_output(cli: Cli, tiny: Path) -> None:
    for command in (["build", "demo", "-t", "intel-cpu"], ["run", tiny, "hello", "--dump"]):
        ran = cli(*command, *(["-o"] if command[0] == "build" else []), "-")
        assert ran.code == 2
        assert ran.message == "-: standard output, which is no folder; give the name of one"
    assert contents(Path()) == {}


def test_a_page_that_fails_leaves_the_measurement(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(results: object) -> str:
        raise RuntimeError("no fonts")

    monkeypatch.setattr(measure, "run", lambda *arguments: result.read(RESULT))
    monkeypatch.setattr(page, "render", fails)
    ran = cli("bench", tiny, "--format", "ort", "--report", "/dev/stdout")
    assert ran.code == 1
    assert "RTF P50" in ran.out
    assert contents(Path()) == {}


def broken(monkeypatch: pytest.MonkeyPatch, folder: Path, package: str, error: str) -> None:
    """A package that is found, and fails when it is imported."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(folder)
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)


BROKEN = {"jinja2": "RuntimeError('half of it')", "matplotlib": "ImportError('half of it')"}


@pytest.mark.parametrize("package", BROKEN)
def test_a_package_that_is_installed_and_broken(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    broken(monkeypatch, tmp_path / "site", package, BROKEN[package])
    monkeypatch.setattr(measure, "run", never)
    monkeypatch.setattr(result, "read", never)
    for command in (["bench", tiny, "--format", "ort", "--report", "a"], ["report", RESULT]):
        ran = cli(*command)
        assert ran.code == 3
        assert ran.message.startswith(package)
        assert "is installed and cannot be imported" in ran.message
        assert ran.message.endswith("half of it); install it again")
    assert contents(Path()) == {}


@pytest.mark.parametrize("error", ["ImportError('no library')", "AttributeError('too new')"])
def test_an_engine_that_is_installed_and_broken(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    broken(monkeypatch, tmp_path / "site", "ai_edge_litert", error)
    ran = cli("run", tiny, "hello", "--format", "tflite")
    assert ran.code == 3
    assert ran.message.startswith("ai_edge_litert")
    assert f"is installed and cannot be imported ({error.partition('(')[0]}" in ran.message
    assert contents(Path()) == {}


def test_a_folder_that_may_not_be_changed(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((loading, "open_stage"), (measure, "run"), (result, "read")):
        monkeypatch.setattr(module, name, never)
    Path("out").mkdir()
    Path("lines").write_text("one")
    with unchangeable(Path("out")):
        for command in (
            ("run", tiny, "hello", "-o", "out/a.wav"),
            ("run", tiny, "hello", "-o", "out/a.wav", "--stream"),
            ("run", tiny, "-f", "lines", "-o", "out"),
            ("run", tiny, "hello", "--dump", "out"),
            ("bench", tiny, "--format", "ort", "-o", "out/a.json"),
            ("bench", tiny, "--format", "ort", "--report", "out/a.html"),
            ("report", RESULT, "-o", "out/a.html"),
        ):
            ran = cli(*command)
            assert (ran.code, ran.message.partition(":")[0]) == (
                2,
                command[-1 - ("--stream" in command)],
            )
    assert contents(Path("out")) == {}


def test_a_plan_that_could_not_be_kept(
    cli: Cli, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "run", never)
    here = linked(tiny, tmp_path).folder
    (tmp_path / f"{here.name}.tuned.json").mkdir()
    ran = cli("tune", here, "--format", "ort")
    assert ran.code == 2
    assert "tuned.json: not a file name but a folder" in ran.message
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with unchangeable(tmp_path):
        ran = cli("tune", here, "--format", "ort")
    assert ran.code == 2
    assert ran.message == f"{tmp_path}/file/edgepack/bundles: Not a directory"


def test_a_sound_file_of_a_line_that_could_not_be(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "open_stage", never)
    Path("lines").write_text("one\ntwo\n")
    Path("out/0002.wav").mkdir(parents=True)
    ran = cli("run", tiny, "-f", "lines", "-o", "out")
    assert ran.code == 2
    assert ran.message.startswith("out/0002.wav: not a file name but a folder")


@pytest.mark.slow
def test_a_bundle_through_a_link(
    cli: Cli, checkpoints: Checkpoints, tiny: Path, tmp_path: Path
) -> None:
    far = linked(tiny, tmp_path).folder
    Path("out").mkdir()
    link = Path("out") / tiny.name
    link.symlink_to(far)
    before = far.stat().st_ino
    args = ("build", checkpoints("tiny"), "-t", "intel-cpu", "--format", "tflite", "-o", "out")
    ran = cli(*args, "--force", "-q")
    assert ran.code == 0, ran.err
    assert link.is_symlink()
    assert far.stat().st_ino != before
    assert json.loads((far / "manifest.json").read_bytes())["build"]
    assert measurements.place(link) == tmp_path / f"{far.name}.build.json"
    assert [path.name for path in Path("out").iterdir()] == [tiny.name]


def in_the_way(place: Path, far: Path) -> str:
    os.mkfifo(place)
    return "something else than a folder is in the way"


def measured(place: Path, far: Path) -> str:
    place.with_name(f"{place.name}.build.json").mkdir()
    return "build.json: not a file name but a folder"


def of_a_hub(place: Path, far: Path) -> str:
    snapshot = far / "snapshots" / "1"
    (far / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    place.symlink_to(snapshot)
    return "in the cache of a hub"


@pytest.mark.parametrize("how", [in_the_way, measured, of_a_hub])
def test_a_bundle_that_could_not_be_put_there(
    cli: Cli,
    checkpoints: Checkpoints,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: object,
) -> None:
    monkeypatch.setattr(pipeline, "_contents", never)
    place = Path("out") / tiny.name
    place.parent.mkdir()
    assert callable(how)
    words = how(place.absolute(), tmp_path / "far")
    ran = cli("build", checkpoints("tiny"), "-t", "intel-cpu", "-o", "out", "--force")
    assert ran.code == 2
    assert words in ran.message
    assert place.is_fifo() or not place.exists() or place.is_symlink()
