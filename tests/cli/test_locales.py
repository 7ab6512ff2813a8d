"""Text in the encodings that people have: real processes in locales that are made for the test."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import Build

from cli import Cli, copied
from edgepack.builder.planning import VoiceRequest
from edgepack.bundle import voices
from edgepack.bundle.bundle import open_bundle
from edgepack.errors import UsageError
from edgepack.files import charset

LOCALES = {"zh_CN": "GBK", "de_DE": "ISO-8859-1"}
TEXT = "你好。今天天气很好。"
GBK, UTF_8, MARKED = TEXT.encode("gbk"), TEXT.encode(), b"\xef\xbb\xbf" + TEXT.encode()
CONVERT = "not UTF-8 text; convert it first, such as with 'iconv -f GB18030 -t UTF-8'"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of locales, which glibc compiles from what its package has of them."""
    folder = tmp_path_factory.mktemp("locales")
    if not shutil.which("localedef") or not Path("/usr/share/i18n/locales").is_dir():
        pytest.skip("no localedef here, or no sources of locales")
    for name, encoding in LOCALES.items():
        to = str(folder / f"{name}.{encoding}")
        subprocess.run(["localedef", "-c", "-i", name, "-f", encoding, to], check=True)
    return folder


def spoken(
    bundle: Path, locales: Path | None, locale: str, *arguments: bytes | str, data: bytes = b""
) -> str:
    """What `edgepack run` spoke in a locale, or the line it ended with."""
    ran = subprocess.run(
        [sys.executable, "-m", "edgepack", "run", bundle, *arguments, "--guard", "warn", "--json",
         "-o", bundle.parent / f"{os.getpid()}.wav"],
        input=data, capture_output=True, check=False,
        env={
            **os.environ, "LOCPATH": str(locales or ""), "LC_ALL": locale, "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0",
        },
    )  # fmt: skip
    document = json.loads(ran.stdout)
    if "error" in document:
        assert ran.returncode == 2
        return str(document["error"]["message"])
    assert ran.returncode == 0
    return "".join(document["text"])


@pytest.mark.parametrize(
    ("locale", "data"),
    [("zh_CN.GBK", GBK), ("de_DE.ISO-8859-1", MARKED)],
    ids=["its own", "marked UTF-8"],
)
def test_standard_input_is_utf8_or_the_locales(
    bundle: Build, made: Path, locale: str, data: bytes
) -> None:
    assert spoken(bundle("tiny"), made, locale, "-", data=data) == TEXT


def test_a_stream_of_lines_is_too(bundle: Build, made: Path) -> None:
    assert spoken(bundle("tiny"), made, "zh_CN.GBK", "-", "--stream", data=GBK) == TEXT


@pytest.mark.parametrize("arguments", [("-",), (GBK,)], ids=["input", "argument"])
def test_what_a_locale_does_not_say_is_refused(
    bundle: Build, arguments: tuple[bytes | str, ...]
) -> None:
    assert CONVERT in spoken(bundle("tiny"), None, "C", *arguments, data=GBK)


@pytest.mark.parametrize(
    ("locale", "data"),
    [("zh_CN.GBK", GBK), ("de_DE.ISO-8859-1", UTF_8)],
    ids=["its own", "UTF-8"],
)
def test_an_argument_is_utf8_or_the_locales(
    bundle: Build, made: Path, locale: str, data: bytes
) -> None:
    assert spoken(bundle("tiny"), made, locale, data) == TEXT


def test_a_file_is_of_the_locale(bundle: Build, made: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(GBK)
    (tmp_path / "l.txt").write_bytes(b"nobody => " + GBK)
    arguments = ("-f", tmp_path / "a.txt", "--lexicon", tmp_path / "l.txt")
    assert spoken(bundle("tiny"), made, "zh_CN.GBK", *map(str, arguments)) == TEXT


def test_a_voice_is_found_by_its_name(bundle: Build, tmp_path: Path) -> None:
    tiny = open_bundle(copied(bundle("tiny"), tmp_path))
    _, voice = voices.read(tiny, "random")
    voices.add(tiny, "女声", voice)
    assert spoken(tiny.folder, None, "C", "--voice", "女声".encode(), UTF_8) == TEXT


def locale_is(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("locale.getencoding", lambda: name)


@pytest.mark.parametrize("encoding", ["gbk", "gb18030", "big5", "euc_kr", "shift_jis", "cp1252"])
@pytest.mark.parametrize("text", ["naïve café", "一二三", "日本", "안녕"])
def test_text_of_the_locale_is_read_and_utf8_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str, text: str
) -> None:
    locale_is(monkeypatch, encoding)
    for written in (encoding, "utf-8", "utf-8-sig"):
        try:
            (tmp_path / "a.txt").write_bytes(f"{text}\r\nb".encode(written))
        except UnicodeEncodeError:
            continue
        assert charset.read(tmp_path / "a.txt") == f"{text}\nb"


@pytest.mark.parametrize("locale", ["ascii", "utf-8", "no-such-encoding", "iso8859-1", "gbk"])
@pytest.mark.parametrize(
    "data",
    [
        "你好".encode("utf-16"),
        b"\xef\xbb\xbf\xc4\xe3",
        b"\x93quoted\x94\xff",
        b"\x7f\x00\xff",
    ],
)
def test_what_is_no_text_in_any_is_refused(
    monkeypatch: pytest.MonkeyPatch, locale: str, data: bytes
) -> None:
    """Latin-1 has a character for every byte; controls show that it was not meant."""
    locale_is(monkeypatch, locale)
    with pytest.raises(UsageError, match="x: not UTF-8 text"):
        charset.decoded(data, "x")


def test_the_first_line_that_is_not_ascii_says_how_all_are_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """U+9686 in GBK is a character of two bytes in UTF-8."""
    locale_is(monkeypatch, "gbk")
    lines = ["one\n", "你好\n", "隆\n"]
    assert list(charset.lines([line.encode("gbk") for line in lines], "x")) == lines
    assert list(charset.lines([line.encode() for line in lines], "x")) == lines
    with pytest.raises(UsageError, match="x: not UTF-8"):
        list(charset.lines([lines[1].encode(), lines[1].encode("gbk")], "x"))


def test_standard_input_may_have_an_encoding_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """As PYTHONIOENCODING gives it, or a console of Windows."""
    locale_is(monkeypatch, "utf-8")
    assert charset.decoded(GBK, "x", "gbk") == TEXT
    assert charset.decoded(UTF_8, "x", "gbk") == TEXT


def test_the_words_of_a_voice_are_read_as_other_text_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Python makes of the bytes of an argument in a Latin-1 locale."""
    monkeypatch.setattr("os.fsencode", lambda text: text.encode("latin-1"))
    given = f"女声=a.wav:{TEXT}".encode().decode("latin-1")
    assert VoiceRequest.parse(given) == VoiceRequest("女声", Path("a.wav"), TEXT)


@pytest.mark.parametrize("text", ["-5度", "-5", "--你好", "-你好", "-x"])
def test_a_text_that_looks_like_an_option(cli: Cli, text: str) -> None:
    ran = cli("run", "B", text)
    assert ran.code == 2
    assert f"-- before it: edgepack run BUNDLE -- '{text[:2]}" in ran.message


def test_a_mistyped_option_is_no_text(cli: Cli) -> None:
    message = cli("run", "B", "--voise", "x", "hi").message
    assert "'--voice'" in message
    assert "before it" not in message
