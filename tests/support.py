"""What several tests need."""

from collections.abc import Callable
from pathlib import Path

DATA = Path(__file__).parent / "data"
GOLDEN = DATA / "golden"
RECORDED = ("cosyvoice2-s1", "cosyvoice2-s2")
RUNTIMES = ("ort", "openvino", "tflite")

Build = Callable[..., Path]
Checkpoints = Callable[[str], str]
