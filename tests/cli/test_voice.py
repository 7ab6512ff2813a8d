"""`edgepack voice add` and `edgepack voice list`."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
from support import GOLDEN, Build

from cli import Cli, contents, copied, samples
from edgepack.bundle.bundle import open_bundle
from edgepack.runtime import loading
from edgepack.runtime.audio import prompting, waveform

RECORDING = GOLDEN / "common" / "prompt_24k.wav"
TEXT = ("--text", "Hi 你好")


@pytest.fixture
def tiny(bundle: Build, tmp_path: Path) -> Path:
    """A copy, to change."""
    return copied(bundle("tiny"), tmp_path)


def test_an_added_voice_is_listed_and_speaks(cli: Cli, tiny: Path) -> None:
    added = cli("voice", "add", tiny, "邻居 2", RECORDING, *TEXT, "--json")
    assert (added.code, added.err) == (0, "")
    tokens = added.document["speech_tokens"]
    assert added.document == {
        "bundle": str(tiny), "voice": "邻居 2", "speech_tokens": tokens, "default": "random",
        "warnings": [],
    }  # fmt: skip
    assert tokens > 20

    listed = cli("voice", "list", tiny, "--json").document
    assert listed["bundle"] == str(tiny)
    assert listed["voices"]["random"] == {"modes": ["sft"], "prompt_speech_tokens": 0}
    modes = ["zero-shot", "cross-lingual", "instruct"]
    assert listed["voices"]["邻居 2"] == {"modes": modes, "prompt_speech_tokens": tokens}
    assert "邻居 2" in cli("voice", "list", tiny).out
    assert cli("voice", "list", tiny, "-q") == (0, "", "")

    assert cli("verify", tiny, "--format", "ort", "-q").code == 0
    for mode in ("auto", "cross-lingual"):
        speak = ("run", tiny, "hello", "--voice", "邻居 2", "--mode", mode, "--guard", "warn")
        spoken = cli(*speak, "--json").document
        assert spoken["mode"] == {"auto": "zero-shot"}.get(mode, mode)
        assert len(samples(Path("out.wav"))[1]) == round(spoken["audio_seconds"] * 24000)


def test_a_voice_is_replaced_only_by_force(cli: Cli, tiny: Path) -> None:
    add = ("voice", "add", tiny, "me", RECORDING, *TEXT)
    told = cli(*add)
    assert told.code == 0
    assert "added voice 'me' from 1.7 s" in told.out
    before = contents(tiny)
    refused = cli(*add[:-1], "other words")
    assert refused.code == 2
    assert "--force" in refused.message
    assert contents(tiny) == before
    assert cli(*add[:-1], "other words", "--force", "--quiet") == (0, "", "")
    after = contents(tiny)
    assert len(after) == len(before)
    assert set(after) != set(before)


def sound(rate: int, seconds: float) -> bytes:
    path = Path("sound.wav")
    soundfile.write(path, np.zeros(round(rate * seconds), np.float32), rate)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("../evil", RECORDING), "voice name"),
        (("a/b", RECORDING), "voice name"),
        (("", RECORDING), "voice name"),
        (("me", "missing.wav"), "missing.wav: not a readable sound file"),
        (("me", "text.wav"), "text.wav: not a readable sound file"),
        (("me", "short.wav"), "0.5 to 30 s"),
        (("me", "long.wav"), "0.5 to 30 s"),
        (("me", "low.wav"), "8000 Hz is too low"),
        (("me", RECORDING, "--format", "opnvino"), "did you mean 'openvino'"),
    ],
    ids=str,
)
def test_what_cannot_be_a_voice_changes_nothing(
    cli: Cli, tiny: Path, arguments: Sequence[object], reason: str
) -> None:
    for name, data in {
        "text": b"RIFF no",
        "short": sound(16000, 0.3),
        "long": sound(16000, 31),
        "low": sound(8000, 1),
    }.items():
        Path(f"{name}.wav").write_bytes(data)
    before = contents(tiny)
    ran = cli("voice", "add", tiny, *arguments, *TEXT)
    assert (ran.code, ran.out) == (2, "")
    assert reason in ran.message
    assert contents(tiny) == before


def test_a_bundle_without_enrolment_networks_says_so(cli: Cli, tiny: Path) -> None:
    opened = open_bundle(tiny)
    opened.with_manifest(msgspec.structs.replace(opened.manifest, enrolment={}))
    for command in (
        ("voice", "add", tiny, "me", RECORDING, *TEXT),
        ("run", tiny, "--convert", RECORDING),
    ):
        ran = cli(*command)
        assert ran.code == 2
        assert "has no enrolment networks" in ran.message


def test_the_default_is_chosen_and_a_voice_removed(cli: Cli, tiny: Path) -> None:
    assert cli("voice", "add", tiny, "a", RECORDING, *TEXT, "-q") == (0, "", "")
    speak = ("run", tiny, "hello", "--guard", "warn", "--json")
    assert cli(*speak).document["voice"] == "random"
    told = cli("voice", "default", tiny, "a")
    assert told.code == 0
    assert "'a' speaks where no --voice is given" in told.out
    assert cli(*speak).document["voice"] == "a"
    assert cli("voice", "list", tiny, "--json").document["default"] == "a"
    removed = cli("voice", "remove", tiny, "a", "--json").document
    assert removed == {"bundle": str(tiny), "default": "random", "voices": ["random"]}
    assert cli("verify", tiny, "--format", "ort", "-q").code == 0
    for command in ("default", "remove"):
        refused = cli("voice", command, tiny, "randon")
        assert refused.code == 2
        assert "did you mean 'random'" in refused.message


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("silent", "Hi there", "nothing is heard in it"),
        ("quiet", "Hi there", "nothing is heard in it"),
        ("spoken", "", "no words are given"),
        ("spoken", " ?! ", "no words are given"),
    ],
)
def test_what_nobody_says_is_refused(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, words: str
) -> None:
    monkeypatch.setattr(loading, "open_enroller", None)
    heard, rate = soundfile.read(RECORDING, dtype="float32")
    scale = {"silent": 0.0, "quiet": 0.002, "spoken": 1.0}[name]
    soundfile.write(f"{name}.wav", scale * heard, rate)
    before = contents(tiny)
    ran = cli("voice", "add", tiny, "me", f"{name}.wav", "--text", text)
    assert ran.code == 2
    assert words in ran.message
    assert contents(tiny) == before


@pytest.mark.parametrize(
    ("gain", "text", "words"),
    [
        (1.0, "Hi 你好", None),
        (20.0, "Hi 你好", "is clipped"),
        (1.0, "这是一段很长的文字" * 5, "its text is too much for"),
        (1.0, "Hi", "its text is too little for"),
    ],
)
def test_what_is_doubtful_is_told(gain: float, text: str, words: str | None) -> None:
    heard = waveform.read(RECORDING)
    louder = waveform.Recording("a.wav", np.clip(gain * heard.samples, -1, 1), heard.rate)
    found = prompting.problems(louder, text)
    assert len(found) == (words is not None)
    assert all(words in line for line in found if words)
