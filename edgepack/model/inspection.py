"""What is inside a checkpoint or a bundle, without running it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edgepack.model.checkpoint.folder import open_checkpoint
from edgepack.model.family import recognise
from edgepack.model.releases import Recognised, distinct, recognise_release


@dataclass(frozen=True)
class CheckpointPart:
    """One state dict: its file, tensors, distinct values and bytes, and tensors by dtype."""

    name: str
    file: str
    tensors: int
    parameters: int
    bytes: int
    dtypes: dict[str, int]


@dataclass(frozen=True)
class CheckpointSummary:
    """A checkpoint folder: family, release, parts, voices and enrolment networks."""

    family: str
    release: Recognised
    parts: list[CheckpointPart]
    voices: list[str]
    enrolment: list[str]


def inspect_checkpoint(folder: Path) -> CheckpointSummary:
    """Read the headers of a checkpoint; tensors that share a storage are counted once."""
    checkpoint = open_checkpoint(folder)
    name, family = recognise(checkpoint)
    parts = []
    for part in family.networks:
        tensors = checkpoint.tensors(part)
        own = distinct(tensors.values())
        parts.append(
            CheckpointPart(
                part,
                checkpoint.container(part),
                len(tensors),
                sum(tensor.size for tensor in own),
                sum(tensor.nbytes for tensor in own),
                dict(Counter(str(value.dtype) for value in tensors.values())),
            )
        )
    voices = sorted(family.voices(checkpoint))
    release = recognise_release(checkpoint, family.releases, voices)
    return CheckpointSummary(name, release, parts, voices, sorted(family.enrolment(checkpoint)))
