"""What every estimator of the flow-matching decoder has: inputs, outputs, sinusoids of its time.

Source: cosyvoice/flow/flow_matching.py (`ConditionalCFM`), and `SinusoidalPosEmb` of Matcha-TTS and
of cosyvoice/flow/DiT/modules.py.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from edgepack.bundle.stages import Declared, Use
from edgepack.graph import layers
from edgepack.graph.continuing import Continuing
from edgepack.graph.net import BATCH, INT64, Graph, Net, Value
from edgepack.graph.weights import Weights

TIME_EMBEDDING: Declared = (
    "flow_time",
    Use(role="time_embedding", called="once", judged="flow"),
)
ESTIMATOR: Declared = (
    "flow_estimator",
    Use(role="estimator", called="step", judged="flow", samples=32, memory="released_if_large"),
)
_TIME_SCALE = 1000.0
_CALLS = ((40, 40, 0.0), (57, 14, 0.7))  # frames, frames of a chunk, time


class EstimatorInputs(NamedTuple):
    """What an estimator is given: four values [B, mels, T], then `shift` [1, W], `chunk` [1].

    `earlier` is there if it goes on from frames before.
    """

    x: Value
    mu: Value
    spk: Value
    cond: Value
    shift: Value
    chunk: Value
    earlier: Continuing | None = None

    def bias(self, net: Net, x: Value) -> Value:
        """The attention mask of the frames of `x` [B, T, D]: [T, T], or [T, P + T]."""
        before = self.earlier.before if self.earlier else None
        return layers.chunk_bias(net, layers.length(net, x, 1), self.chunk, before)


Velocity = Callable[[Net, EstimatorInputs], Value]


def estimator(
    mels: int,
    width: int,
    velocity: Velocity,
    embedded: Callable[[float], np.ndarray],
    *,
    continuing: bool = False,
) -> Graph:
    """`x` [1, mels, T], `mu`, `cond` [B, mels, T], `spk` [B, mels] → `velocity` [B, mels, T].

    Rows of the batch are different conditions for one state x: those of the utterance, and zeros
    for classifier-free guidance (Ho and Salimans, 2022). `shift` [1, width] is the embedding of the
    time, as `embedded` computes it for the calls that the graph is tried with. `next` [1, mels, T]
    is `x + Σ step_b · velocity_b`, with `step` [B]. `chunk` int64 [1] is the attention chunk in
    frames, T or more for no mask. If it may be `continuing`, there is another form of it whose
    frames follow those of earlier calls, which were whole chunks (`graph.continuing`).
    """
    calls = _calls(mels, embedded)
    graph = _written(mels, width, velocity).finish(calls)
    if not continuing:
        return graph
    other = _written(mels, width, velocity, continuing=True).finish(())
    return replace(graph, continuing=other.model)


def _written(mels: int, width: int, velocity: Velocity, *, continuing: bool = False) -> Net:
    net = Net(*ESTIMATOR)
    op = net.op
    wide: list[int | str] = [BATCH, mels, "T"]
    x = net.input("x", [1, mels, "T"])
    mu, cond = (net.input(name, wide) for name in ("mu", "cond"))
    spk, step = net.input("spk", [BATCH, mels]), net.input("step", [BATCH])
    shift = net.input("shift", [1, width])
    chunk = net.input("chunk", [1], INT64)
    earlier = Continuing(net) if continuing else None

    none = op.Mul(mu, 0.0)
    rows = op.Add(none, x)
    speakers = op.Add(none, op.Unsqueeze(spk, [2]))
    found = velocity(net, EstimatorInputs(rows, mu, speakers, cond, shift, chunk, earlier))
    net.output("velocity", found, wide)
    moved = op.ReduceSum(op.Mul(found, op.Unsqueeze(step, [1, 2])), [0], keepdims=1)
    net.output("next", op.Add(x, moved), [1, mels, "T"])
    if earlier:
        earlier.finish()
    return net


def _calls(mels: int, embedded: Callable[[float], np.ndarray]) -> tuple[dict[str, np.ndarray], ...]:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    return tuple(
        {
            "x": draw(1, mels, frames),
            "mu": draw(1, mels, frames),
            "cond": draw(1, mels, frames),
            "spk": draw(1, mels),
            "shift": embedded(time),
            "step": np.array([0.1], np.float32),
            "chunk": np.array([chunk], np.int64),
        }
        for frames, chunk, time in _CALLS
    )


def frequencies(count: int) -> np.ndarray:
    """Frequencies of the sinusoids that a time becomes, [count]: from 1 down to 1/10000."""
    return np.exp(np.arange(count, dtype=np.float32) * -(math.log(10000.0) / (count - 1)))


def sinusoids(net: Net, name: str, count: int) -> Value:
    """A graph's input `t` [n] → sines and cosines of 1000·t, [n, 2 · count].

    `name` is that of the constant with the frequencies.
    """
    op = net.op
    t = net.input("t", ["n"])
    frequency = net.constant(name, frequencies(count))
    angle = op.Mul(op.Mul(op.Unsqueeze(t, [1]), _TIME_SCALE), frequency)
    return op.Concat(op.Sin(angle), op.Cos(angle), axis=-1)


def sinusoids_of(time: float, count: int) -> np.ndarray:
    """The same of one time, computed here: [2 · count]."""
    angle = np.float32(_TIME_SCALE * time) * frequencies(count)
    return np.concatenate([np.sin(angle), np.cos(angle)])


def times_tried() -> tuple[dict[str, np.ndarray], ...]:
    """Calls that a graph of the time embedding is tried with."""
    return tuple({"t": np.array(value, np.float32)} for value in ([0.0, 0.125, 0.7], [1.0]))


def affine(x: np.ndarray, w: Weights) -> np.ndarray:
    """A Linear of a vector, computed here: quantized networks are tried with its exact numbers."""
    return w.get("weight", None, None).load() @ x + w.get("bias", None).load()
