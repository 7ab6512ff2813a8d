"""The host contract of phone bundles: an app that has only that says the same."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import Build

from edgepack.builder.pipeline import build
from edgepack.builder.planning import BuildRequest
from edgepack.bundle import voices
from edgepack.bundle.bundle import open_bundle
from edgepack.runtime.audio import waveform
from edgepack.runtime.engines.watch import Clock
from edgepack.runtime.loading import load
from edgepack.runtime.synthesizer import Settings, Synthesizer
from edgepack.verification.speaking import condition

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXT = "今天天气很好，我们一起去公园散步吧。"
SEED = 3
PHONE = "ios-arm64"

pytestmark = pytest.mark.usefixtures("examples")


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture(scope="module")
def phone(bundle: Build) -> Path:
    return bundle("demo", PHONE, "fp32")


def test_it_is_short_and_knows_nothing_of_this_package() -> None:
    for name in ("host_loop.py", "host_files.py", "host_engines.py"):
        text = (EXAMPLES / name).read_text("utf-8")
        assert len(text.splitlines()) < 250
        assert "import edgepack" not in text
        assert "from edgepack" not in text


def at_once(folder: Path, runtime: str) -> Synthesizer:
    """A synthesizer that vocodes as an app does: not in windows, which round otherwise."""
    loaded = load(folder, runtime, 2)
    return Synthesizer(replace(loaded, vocoder=replace(loaded.vocoder, window=10**6)), Clock())


@pytest.mark.parametrize("runtime", ["ort", "tflite"])
def test_it_gives_the_same_samples(phone: Path, runtime: str) -> None:
    from host_loop import Host

    spoken = at_once(phone, runtime).speak(TEXT, Settings(seed=SEED))
    (piece,) = spoken.utterances
    host = Host(phone, runtime, SEED)
    ids = host.tokenize(piece.decoded.text)
    assert ids == list(piece.decoded.text_ids)
    found = np.concatenate(list(host.speak(ids)), 1)[0]
    np.testing.assert_array_equal(found, spoken.audio)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["ort", "tflite"])
def test_it_runs_a_calibrated_solver(
    runtime: str, tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from host_loop import Host

    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
    request = BuildRequest("demo", [PHONE], tmp_path, [runtime], "fp32", ["zh"])
    folder = build(replace(request, solver="calibrated"))[0].bundle.folder
    assert open_bundle(folder).manifest.solvers[runtime].solver.evaluations <= 10
    (piece,) = at_once(folder, runtime).speak(TEXT, Settings(seed=SEED)).utterances
    host = Host(folder, runtime, SEED)
    found = np.concatenate(list(host.speak(host.tokenize(piece.decoded.text))), 1)[0]
    np.testing.assert_array_equal(found, piece.audio)


@pytest.mark.parametrize("runtime", ["ort", "tflite"])
def test_it_streams_the_same_chunks(phone: Path, runtime: str) -> None:
    from host_loop import Host

    synthesizer = Synthesizer.load(phone, runtime, 2)
    piece = synthesizer.speak(TEXT, Settings(seed=SEED)).utterances[0].decoded
    _, voice = voices.read(synthesizer.loaded.bundle, None)
    noise = np.random.default_rng([SEED, 0, 1])
    stream = synthesizer.loaded.stream.run(piece.speech_tokens, condition(voice), noise)
    wanted = [chunk.audio for chunk in stream]
    host = Host(phone, runtime, SEED)
    found = list(host.stream(list(piece.text_ids)))
    assert len(wanted) > 2
    assert [chunk.shape for chunk in found] == [chunk.shape for chunk in wanted]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


TEXTS = [
    "Hello, it's 25 degrees — don't you think?  Two  blanks.",
    "混合 mixed text，第3章。\n\n新段落",
    "<|en|>[laughter] ok<|endofprompt|>!",
    "é ﬁ ½ ٣ 𝒳 안녕 こんにちは",
]


@pytest.mark.parametrize("text", TEXTS)
def test_its_tokenizer_is_the_tokenizer(phone: Path, text: str) -> None:
    from host_files import Tokenizer

    synthesizer = Synthesizer.load(phone, "ort", 1)
    found = Tokenizer(phone / "tokenizer.json")(text)
    assert found == list(synthesizer.loaded.frontend.ids(text))


def test_the_contract_says_what_the_files_are(phone: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    manifest = open_bundle(phone).manifest
    loop = json.loads((phone / "host_loop.json").read_text("utf-8"))
    assert loop["schema"] == "edgepack.host-loop/2"
    assert set(loop["networks"]) == set(manifest.stages)
    assert set(loop["flow"]["solvers"]) == {"ort", "tflite"}
    assert len(loop["flow"]["solvers"]["ort"]) == manifest.host.flow.steps
    assert loop["rows"] == {"ort": "any", "tflite": "one"}
    for name, network in loop["networks"].items():
        assert set(network["files"]) == {"ort", "tflite"}
        details = Interpreter(str(phone / network["files"]["tflite"])).get_input_details()
        found = {d["name"]: [n if n > 0 else None for n in d["shape_signature"]] for d in details}
        for value in network["inputs"]:
            axes = [n if isinstance(n, int) else {"B": 1}.get(n) for n in value["shape"]]
            assert found[value["name"]] == axes, (name, value["name"])


def test_it_is_a_program(phone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.wav"
    command = [sys.executable, EXAMPLES / "host_loop.py", phone, "你好。", "-o", out, "--stream"]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    assert len(waveform.read(out).samples) > 10_000
