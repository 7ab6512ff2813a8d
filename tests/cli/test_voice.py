"""`edgepack voice add` and `edgepack voice list`."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
from support import GOLDEN, Build

from cli import Cli, contents, copied, samples
from edgepack.bundle import open_bundle

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
    assert added.document == {"bundle": str(tiny), "voice": "邻居 2", "speech_tokens": tokens}
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
