"""Every command of the README's table, on a bundle that is built as the README builds one."""

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headline import edgepack

ROOT = Path(__file__).parent.parent.parent
VECTORS = ROOT / "tests" / "data"
pytestmark = pytest.mark.slow


@dataclass
class House:
    """A folder with a bundle of the demo voice that has a voice called anna, and a recording."""

    folder: Path

    def run(self, *arguments: object) -> Any:
        return edgepack(*arguments, cwd=self.folder)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> House:
    folder = tmp_path_factory.mktemp("house")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        house = House(folder)
        house.run("build", "demo", "--target", "intel-cpu")
        (folder / "bundles" / "demo-intel-cpu").rename(folder / "BUNDLE")
        house.run("run", "BUNDLE", "今天天气很好，我们去公园散步。", "-o", "speech.wav")
        shutil.copy(folder / "speech.wav", folder / "anna.wav")
        said = "今天天气很好，我们去公园散步。"
        (folder / "words.txt").write_text("天气 => 气候\n", "utf-8")
        house.run("voice", "add", "BUNDLE", "anna", "anna.wav", "--text", said)
        return house


@pytest.fixture(autouse=True)
def use_cache(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "cache"))


def builds(*options: str) -> Callable[[House], None]:
    def check(house: House) -> None:
        output = f"out{'-'.join(options)}".replace("/", "_")
        built = house.run("build", "demo", "-t", "intel-cpu", *options, "-o", output)["bundles"]
        assert all((house.folder / one["path"] / "manifest.json").is_file() for one in built)

    return check


def speaks(*options: str) -> Callable[[House], None]:
    def check(house: House) -> None:
        spoken = house.run("run", "BUNDLE", "今天天气很好。", *options, "-o", "out.wav")
        assert spoken["audio_seconds"] > 0.3

    return check


def does(*arguments: str, leaves: str = "") -> Callable[[House], None]:
    def check(house: House) -> None:
        assert house.run(*arguments)
        assert not leaves or (house.folder / leaves).stat().st_size > 1000

    return check


def compared(house: House) -> None:
    model = VECTORS / "checkpoints" / "cosyvoice2-s1"
    built = house.run("build", model, "-t", "intel-cpu", "--format", "ort", "-o", "golden")
    path = built["bundles"][0]["path"]
    found = house.run("verify", path, "--against", VECTORS / "golden" / "cosyvoice2-s1")
    assert found["passed"] is True


def in_lines(house: House) -> None:
    (house.folder / "lines.txt").write_text("今天天气很好。\nGood morning.\n", "utf-8")
    house.run("run", "BUNDLE", "-f", "lines.txt", "-o", "folder/")
    assert len(list((house.folder / "folder").glob("*.wav"))) == 2


ELSEWHERE = "tests/headline/test_targets.py"  # where every target is built
# What the first column says, and what is done for it. A new row needs a line here.
ROWS: dict[str, Sequence[Callable[[House], None]] | str] = {
    "choose a device": [does("targets")],
    "store weights in half the space": [builds("--precision", "fp16")],
    "make it smaller and faster": [builds("--precision", "int8", "--format", "ort")],
    "use the original's solver": [speaks("--solver", "reference")],
    "trim it to one language, or two": [builds("--language", "zh"), builds("--language", "zh,en")],
    "build for a phone or a Raspberry Pi": ELSEWHERE,
    "build for an NVIDIA GPU or a Jetson": ELSEWHERE,
    "build for one runtime only": [builds("--format", name) for name in ("openvino", "tflite")],
    "take other weights of the language model": "tests/cli/test_build.py",
    "speak with a voice of your own": [speaks("--voice", "anna")],
    "make it the default voice, or remove it": "tests/cli/test_voice.py",
    "write flac, ogg, opus or mp3": [
        does("run", "BUNDLE", "今天天气很好。", "-o", f"out.{name}", leaves=f"out.{name}")
        for name in ("flac", "ogg", "opus", "mp3")
    ],
    "speak every line of a file": [in_lines],
    "hear it at once": "tests/cli/test_run.py",
    "speak in a style": [speaks("--voice", "anna", "--instruct", "用四川话说这句话")],
    "say how words are spoken": [speaks("--lexicon", "words.txt")],
    "say a recording in another voice": [
        does("run", "BUNDLE", "--convert", "speech.wav", "--voice", "anna", "-o", "other.wav",
             leaves="other.wav"),
    ],
    "hear it while it is made": [speaks("--stream")],
    "serve it over HTTP, for OpenAI's clients": "tests/serve/test_command.py",
    "measure speed, latency, memory and joules": [
        does("bench", "BUNDLE", "--rounds", "1", "--report", "page.html", leaves="page.html"),
    ],
    "choose cores and threads": [does("tune", "BUNDLE"), speaks("--threads", "1")],
    "see what a machine can do": [does("doctor")],
    "look inside a checkpoint or bundle, see which release it is": [
        does("inspect", "BUNDLE"), does("inspect", str(VECTORS / "checkpoints" / "cosyvoice2-s1")),
    ],
    "verify a bundle on the device": [does("verify", "BUNDLE")],
    "compare with recordings of the original": [compared],
}  # fmt: skip


def rows() -> list[str]:
    """The first column of the table of commands."""
    text = (ROOT / "README.md").read_text("utf-8")
    (table,) = re.findall(r"^\| to \| do \|\n\|[-|]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [line.split("|")[1].strip() for line in table.splitlines()]


def test_every_row_is_tried() -> None:
    assert rows() == list(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_readme_works(house: House, row: str) -> None:
    done = ROWS[row]
    if isinstance(done, str):
        assert (ROOT / done).is_file()
        return
    for check in done:
        check(house)
