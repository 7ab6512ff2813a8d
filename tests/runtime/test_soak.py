"""Five hundred utterances of many lengths: what is kept for shapes has an end."""

import subprocess
import sys

import pytest
from support import RUNTIMES, Build

_COUNT, _WARM = 500, 10
_SPEAKING = """
import random, sys
from pathlib import Path
from edgepack.machine.memory import rss_bytes
from edgepack.runtime.synthesizer import Settings, Synthesizer

synthesizer = Synthesizer.load(Path(sys.argv[1]), sys.argv[2], 1)
text = "今天天气很好我们一起去公园散步吧明天下午三点在学校门口见面请不要迟到"
lengths, settings = random.Random(0), Settings(strict=False)
for number in range(1, int(sys.argv[3]) + 1):
    start, count = lengths.randrange(20), lengths.randint(1, 6)
    synthesizer.speak(text[start : start + count], settings)
    if number in (int(sys.argv[4]), int(sys.argv[3])):
        print(rss_bytes())
"""
# Bytes. Measured: 42 MB with OpenVINO (192 MB before its caches were cut), 28 with ONNX Runtime,
# 15 with LiteRT.
_GROWTH = 80e6


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_memory_does_not_grow_with_what_was_spoken(bundle: Build, runtime: str) -> None:
    """As a library, which sets nothing of its process."""
    arguments = [bundle("demo"), runtime, _COUNT, _WARM]
    command = [sys.executable, "-c", _SPEAKING, *map(str, arguments)]
    warm, last = map(int, subprocess.check_output(command).split())
    assert last - warm < _GROWTH, f"{warm / 1e6:.0f} MB became {last / 1e6:.0f} MB"
