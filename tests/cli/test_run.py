"""`edgepack run`: speech in a file, and an account of it."""

import importlib.machinery
import io
import json
import os
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile
from support import GOLDEN, RUNTIMES, Build

from cli import Cli, contents, samples
from edgepack.runtime import guards, loading
from edgepack.runtime.synthesizer import Settings, Synthesizer

RECORDING = GOLDEN / "common" / "prompt_24k.wav"
NOISE = ("--guard", "warn")  # networks of random weights do not end, or whisper

KEYS = {
    "output", "text", "voice", "mode", "seed", "runtime", "runtime_version", "threads", "cpus",
    "sample_rate", "audio_seconds", "load_seconds", "synthesis_seconds", "rtf",
    "first_audio_seconds", "underruns", "stages", "speech_tokens", "peak_rss_bytes", "energy",
    "warnings",
}  # fmt: skip


@pytest.fixture
def tiny(bundle: Build) -> Path:
    return bundle("tiny")


@pytest.fixture
def speak(cli: Cli, tiny: Path) -> Any:
    """Speaks with the tiny bundle; gives the document, and the wav file's bytes as `wav`."""

    def run(*arguments: object) -> dict[str, Any]:
        ran = cli("run", tiny, *arguments, *NOISE, "--json")
        assert ran.code == 0, ran.err
        return {**ran.document, "wav": Path(ran.document["output"]).read_bytes()}

    return run


def test_what_no_reading_was_found_for_is_told(cli: Cli, tiny: Path) -> None:
    ran = cli("run", tiny, "It has x[5]=y.", *NOISE)
    assert ran.code == 0
    assert "no reading was found for 'x[5]=y'" in ran.err


def test_a_lexicon_wins_over_every_reading(speak: Any, tiny: Path) -> None:
    Path("words.txt").write_text("# own\nGPT-4 => G P T four\n5\tV\n", "utf-8")
    given = speak("GPT-4 has 5.", "--lexicon", "words.txt")
    assert given["text"] == ["G P T four has V."]
    settings = Settings(lexicon={"GPT-4": "G P T four", "5": "V"}, strict=False)
    assert Synthesizer.load(tiny).speak("GPT-4 has 5.", settings).utterances[0].decoded.text == (
        "G P T four has V."
    )


def test_a_lexicon_is_refused_by_line(cli: Cli, tiny: Path) -> None:
    Path("words.txt").write_text("a => b\nnothing\n")
    ran = cli("run", tiny, "hello", "--lexicon", "words.txt")
    assert ran.code == 2
    assert ran.message == "words.txt:2: not a word, a tab or =>, and its reading"


def test_the_account_is_of_the_audio_in_the_file(cli: Cli, bundle: Build) -> None:
    ran = cli("run", bundle("demo"), "Good morning.", "-o", "a.wav", "--threads", 1, "--json")
    assert (ran.code, ran.err) == (0, "")
    told = ran.document
    rate, heard = samples(Path("a.wav"))
    assert set(told) >= KEYS
    assert rate == told["sample_rate"]
    assert len(heard) == round(told["audio_seconds"] * rate)
    assert 0.3 < told["audio_seconds"] < 5
    assert np.abs(heard).max() > 3000
    assert told["text"] == ["Good morning."]
    assert told["voice"] == "espeak_female"
    assert told["mode"] == "sft"
    assert told["runtime"] == "ort"
    assert told["threads"] == 1
    assert told["cpus"] == sorted(os.sched_getaffinity(0))
    assert told["warnings"] == []
    assert told["energy"]["available"] is False
    assert told["energy"]["reasons"]
    assert told["rtf"] == pytest.approx(told["synthesis_seconds"] / told["audio_seconds"])
    assert 0 < told["first_audio_seconds"] <= told["synthesis_seconds"]
    assert told["underruns"] is None  # it is no stream
    assert {"speech_lm", "flow_estimator", "hift"} <= set(told["stages"])
    assert 0 < sum(told["stages"].values()) <= told["synthesis_seconds"]
    assert len(told["speech_tokens"]) > 10
    assert told["peak_rss_bytes"] > 50_000_000


def test_people_get_a_summary_and_quiet_ones_nothing(cli: Cli, bundle: Build) -> None:
    loud = cli("run", bundle("demo"), "Good morning.", "--voice", "espeak_male")
    assert (loud.code, loud.err) == (0, "")
    assert loud.out.startswith("out.wav: ")
    assert "RTF" in loud.out
    assert "voice espeak_male (sft)" in loud.out
    silent = cli("run", bundle("demo"), "Good morning.", "-o", "b.wav", "--quiet")
    assert silent == (0, "", "")
    assert set(contents(Path())) == {"out.wav", "b.wav"}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_runtime_of_the_bundle_speaks(speak: Any, runtime: str) -> None:
    told = speak("hello", "--format", runtime)
    assert told["runtime"] == runtime
    assert told["runtime_version"]


def test_text_comes_from_the_line_a_file_or_standard_input(
    speak: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = speak("你好 hello")
    Path("text.txt").write_text("你好 hello", "utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO("你好 hello"))
    assert speak("-f", "text.txt")["wav"] == given["wav"]
    assert speak("-")["wav"] == given["wav"]


def test_the_seed_decides(speak: Any) -> None:
    first, again, other = (speak("hello", "--seed", seed) for seed in (0, 0, 1))
    assert first["wav"] == again["wav"]
    assert first["speech_tokens"] != other["speech_tokens"]


def test_speech_tokens_are_spoken_without_the_language_model(speak: Any) -> None:
    given = speak("hello")
    Path("tokens.json").write_text(json.dumps(given["speech_tokens"]))
    told = speak("--speech-tokens", "tokens.json")
    assert told["wav"] == given["wav"]
    assert told["speech_tokens"] == given["speech_tokens"]
    assert "speech_lm" not in told["stages"]


def test_a_recording_is_said_again_in_the_voice(speak: Any) -> None:
    told = speak("--convert", RECORDING)
    Path("tokens.json").write_text(json.dumps(told["speech_tokens"]))
    assert told["text"] == [""]
    assert len(told["speech_tokens"]) > 20
    assert speak("--speech-tokens", "tokens.json")["wav"] == told["wav"]


def test_an_instruction_changes_the_mode_and_the_speech(speak: Any) -> None:
    plain, told = speak("hello"), speak("hello", "--instruct", "slowly")
    assert (plain["mode"], told["mode"]) == ("sft", "instruct")
    assert plain["wav"] != told["wav"]


def test_speed_and_steps(speak: Any) -> None:
    Path("tokens.json").write_text(json.dumps(list(range(50))))
    plain, fast, coarse = (
        speak("--speech-tokens", "tokens.json", *options)
        for options in ((), ("--speed", 2), ("--steps", 1))
    )
    assert fast["audio_seconds"] == pytest.approx(plain["audio_seconds"] / 2, rel=0.02)
    assert coarse["audio_seconds"] == plain["audio_seconds"]
    assert coarse["wav"] != plain["wav"]


def test_a_dump_has_every_call_of_every_network(speak: Any, tiny: Path) -> None:
    told = speak("hello", "--dump", "dump")
    arrays = {path.stem: dict(np.load(path)) for path in Path("dump").iterdir()}
    stages = json.loads((tiny / "manifest.json").read_text())["stages"]
    assert set(arrays) == {*stages, "utterance-0000"}
    for name, stage in stages.items():
        assert {f"0000.{part}" for part in (*stage["inputs"], *stage["outputs"])} <= set(
            arrays[name]
        )
    whole = arrays["utterance-0000"]
    assert [str(whole["text"])] == told["text"]
    assert whole["speech_tokens"].tolist() == told["speech_tokens"]
    _, heard = samples(Path("out.wav"))
    assert np.abs(whole["audio"].clip(-1, 1) * 32768 - heard).max() <= 1
    assert f"{len(told['speech_tokens']):04d}.logits" in arrays["speech_lm"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("hello", "-f", "text.txt"),
        ("hello", "--convert", RECORDING),
        ("--speech-tokens", "tokens.json", "--convert", RECORDING),
        ("--speech-tokens", "tokens.json", "-"),
        ("--speech-tokens", "tokens.json", "--instruct", "slowly"),
        ("--convert", RECORDING, "--instruct", "slowly"),
        ("",),
        ("。…",),
        ("lone surrogate \udcff",),
        ("-f", "missing.txt"),
        ("-f", "latin1.txt"),
        ("--convert", "text.txt"),
        ("--convert", "missing.wav"),
        ("--speech-tokens", "missing.json"),
        ("--speech-tokens", "latin1.txt"),
        ("hello", "--dump", "text.txt"),
        ("hello", "--lexicon", "missing.txt"),
        ("hello", "--lexicon", "latin1.txt"),
        ("--speech-tokens", "tokens.json", "--lexicon", "text.txt"),
    ],
    ids=str,
)
def test_inputs_that_make_no_sense_are_usage_errors(
    cli: Cli, tiny: Path, arguments: tuple[object, ...]
) -> None:
    Path("text.txt").write_text("hello")
    Path("latin1.txt").write_bytes("é".encode("latin-1"))
    Path("tokens.json").write_text("[1]")
    ran = cli("run", tiny, *arguments, "-o", "a.wav", *NOISE)
    assert (ran.code, ran.out) == (2, "")
    assert ran.message


@pytest.mark.parametrize(
    "tokens",
    ["", "{}", "[]", "[[1]]", "[1.0]", "[true]", "[-1]", "[729]", "[1e99]", "[" * 99999],
    ids=lambda tokens: tokens[:9],
)
def test_speech_tokens_have_to_be_ids(cli: Cli, tiny: Path, tokens: str) -> None:
    Path("tokens.json").write_text(tokens)
    ran = cli("run", tiny, "--speech-tokens", "tokens.json")
    assert ran.code == 2
    assert "tokens" in ran.message
    assert set(contents(Path())) == {"tokens.json"}


def test_faulty_audio_is_an_error_or_a_warning(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "faults", lambda *args, **kwargs: ["silence: a test"])
    refused = cli("run", tiny, "hello")
    assert refused.code == 1
    assert refused.message == "silence: a test"
    assert contents(Path()) == {}
    warned = cli("run", tiny, "hello", *NOISE)
    assert warned.code == 0
    assert warned.err == "edgepack: warning: silence: a test\n"
    assert cli("run", tiny, "hello", *NOISE, "--json").document["warnings"] == ["silence: a test"]


@pytest.mark.parametrize(("runtime", "package"), [("ort", "onnxruntime"), ("openvino", "openvino")])
def test_a_missing_engine_is_named(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    ran = cli("run", tiny, "hello", "--format", runtime)
    assert ran.code == 3
    assert ran.message == f"{package} is not installed; pip install 'edgepack[{runtime}]'"


def test_an_existing_file_stays_when_the_run_fails(cli: Cli, tiny: Path) -> None:
    Path("a.wav").write_bytes(b"precious")
    assert cli("run", tiny, "hello", "--voice", "nobody", "-o", "a.wav").code == 2
    assert Path("a.wav").read_bytes() == b"precious"


@pytest.mark.parametrize(("name", "kind"), [("a.flac", "FLAC"), ("a.OGG", "OGG"), ("a.mp3", "MP3")])
@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_the_name_decides_the_format(
    cli: Cli, tiny: Path, name: str, kind: str, stream: tuple[str, ...]
) -> None:
    ran = cli("run", tiny, "hello", "-o", name, *stream, *NOISE, "--json")
    assert ran.code == 0, ran.err
    found = soundfile.info(name)
    assert found.format == kind
    assert found.duration == pytest.approx(ran.document["audio_seconds"], abs=0.1)


@pytest.mark.parametrize("name", ["a.m4a", "a.txt"])
def test_a_format_that_is_not_known_is_refused_before_loading(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(loading, "open_stage", None)
    ran = cli("run", tiny, "hello", "-o", name)
    assert ran.code == 2
    assert "end its name with .wav" in ran.message
    assert contents(Path()) == {}


def test_every_line_of_a_file_becomes_a_file(cli: Cli, tiny: Path) -> None:
    Path("lines.txt").write_text("hello\n\n你好\n", "utf-8")
    ran = cli("run", tiny, "-f", "lines.txt", "-o", "spoken/", *NOISE, "--json")
    assert ran.code == 0, ran.err
    told = ran.document
    assert sorted(contents(Path("spoken"))) == ["0001.wav", "0002.wav"]
    assert told["text"] == ["hello.", "你好。"]
    lengths = [len(samples(Path(of["path"]))[1]) / 24000 for of in told["files"]]
    assert lengths == pytest.approx([of["audio_seconds"] for of in told["files"]])
    assert sum(lengths) == pytest.approx(told["audio_seconds"])
    alone = cli("run", tiny, "你好", *NOISE, "--json")
    assert alone.code == 0
    assert Path("out.wav").read_bytes() == Path("spoken/0002.wav").read_bytes()
    assert "spoken, 2 files: " in cli("run", tiny, "-f", "lines.txt", "-o", "spoken", *NOISE).out
    Path("bad.txt").write_text("hello\n!?\n", "utf-8")
    ran = cli("run", tiny, "-f", "bad.txt", "-o", "spoken", *NOISE)
    assert ran.code == 2
    assert ran.message.startswith("line 2 of 2: ")


class Output:
    """A stand-in for PortAudio's output."""

    heard: ClassVar[list[np.ndarray]] = []

    def __init__(self, samplerate: int, channels: int, dtype: str) -> None:
        assert (samplerate, channels, dtype) == (24000, 1, "float32")
        self.heard.clear()

    def write(self, samples: np.ndarray) -> None:
        assert samples.dtype == np.float32
        self.heard.append(samples[:, 0])

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def abort(self) -> None: ...
    def close(self) -> None: ...


class PortAudioError(Exception):
    """As sounddevice has it: no OSError."""


class Unplugged(Output):
    """An output that goes away while it plays."""

    def write(self, samples: np.ndarray) -> None:
        raise PortAudioError("Device unavailable [PaErrorCode -9985]")


def stand_in(monkeypatch: pytest.MonkeyPatch, output: type[Output]) -> None:
    module = types.ModuleType("sounddevice")
    module.__spec__ = importlib.machinery.ModuleSpec("sounddevice", None)
    module.OutputStream = output  # type: ignore[attr-defined]
    module.PortAudioError = PortAudioError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sounddevice", module)


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_it_is_played(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch, stream: tuple[str, ...]
) -> None:
    stand_in(monkeypatch, Output)
    told = cli("run", tiny, "hello", "--play", *stream, *NOISE, "--json").document
    assert sum(map(len, Output.heard)) == round(24000 * told["audio_seconds"])
    assert told["output"] is None
    assert contents(Path()) == {}
    assert cli("run", tiny, "hello", "--play", "-o", "a.wav", *stream, *NOISE, "-q").code == 0
    assert len(samples(Path("a.wav"))[1]) == sum(map(len, Output.heard))


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_an_output_that_goes_away(
    cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch, stream: tuple[str, ...]
) -> None:
    stand_in(monkeypatch, Unplugged)
    ran = cli("run", tiny, "hello", "--play", *stream, *NOISE)
    assert ran.code == 3
    assert ran.message.startswith("--play: the output stopped (Device unavailable")


def test_playing_needs_its_package(cli: Cli, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    ran = cli("run", tiny, "hello", "--play")
    assert ran.code == 3
    assert ran.message == "sounddevice is not installed; pip install 'edgepack[play]'"
