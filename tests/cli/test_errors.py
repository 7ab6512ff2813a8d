"""Every failure is one line on stderr and an exit code; with --json also one document."""

import errno
import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from support import Build, Checkpoints

from cli import Cli, contents
from edgepack.errors import (
    EdgepackError,
    GateError,
    IntegrityError,
    ResourceError,
    UnsupportedError,
    UsageError,
)
from edgepack.profiles import target

FAILURES = [
    (GateError("too far\n off"), 1, "gate", "too far off"),
    (UsageError("no"), 2, "usage", "no"),
    (UnsupportedError("no"), 3, "unsupported", "no"),
    (IntegrityError("no"), 4, "integrity", "no"),
    (ResourceError("no"), 5, "resources", "no"),
    (KeyboardInterrupt(), 5, "resources", "interrupted"),
    (MemoryError(), 5, "resources", "memory ran out"),
    (OSError(errno.ENOSPC, "No space left on device", "a.wav"), 5, "resources", "a.wav: no space"),
    (OSError(errno.EFBIG, "File too large", "a.wav"), 5, "resources", "a.wav: no space"),
    (OSError(errno.EDQUOT, "Disk quota exceeded"), 5, "resources", "no space left"),
    (FileNotFoundError(errno.ENOENT, "No such file", "a.txt"), 2, "usage", "a.txt: No such file"),
    (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "usage", "x: Permission denied"),
    (ModuleNotFoundError(name="onnxruntime"), 3, "unsupported", "'edgepack[ort]'"),
    (ModuleNotFoundError(name="openvino.op"), 3, "unsupported", "openvino is not installed"),
    (ModuleNotFoundError(name="onnxscript"), 3, "unsupported", "'edgepack[build]'"),
    (PackageNotFoundError("onnx-ir"), 3, "unsupported", "onnx-ir is not installed"),
    (ValueError("odd\nthing"), 1, "error", "internal error: ValueError: odd thing"),
    (RecursionError(), 1, "error", "internal error: RecursionError"),
    (EdgepackError("no"), 1, "error", "no"),
]


def fail(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let `edgepack targets` end with an error."""

    def names() -> list[str]:
        raise error

    monkeypatch.setattr(target, "names", names)


def test_a_message_quotes_nothing_that_a_terminal_obeys_or_without_end() -> None:
    assert str(UsageError("a\x1b[2J\x00\ud800 ä中")) == "a\\x1b[2J\\x00\\ud800 ä中"
    found = str(UsageError(f"file: {'x' * 10**6}; do this"))
    assert found.startswith("file: xxx")
    assert found.endswith("xxx; do this")
    assert len(found) < 2000


@pytest.mark.parametrize("character", ["x", "\x7f", "\U000e0001", "\n x"])
def test_a_message_that_quotes_a_file_has_an_end(character: str) -> None:
    """Counted as it is shown: a control character takes four, one beyond Unicode's first ten."""
    message = str(IntegrityError(f"a: {character * 1999}; refused"))
    assert len(message) < 2000
    assert message.isprintable()
    assert message.endswith("; refused")


@pytest.mark.parametrize(("error", "code", "kind", "text"), FAILURES)
def test_every_error_is_one_line_and_an_exit_code(
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    kind: str,
    text: str,
) -> None:
    fail(monkeypatch, error)
    ran = cli("targets")
    line = ran.err.strip()  # an interrupt ends the line of the terminal's ^C first
    assert (ran.code, ran.out) == (code, "")
    assert line.startswith("edgepack: ")
    assert "\n" not in line
    assert text in line
    as_json = cli("targets", "--json")
    message = line.removeprefix("edgepack: ")
    assert as_json.code == code
    assert as_json.err.strip() == line
    assert as_json.document == {"error": {"kind": kind, "exit_code": code, "message": message}}


def test_a_bug_shows_where_it_is_when_asked_to(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, ValueError("odd"))
    monkeypatch.setenv("EDGEPACK_DEBUG", "1")
    with pytest.raises(ValueError, match="odd"):
        cli("targets")


def test_what_the_user_did_wrong_is_one_line_in_debug_too(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEPACK_DEBUG", "1")
    assert "unknown command" in cli("nope").message


REFUSED = {
    "": "no command; give one of bench, build, doctor, export, inspect, report, run",
    "voice": "no command; give one of add, default, list, remove",
    "vioce": "did you mean 'voice'",
    "voice ad": "Did you mean 'add'",
    "--jsn": "No such option",
    "targets --quite": "Did you mean '--quiet'",
    "targets intel-cp": "unknown target 'intel-cp'; did you mean 'intel-cpu'",
    "targets intel-cpu another": "unexpected extra argument",
    "build": "Missing argument 'MODEL'",
    "build demo": "Missing option '--target'; 'edgepack targets' lists the devices",
    "build demo -t intel-cpux": "did you mean 'intel-cpu'",
    "build demo -t intel-cpu --format openvin": "did you mean 'openvino'",
    "build demo -t intel-cpu --precision fp31": "unknown precision 'fp31'; did you mean 'fp32'",
    "build nowhere -t intel-cpu": "nowhere: no such checkpoint folder",
    "build demo -t raspberrypi": "did you mean 'linux-arm64-rpi4', 'linux-arm64-rpi5' or ",
    "build demo -t GPU": "did you mean 'nvidia-gpu'?",
    "build demo -t intel-cpu --precision INT8": "did you mean 'int8'?",
    "build demo -t intel-cpu --language chinese": "unknown language 'chinese'; did you mean 'zh'?",
    "run demo hello": "'edgepack build demo --target NAME' makes one",
    "inspect nowhere": "nowhere",
    "run": "Missing argument 'BUNDLE'",
    "run nowhere hello": "nowhere: no bundle there",
    "run nowhere hello --threads 0": "'--threads'",
    "run nowhere hello --seed -1": "'--seed'",
    "run nowhere hello --speed 9": "'--speed'",
    "run nowhere hello --steps 0": "'--steps'",
    "run nowhere hello --guard off": "'--guard'",
    "verify nowhere": "nowhere: no bundle there",
    "voice list nowhere": "nowhere: no bundle there",
    "voice add nowhere n a.wav": "Missing option '--text'",
    "voice add nowhere n a.wav --text t": "nowhere: no bundle there",
}


@pytest.mark.parametrize("line", REFUSED)
def test_what_does_not_exist_is_refused_and_nothing_is_written(cli: Cli, line: str) -> None:
    ran = cli(*line.split())
    assert ran.code == 2
    assert ran.out == ""
    assert REFUSED[line] in ran.message
    as_json = cli(*line.split(), "--json")
    assert as_json.code == 2
    assert as_json.document["error"]["kind"] == "usage"
    assert as_json.document["error"]["message"] == as_json.message
    assert contents(Path()) == {}


BAD_NAMES = {
    "--voice randon": "unknown voice 'randon'; did you mean 'random'",
    "--format openvin": "unknown runtime 'openvin'; did you mean 'openvino'",
    "--mode sff": "unknown mode 'sff'; did you mean 'sft'",
    "--mode zero-shot": "needs a voice with a prompt, and 'random' has none",
    "--mode instruct": "give both or neither",
    "--mode sft --instruct slowly": "give both or neither",
    "--output nowhere/a.wav": "nowhere/a.wav: not a file name in a folder that exists",
    "--output .": ".: not a file name",
}


@pytest.mark.parametrize("options", BAD_NAMES)
def test_run_refuses_what_the_bundle_does_not_have(cli: Cli, bundle: Build, options: str) -> None:
    ran = cli("run", bundle("tiny"), "hello", *options.split())
    assert ran.code == 2
    assert BAD_NAMES[options] in ran.message
    assert contents(Path()) == {}


def test_a_missing_target_names_the_one_of_this_machine(cli: Cli) -> None:
    named = cli("build", "demo").message.rsplit(" ", 1)[1]
    assert target.load(named).architecture == platform.machine()


def test_a_checkpoint_and_a_folder_of_bundles_are_no_bundle(
    cli: Cli, bundle: Build, checkpoints: Checkpoints
) -> None:
    tiny = checkpoints("tiny")
    ran = cli("run", tiny, "hello")
    assert ran.code == 2
    assert f"it is a checkpoint; 'edgepack build {tiny} --target NAME' makes one" in ran.message
    built = bundle("tiny")
    assert f"did you mean {built}?" in cli("run", built.parent, "hello").message


def test_text_in_another_encoding_says_how_to_convert_it(cli: Cli, bundle: Build) -> None:
    Path("gb.txt").write_bytes("你好".encode("gb18030"))
    tiny = bundle("tiny")
    for command in (("run", tiny, "-f", "gb.txt"), ("bench", tiny, "-f", "gb.txt")):
        ran = cli(*command)
        assert ran.code == 2
        assert ran.message.startswith("gb.txt: not UTF-8 text; convert it first")
        assert "iconv" in ran.message


def test_a_recording_in_another_format_says_how_to_convert_it(cli: Cli, bundle: Build) -> None:
    Path("me.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    ran = cli("run", bundle("tiny"), "--convert", "me.m4a")
    assert ran.code == 2
    assert "ffmpeg -i me.m4a me.wav" in ran.message


def test_a_path_that_is_not_utf8_is_one_line(cli: Cli, bundle: Build) -> None:
    name = os.fsdecode(b"caf\xe9")
    for command in (
        ("run", name, "hello"),
        ("run", bundle("tiny"), "hello", "-f", name),
        ("build", name, "-t", "intel-cpu"),
        ("inspect", name),
        ("verify", name),
        ("voice", "add", bundle("tiny"), "me", name, "--text", "hi"),
        ("voice", "add", bundle("tiny"), name, "a.wav", "--text", "hi"),
    ):
        ran = cli(*command)
        assert ran.code == 2, command
        assert "internal error" not in ran.message
    shutil.copytree(bundle("tiny"), name, copy_function=os.link)
    ran = cli("run", name, "hello")
    assert ran.code == 2
    assert "not a UTF-8 name" in ran.message
