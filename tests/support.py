"""What several tests need."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from edgepack.bundle.manifest import Solver

DATA = Path(__file__).parent / "data"
GOLDEN = DATA / "golden"
COSYVOICE1 = ("cosyvoice1-s1", "cosyvoice1-s2")
RECORDED = ("cosyvoice2-s1", "cosyvoice2-s2")
COSYVOICE3 = ("cosyvoice3-s1", "cosyvoice3-s2")
RUNTIMES = ("ort", "openvino", "tflite")

Build = Callable[..., Path]
Checkpoints = Callable[[str], str]

# Recipes of every runtime, so that none is searched.
INT8 = """
ort:
  speech_lm: nbits8
  flow_encoder: dynamic-s8-avx2
  flow_estimator: dynamic-u8
  text_embedding: rows8
  speech_embedding: rows8
  default: fp16
openvino:
  speech_lm: compress8
  flow_encoder: compress8
  flow_estimator: compress8
  text_embedding: rows8
  speech_embedding: rows8
  default: fp16
tflite:
  speech_lm: dynamic8
  flow_encoder: dynamic8
  flow_estimator: dynamic8
  text_embedding: rows8
  speech_embedding: rows8
  default: fp16
"""


def shuffled(solver: Solver) -> Solver:
    """The same numbers in other places: those of the last step come first."""
    weights = [(s.conditional[0], s.keep, s.start) for s in solver.steps][::-1]
    steps = [
        msgspec.structs.replace(step, conditional=(c, *step.conditional[1:]), keep=k, start=s)
        for step, (c, k, s) in zip(solver.steps, weights, strict=True)
    ]
    return Solver(steps=tuple(steps))
