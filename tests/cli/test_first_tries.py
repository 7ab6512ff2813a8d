"""What people try first and do not get right: a line that says what was meant."""

import io
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support import Build

from cli import Cli, contents
from edgepack.discovery import unknown
from edgepack.errors import UsageError
from edgepack.files import atomic, charset
from edgepack.profiles.target import names as targets

KEPT: list[object] = []
NOISE = ("--guard", "warn", "--quiet")


@pytest.mark.parametrize("name", ["demo", "nowhere"])
def test_a_bundle_is_looked_for_before_a_text(cli: Cli, name: str) -> None:
    assert f"{name}: no bundle there" in cli("run", name).message


@pytest.mark.parametrize("stream", [[], ["--stream"]])
@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_standard_input_in_another_encoding(
    cli: Cli, bundle: Build, monkeypatch: pytest.MonkeyPatch, stream: list[str], errors: str
) -> None:
    """In the locales C and POSIX Python takes such bytes for lone surrogates."""
    data = io.BytesIO("hello 你好".encode("gb18030"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data, "utf-8", errors=errors))
    ran = cli("run", bundle("tiny"), "-", *stream, *NOISE)
    assert ran.code == 2
    assert ran.message.startswith("standard input: not UTF-8 text; convert it first")


def test_a_text_says_how_to_convert_it(tmp_path: Path) -> None:
    for encoding in ("GB18030", "UTF-16"):
        (tmp_path / "a.txt").write_bytes("你好".encode(encoding))
        with pytest.raises(UsageError, match=f"iconv -f {encoding} -t UTF-8"):
            charset.read(tmp_path / "a.txt")


def test_a_slash_makes_a_folder_whatever_its_name(cli: Cli, bundle: Build) -> None:
    Path("lines.txt").write_text("one\n\ntwo\n", "utf-8")
    ran = cli("run", bundle("tiny"), "-f", "lines.txt", "-o", "v1.2/", *NOISE)
    assert ran.code == 0, ran.err
    assert set(contents(Path())) == {"lines.txt", "v1.2/0001.wav", "v1.2/0002.wav"}


FOLDERS = {"new/": "new.wav", "new": "new.wav", "made": "made/out.wav", ".": "out.wav"}


@pytest.mark.parametrize("output", FOLDERS)
def test_one_text_is_not_written_to_a_folder(cli: Cli, bundle: Build, output: str) -> None:
    Path("made").mkdir()
    ran = cli("run", bundle("tiny"), "hello", "-o", output, *NOISE)
    assert ran.code == 2
    assert ran.message.endswith(f"give a name such as {FOLDERS[output]}")


MEANT = {
    "arm64": "'android-arm64', 'ios-arm64', 'linux-arm64'",
    "gpu": "'nvidia-gpu'?",
    "intel-cp": "'intel-cpu'?",
    "x86": "known: ",
}


@pytest.mark.parametrize("name", MEANT)
def test_a_part_of_names_is_all_that_have_it(name: str) -> None:
    assert MEANT[name] in unknown("target", name, targets())


def test_a_language_with_a_region_is_the_language() -> None:
    assert "mean 'en'?" in unknown("language", "en_US", ["en", "es", "zh"])
    assert "mean 'zh'?" in unknown("language", "zh-CN", ["en", "yue", "zh"])


def limited(folder: Path, size: int, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """`edgepack ARGUMENTS...` where no file may be larger than `size` bytes."""
    command = [sys.executable, "-m", "edgepack", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )  # fmt: skip


@pytest.mark.parametrize("size", [0, 100])
def test_a_full_disk_leaves_no_folder_of_lines(bundle: Build, tmp_path: Path, size: int) -> None:
    """With no byte free even the header of a sound file fails, and libsndfile tries again."""
    (tmp_path / "lines.txt").write_text("one\ntwo\n", "utf-8")
    ran = limited(tmp_path, size, "run", bundle("tiny"), "-f", "lines.txt", "-o", "a/b/", *NOISE)
    assert ran.returncode == 5, ran.stderr
    assert ran.stderr == "edgepack: a/b/0001.wav: no space left; free some and try again\n"
    assert set(contents(tmp_path)) == {"lines.txt"}
    assert not (tmp_path / "a").exists()


def test_a_full_disk_leaves_no_half_of_a_dump(bundle: Build, tmp_path: Path) -> None:
    ran = limited(tmp_path, 200_000, "run", bundle("tiny"), "hello", "--dump", "all/of", *NOISE)
    assert ran.returncode == 5, ran.stderr
    assert ran.stderr.startswith("edgepack: all/of: no space left")
    assert ran.stderr.count("\n") == 1
    assert not (tmp_path / "all").exists()


def test_what_was_measured_is_printed_if_it_cannot_be_kept(
    cli: Cli, bundle: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(atomic, "write_atomically", full)
    measure = ("bench", bundle("tiny"), "--format", "ort", "--sentences", 1, "--rounds", 1,
               "--warm-up", 0, "--no-long", "-o", "kept.json")  # fmt: skip
    shown = cli(*measure)
    assert shown.code == 5
    assert "RTF P50" in shown.out
    assert "kept.json: No space left" in shown.err
    document = cli(*measure, "--json").document
    assert document["error"]["exit_code"] == 5
    assert document["subjects"]


def locks(step: object) -> str:
    import multiprocessing

    KEPT.append(multiprocessing.RLock())  # as tqdm has one; it is unlinked when the process ends
    return "done"


def test_a_process_that_is_done_tidies_up(tmp_path: Path) -> None:
    script = "import test_first_tries as t; from edgepack.process.isolation import isolated\n"
    script += "if __name__ == '__main__': print(isolated(t.locks, step=print))"
    (tmp_path / "a.py").write_text(f"import sys; sys.path += {sys.path!r}\n{script}")
    (tmp_path / "test_first_tries.py").symlink_to(__file__)
    ran = subprocess.run(
        [sys.executable, str(tmp_path / "a.py")], capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.stderr) == ("done\n", "")


NAMED = {
    "--language 中文": "'zh'", "--language 普通话": "'zh'", "--language cn": "'zh'",
    "--language jp": "'ja'", "--language 日本語": "'ja'", "--language korean": "'ko'",
    "--language kr": "'ko'", "--language 粤语": "'yue'", "--language Deutsch": "'de'",
    "--language en,español": "'es'", "--precision 8bit": "'int8'", "--precision int-8": "'int8'",
    "--precision 4-bit": "'int4'", "--precision q8": "'int8'", "--precision float16": "'fp16'",
}  # fmt: skip


@pytest.mark.parametrize("options", NAMED)
def test_other_names_of_languages_and_precisions(cli: Cli, options: str) -> None:
    ran = cli("build", "demo", "-t", "intel-cpu", *options.split())
    assert ran.code == 2
    assert ran.message.endswith(f"did you mean {NAMED[options]}?")


def test_the_demo_in_another_case(cli: Cli) -> None:
    ran = cli("build", "Demo", "-t", "intel-cpu")
    assert (ran.code, ran.message) == (2, "Demo: no such checkpoint folder; did you mean 'demo'?")


def test_a_file_of_a_bundle_is_the_bundle(cli: Cli, bundle: Build) -> None:
    ran = cli("run", bundle("tiny") / "manifest.json", "hello")
    assert ran.code == 2
    assert ran.message.endswith(f"; did you mean {bundle('tiny')}?")
    Path("a.wav").touch()
    assert cli("run", "a.wav", "hello").message.endswith("; give the folder of a bundle")
