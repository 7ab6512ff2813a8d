"""`edgepack run` with a bundle of CosyVoice 1: its speakers, instructions in words, streams."""

from pathlib import Path

import numpy as np
import pytest
import random_cosyvoice1

from cli import Cli, samples
from edgepack.builder.pipeline import build
from edgepack.builder.planning import BuildRequest

pytestmark = pytest.mark.slow
TEXT = "今天天气很好，我们一起去公园散步吧。"
NOISE = ("--guard", "warn")  # networks of random weights whisper
RATE = 22050


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a checkpoint with the seven speakers of CosyVoice-300M-SFT."""
    made = tmp_path_factory.mktemp("seven")
    random_cosyvoice1.write(made / "checkpoint", random_cosyvoice1.TINY)
    request = BuildRequest(str(made / "checkpoint"), ["intel-cpu"], made, ["ort"], "fp32")
    return build(request)[0].bundle.folder


def test_every_speaker_of_the_table_speaks(cli: Cli, folder: Path) -> None:
    heard = []
    for name in random_cosyvoice1.SPEAKERS:
        ran = cli("run", folder, TEXT, "--voice", name, "-o", f"{name}.wav", *NOISE, "--json")
        assert ran.code == 0, ran.err
        assert (ran.document["voice"], ran.document["mode"]) == (name, "sft")
        rate, audio = samples(Path(f"{name}.wav"))
        assert rate == RATE
        assert len(audio) == round(ran.document["audio_seconds"] * RATE)
        heard.append(audio.tobytes())
    assert len(set(heard)) == len(random_cosyvoice1.SPEAKERS)


def test_an_instruction_changes_what_is_said(cli: Cli, folder: Path) -> None:
    heard = []
    for told in ([], ["--instruct", "慢一点"], ["--instruct", "慢一点<endofprompt>"]):
        ran = cli("run", folder, TEXT, *told, *NOISE, "--json")
        assert ran.code == 0, ran.err
        assert ran.document["mode"] == ("instruct" if told else "sft")
        heard.append(samples(Path("out.wav"))[1])
    assert np.array_equal(heard[1], heard[2])
    assert heard[0].tobytes() != heard[1].tobytes()


def test_a_stream_speaks_the_same_tokens(cli: Cli, folder: Path) -> None:
    whole = cli("run", folder, TEXT, *NOISE, "--json").document
    ran = cli("run", folder, TEXT, "--stream", "-o", "stream.wav", *NOISE, "--json")
    assert ran.code == 0, ran.err
    assert ran.document["speech_tokens"] == whole["speech_tokens"]
    assert ran.document["first_audio_seconds"] < ran.document["synthesis_seconds"]
    rate, audio = samples(Path("stream.wav"))
    assert rate == RATE
    assert len(audio) / rate == pytest.approx(whole["audio_seconds"], rel=0.02)
    assert np.abs(audio).max() > 0


def test_other_modes_need_a_prompt(cli: Cli, folder: Path) -> None:
    ran = cli("run", folder, TEXT, "--mode", "zero-shot")
    assert ran.code == 2
    assert "needs a voice with a prompt" in ran.message
