"""Ctrl-C ends `edgepack run` at once, also in the middle of a long call of an engine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import heavy
import pytest
from support import Build

LINE = "edgepack: interrupted; nothing was left half-written"
LIMIT = 3.0  # seconds until the process has ended; a call takes several times as long
# The command, whose vocoder makes a call besides that lasts for many seconds.
SCRIPT = f"""
import sys
import numpy as np
import onnxruntime
from edgepack.runtime.engines.adapters import ort
settings = onnxruntime.SessionOptions()
settings.intra_op_num_threads = 1
settings.log_severity_level = 4
heavy = onnxruntime.InferenceSession(sys.argv.pop(1), settings)
real = ort._OrtSession._run
def slow(self, feeds, how):
    if self._path.stem.startswith("hift"):
        print("begun", file=sys.stderr, flush=True)
        heavy.run(None, {{"x": np.ones((20_000, {heavy.WIDTH}), np.float32)}}, how)
    return real(self, feeds, how)
ort._OrtSession._run = slow
from edgepack.__main__ import entry
entry()
"""


@pytest.mark.parametrize("how", [[], ["--stream"]], ids=["whole", "stream"])
def test_an_interrupt_ends_a_long_call(bundle: Build, tmp_path: Path, how: list[str]) -> None:
    network = heavy.write(tmp_path / "heavy.onnx")
    out = tmp_path / "out" / "a.wav"
    out.parent.mkdir()
    process = subprocess.Popen(
        [
            sys.executable, "-c", SCRIPT, str(network), "run", str(bundle("demo")), "你好。",
            "-o", str(out), "--quiet", "--format", "ort", *how,
        ],
        stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stderr
    assert process.stderr.readline() == "begun\n"
    time.sleep(0.2)
    start = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    said = process.stderr.read()
    assert process.wait() == 5
    assert time.monotonic() - start < LIMIT
    assert said.split("\n") == ["", LINE, ""]  # click begins a line after ^C
    assert not any(out.parent.iterdir())
