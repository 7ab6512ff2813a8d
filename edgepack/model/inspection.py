"""What is inside a checkpoint or a bundle, without running it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgepack.checkpoint.folder import open_checkpoint
from edgepack.family import PARTS, recognise


@dataclass(frozen=True)
class Part:
    """One state dict: its file, tensors, distinct values and bytes, and tensors by dtype."""

    name: str
    file: str
    tensors: int
    parameters: int
    bytes: int
    dtypes: dict[str, int]


@dataclass(frozen=True)
class CheckpointSummary:
    """A checkpoint folder: family, parts, voices and enrolment networks."""

    family: str
    parts: list[Part]
    voices: list[str]
    enrolment: list[str]


def inspect_checkpoint(folder: Path) -> CheckpointSummary:
    """Read the headers of a checkpoint; tensors that share a storage are counted once."""
    checkpoint = open_checkpoint(folder)
    name, family = recognise(checkpoint)
    parts = []
    for part in PARTS:
        tensors = checkpoint.tensors(part)
        distinct = {(_address(value), value.shape): value for value in tensors.values()}
        parts.append(
            Part(
                part,
                checkpoint.container(part),
                len(tensors),
                sum(value.size for value in distinct.values()),
                sum(value.nbytes for value in distinct.values()),
                dict(Counter(str(value.dtype) for value in tensors.values())),
            )
        )
    return CheckpointSummary(
        name, parts, sorted(family.voices(checkpoint)), sorted(family.enrolment(checkpoint))
    )


def _address(value: np.ndarray) -> int:
    return value.ctypes.data
