"""A family that is added as files alone: it builds, speaks, streams and verifies."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_zip_writer as writer
from support import Checkpoints

TOY = Path(__file__).parent.parent / "toy_family"
FRAME, MELS = 480, 80
LENIENT = ("--stream", "--guard", "warn", "--quiet")  # random weights may not end
# What a process does first: the plug-ins of a folder are among those of the package.
CUSTOMIZE = """
import sys
from pathlib import Path

import edgepack.model.families
import edgepack.runtime.strategies.schedule
import edgepack.runtime.strategies.vocoder

FOLDER = Path(__file__).parent
edgepack.model.families.__path__.append(str(FOLDER / "families"))
for part in ("vocoder", "schedule"):
    sys.modules[f"edgepack.runtime.strategies.{part}"].__path__.append(str(FOLDER / part))
"""
SPOKEN = """
import sys
from pathlib import Path
import numpy as np
from edgepack.runtime.speech import Settings
from edgepack.runtime.synthesizer import Synthesizer

synthesizer = Synthesizer.load(Path(sys.argv[1]), "ort", 1)
settings = Settings(seed=3, strict=False)
speech = synthesizer.speak("Good morning.", settings)
(utterance,) = speech.utterances
flow, vocoder = synthesizer.loaded.flow, synthesizer.loaded.vocoder
frames = flow.settings.frames(len(utterance.decoded.speech_tokens))
assert utterance.mel.shape[2] == frames > 40
wanted = np.tanh(utterance.mel[0].T @ np.load(sys.argv[2])).reshape(-1)
np.testing.assert_allclose(utterance.audio, wanted, atol=1e-5)
with synthesizer.stream("Good morning.", settings) as stream:
    chunks = list(stream)
hop = flow.settings.frames(10) * vocoder.settings.frame
assert len(chunks) > 2
assert {len(chunk) for chunk in chunks[:-1]} == {hop}
assert sum(map(len, chunks)) == len(wanted)
assert stream.speech.utterances[0].mel.shape == utterance.mel.shape
"""


@pytest.fixture
def plugged(tmp_path: Path) -> dict[str, str]:
    """An environment whose processes have the toy's files among the plug-ins."""
    folder = tmp_path / "plugged"
    shutil.copytree(TOY, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "sitecustomize.py").write_text(CUSTOMIZE, "utf-8")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture
def checkpoint(checkpoints: Checkpoints, tmp_path: Path) -> Path:
    """The tiny checkpoint with the toy's vocoder; its matrix is beside it."""
    folder = tmp_path / "toy"
    shutil.copytree(checkpoints("tiny"), folder)
    configuration = folder / "cosyvoice2.yaml"
    text = configuration.read_text("utf-8").replace("generator.HiFTGenerator", "generator.Matrix")
    configuration.write_text(text, "utf-8")
    weight = np.random.default_rng(0).normal(0, 0.01, (MELS, FRAME)).astype(np.float32)
    writer.save(folder / "hift.pt", {"weight": writer.tensor(weight)})
    np.save(tmp_path / "matrix.npy", weight)
    return folder


def run(environment: dict[str, str], *arguments: object) -> str:
    """What a Python with the plug-ins prints."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_it_is_files_and_nothing_else(
    plugged: dict[str, str], checkpoint: Path, tmp_path: Path
) -> None:
    edgepack = ("-m", "edgepack")
    asked = ("--target", "intel-cpu", "--format", "ort", "--precision", "fp32", "--quiet")
    run(plugged, *edgepack, "build", checkpoint, *asked, "-o", tmp_path)
    bundle = tmp_path / "toy-intel-cpu"
    manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_bytes())
    assert manifest["family"] == "toy"
    assert manifest["host"]["vocoder"] == {"kind": "matrix", "frame": FRAME}
    assert manifest["host"]["schedule"] == {"kind": "equal_chunks", "hop": 10}
    assert "matrix" in manifest["stages"]
    run(plugged, "-c", SPOKEN, bundle, tmp_path / "matrix.npy")
    run(plugged, *edgepack, "verify", bundle, "--quiet")
    assert "toy" in run(plugged, *edgepack, "inspect", bundle)
    spoken = tmp_path / "a.wav"
    run(plugged, *edgepack, "run", bundle, "Good morning.", *LENIENT, "-o", spoken)
    assert spoken.stat().st_size > 10_000

    # A machine without the files says what lacks.
    command = [sys.executable, "-m", "edgepack", "inspect", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "host.vocoder: unknown kind 'matrix'" in done.stderr
