"""`bench`, `report`, `tune` and `doctor`; and `run` on chosen CPUs, in chunks, with a meter."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from linked import linked
from support import RUNTIMES, Build

from cli import Cli, samples
from edgepack.machine.cpu import tuned

TEN_SECONDS = "今天天气很好我们一起去公园散步吧然后回家吃饭晚上再看一场电影明天早上还要去上班"
EDGEPACK = [sys.executable, "-m", "edgepack"]


@pytest.fixture
def demo(bundle: Build) -> Path:
    return bundle("demo")


def test_a_stream_is_in_the_file_and_in_the_account(cli: Cli, demo: Path) -> None:
    ran = cli("run", demo, TEN_SECONDS, "--stream", "--json")
    assert ran.code == 0, ran.err
    told = ran.document
    rate, heard = samples(Path("out.wav"))
    assert len(heard) == round(told["audio_seconds"] * rate)
    assert told["stream"] is True
    assert told["first_audio_seconds"] < told["synthesis_seconds"]
    dry = told["underruns"]
    assert set(dry) == {"count", "seconds"}
    assert (dry["count"] > 0) == (dry["seconds"] > 0)
    # No later than all is there: a player that begins then waits for nothing.
    assert dry["seconds"] <= told["synthesis_seconds"] - told["first_audio_seconds"]
    assert told["energy"]["available"] is False
    assert set(told["energy"]["reasons"]) >= {"rapl", "perf", "battery"}
    shown = cli("run", demo, "Good morning.", "--stream")
    assert "(overlapping)" in shown.out
    assert "a player that begins with the first chunk: " in shown.out
    assert "energy: no energy meter on this machine" in shown.out


def test_raw_samples_on_standard_output(demo: Path) -> None:
    command = [*EDGEPACK, "run", str(demo), "-", "--stream", "-o", "-", "--quiet"]
    text = "今天天气\n很好。\n".encode()
    done = subprocess.run(command, input=text, capture_output=True, check=True)
    heard = np.frombuffer(done.stdout, "<i2")
    assert len(heard) > 12_000
    assert np.abs(heard).max() > 3000


def test_an_interrupted_stream_leaves_what_was_spoken(demo: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle: a valid file of everything until then."""
    out = tmp_path / "out.wav"
    text = f"{TEN_SECONDS}。" * 6
    command = [*EDGEPACK, "run", str(demo), text, "--stream", "-o", str(out)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        part = next(tmp_path.glob(".out.wav.*.tmp"), None)
        if part and part.stat().st_size > 100_000:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 5
    assert err.decode().count("\n") == 1
    assert "interrupted; " in err.decode()
    heard, rate = soundfile.read(out)
    assert 2 < len(heard) / rate < 50
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "-"], "-o - goes with --stream"),
        (["-o", "-", "--stream", "--json"], "-o - goes with --stream"),
        (["--stream", "--speed", "2"], "leave out --speed or --stream"),
        (["--cpus", "9999"], "--cpus 9999: CPU 9999 is not there"),
        (["--cpus", "0-99999999999"], "--cpus 0-99999999999: not one of all"),
        (["--cpus", "\udcff"], "not one of all"),
        (["--cpus", "quick"], "--cpus quick: not one of all"),
        (["--energy", "rappl"], "did you mean 'rapl'"),
    ],
)
def test_what_cannot_be_asked_for(cli: Cli, demo: Path, arguments: list[str], words: str) -> None:
    ran = cli("run", demo, "Good morning.", *arguments)
    assert ran.code == 2
    assert words in ran.err
    assert not list(Path().iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_before_the_first_audio_keeps_the_old_file(
    demo: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out.wav"
    out.write_bytes(b"what was there")
    command = [*EDGEPACK, "run", str(demo), "-", "--stream", "-o", str(out)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while not list(tmp_path.glob(".out.wav.*.tmp")):
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(number)
    assert process.wait(timeout=20) == 5  # its standard input is still open
    _, err = process.communicate()
    assert err.decode().splitlines()[-1] == "edgepack: interrupted; nothing was left half-written"
    assert out.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [out]


def test_a_meter_that_is_not_there_is_unsupported(cli: Cli, demo: Path) -> None:
    ran = cli("run", demo, "Good morning.", "--energy", "ina3221")
    assert ran.code == 3
    assert "--energy ina3221: no INA3221" in ran.err


def test_an_estimate_is_labelled(cli: Cli, demo: Path) -> None:
    ran = cli("run", demo, "Good morning.", "--energy", "model")
    assert ran.code == 0
    assert "energy: ~" in ran.out
    assert "ESTIMATE: CPU time x 6 W a core" in ran.out
    document = cli("run", demo, "Good morning.", "--energy", "model", "--json").document
    assert document["energy"]["estimate"] is True
    assert document["energy"]["quality"] == "modelled"


def test_low_memory_gives_the_same_audio(cli: Cli, demo: Path) -> None:
    cli("run", demo, "Good morning.", "-o", "a.wav")
    assert cli("run", demo, "Good morning.", "-o", "b.wav", "--memory", "low").code == 0
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes()


def test_bench_then_report(cli: Cli, demo: Path) -> None:
    options = ["--rounds", 1, "--sentences", 2, "--no-long", "--format", "ort", "-o", "r.json"]
    ran = cli("bench", demo, *options, "--report", "at-once.html")
    assert ran.code == 0, ran.err
    assert "RTF P50, P90, P95" in ran.out
    assert ran.out.index("goals") < ran.out.index("energy and work") < ran.out.index("RTF P50")
    assert "no long text was streamed" in " ".join(ran.out.split())
    assert "no energy meter on this machine" in ran.out
    (subject,) = json.loads(Path("r.json").read_text("utf-8"))["subjects"]
    assert subject["runtime"] == "ort"
    assert subject["bundle"] == str(demo)
    of = {outcome["goal"]: outcome["verdict"] for outcome in subject["goals"]}
    assert of["wh_per_minute"] == of["interrupted_share"] == "not measured"
    assert of["rtf"] in ("met", "missed")
    ran = cli("report", "r.json", "r.json", "-o", "page.html", "--json")
    assert ran.document["results"] == 2
    assert Path("page.html").read_text("utf-8").count("<svg") == 8
    assert Path("at-once.html").read_text("utf-8").count("<svg") == 4


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["bench", "DEMO", "--format", "trt"], 2, "unknown runtime 'trt'"),
        (["bench", "nothing"], 2, "no bundle there"),
        (["bench", "DEMO", "-o", "no/r.json"], 2, "in a folder that exists"),
        (["report", "nothing.json"], 2, "No such file"),
        (["tune", "DEMO", "--format", "otr"], 2, "did you mean 'ort'"),
    ],
)
def test_what_cannot_be_measured(
    cli: Cli, demo: Path, arguments: list[str], code: int, words: str
) -> None:
    ran = cli(*[demo if argument == "DEMO" else argument for argument in arguments])
    assert ran.code == code
    assert words in ran.err


@pytest.mark.slow
def test_tune_keeps_the_best_plan_for_run(cli: Cli, demo: Path, tmp_path: Path) -> None:
    demo = linked(demo, tmp_path).folder
    ran = cli("tune", demo, "--format", "tflite", "--rounds", 1, "--sentences", 1)
    assert ran.code == 0, ran.err
    steps = [line.split("] ")[1] for line in ran.err.splitlines()]
    assert all(re.match(rf"{n} of {len(steps)}\b.*: ", s) for n, s in enumerate(steps, 1)), steps
    assert re.search(r", about \d+ s left: sentences decoded in turn, and ahead$", steps[-1])
    (best,) = [line.split("│") for line in ran.out.splitlines() if "│ chosen" in line]
    assert tuned.place(demo).is_file()
    told = cli("run", demo, "Good morning.", "--format", "tflite", "--json").document
    assert told["threads"] == int(best[2])
    by_hand = cli("run", demo, "Hi.", "--format", "tflite", "--threads", 2, "--json").document
    assert by_hand["threads"] == 2


def test_doctor_tells_of_everything(cli: Cli) -> None:
    told = cli("doctor", "--json").document
    assert set(told["runtimes"]) == set(RUNTIMES)
    assert all(of["version"] for of in told["runtimes"].values())
    for meter in told["meters"].values():
        assert meter["usable"] or meter["reason"]
    assert told["threads"] >= 1
    ran = cli("doctor")
    assert "instruction sets:" in ran.out
    assert "energy meters" in ran.out
    assert cli("doctor", "--quiet").out == ""
