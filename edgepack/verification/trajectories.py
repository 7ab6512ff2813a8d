"""Utterances whose exact mel is known, and how far a solver of the ODE stays from it.

The exact mel is where the fp32 networks' own velocity field leads from the fixed noise. It is
recorded at build time for utterances that calibration never saw, and travels in the bundle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from edgepack.bundle import arrays
from edgepack.bundle.bundle import Bundle
from edgepack.bundle.manifest import Solver
from edgepack.errors import IntegrityError
from edgepack.runtime.stages.flow import FlowDecoder

FILE = "trajectories.safetensors"
_DECIBEL = 20.0 / np.log(10.0)
_ARRAYS = ("mu", "spk", "cond", "exact")


@dataclass(frozen=True)
class Trajectory:
    """One utterance: what the estimator is given, and where the exact trajectory ends.

    `mu`, `cond` and `exact` are [1, mels, T], `spk` is [1, mels]. `chunked` is whether attention is
    limited to chunks as in streams; the first `known` frames are a prompt's and are not judged.
    `euler` is the error of the original's solver with the fp32 networks, in dB.
    """

    mu: np.ndarray
    spk: np.ndarray
    cond: np.ndarray
    chunked: bool
    known: int
    exact: np.ndarray
    euler: float

    def solved(self, flow: FlowDecoder, solver: Solver) -> float:
        """The error of a solver on this utterance, in dB."""
        found = flow.solve(self.mu, self.spk, self.cond, solver=solver, chunked=self.chunked)
        return decibel(found, self.exact, self.known)


def decibel(actual: np.ndarray, exact: np.ndarray, known: int) -> float:
    """Root mean square difference of natural-log mels from frame `known` on, in dB."""
    difference = (actual.astype(np.float64) - exact)[:, :, known:]
    if not np.isfinite(difference).all():
        return float("inf")
    return float(_DECIBEL * np.sqrt(np.square(difference).mean()))


def error(flow: FlowDecoder, solver: Solver, trajectories: Sequence[Trajectory]) -> float:
    """Mean error of a solver over utterances, in dB."""
    return float(np.mean([trajectory.solved(flow, solver) for trajectory in trajectories]))


def euler_error(trajectories: Sequence[Trajectory]) -> float:
    """Mean error of the original's solver with the fp32 networks, in dB."""
    return float(np.mean([trajectory.euler for trajectory in trajectories]))


def to_bytes(trajectories: Sequence[Trajectory]) -> bytes:
    """Trajectories as a safetensors file with entries `number/field`."""
    entries: dict[str, np.ndarray] = {}
    for number, one in enumerate(trajectories):
        for name in _ARRAYS:
            entries[f"{number}/{name}"] = np.ascontiguousarray(getattr(one, name), np.float32)
        entries[f"{number}/mask"] = np.array([one.chunked, one.known], np.int64)
        entries[f"{number}/euler"] = np.array([one.euler])
    return save(entries)


def read(path: Path) -> list[Trajectory]:
    """Trajectories from a file; raises IntegrityError if it is not one."""
    return _parsed(path.read_bytes(), path, None)


def of(bundle: Bundle) -> list[Trajectory]:
    """The trajectories that a bundle brings; raises IntegrityError if they are not for it."""
    return _parsed(bundle.read(FILE), bundle.path(FILE), bundle.manifest.host.flow.mels)


def _parsed(data: bytes, where: Path, mels: int | None) -> list[Trajectory]:
    found: dict[int, dict[str, np.ndarray]] = {}
    try:
        for entry, value in arrays.parse(data, where, "recorded trajectories").items():
            number, name = entry.split("/")
            found.setdefault(int(number), {})[name] = value
        judged = [_trajectory(found[number], mels) for number in sorted(found)]
    except (ValueError, KeyError, TypeError) as problem:
        raise IntegrityError(f"{where}: no recorded trajectories ({problem})") from None
    if not judged:
        raise IntegrityError(f"{where}: no recorded trajectories (there are none)")
    return judged


def _trajectory(parts: dict[str, np.ndarray], mels: int | None) -> Trajectory:
    chunked, known = parts.pop("mask").tolist()
    (euler,) = parts.pop("euler").tolist()
    frames = parts["mu"].shape[-1] if parts["mu"].ndim else 0
    wanted = dict.fromkeys(("mu", "cond", "exact"), ("f", (1, mels, frames)))
    if problem := arrays.mismatch(parts, {**wanted, "spk": ("f", (1, mels))}):
        raise ValueError(problem)
    if not (isinstance(known, int) and 0 <= known < frames and isinstance(euler, float)):
        raise ValueError(f"{known} of {frames} frames are a prompt's")
    return Trajectory(**parts, chunked=bool(chunked), known=known, euler=euler)
