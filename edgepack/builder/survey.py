"""Checkpoints read in a process with limits: what a reader missed ends that process, not this one.

Every reader is tried there before anything of a checkpoint is read here, and the networks are
written in such a process too.
"""

from dataclasses import replace
from pathlib import Path

from edgepack.checkpoint.folder import open_checkpoint
from edgepack.download import Downloaded, download
from edgepack.inspection import CheckpointSummary, inspect_checkpoint
from edgepack.isolation import Bounds, isolated
from edgepack.model_hub import parse
from edgepack.plan import DEMO, Source, bundle_name, checkpoint_folder, open_source
from edgepack.report import Step, silent

_GB = 1 << 30
# Several times what sound checkpoints were seen to take: docs/security.md.
_MEMORY, _MEMORY_A_BYTE = 2 * _GB, 2
_SECONDS, _SECONDS_A_GB = 60, 60
_WRITING_MEMORY, _WRITING_MEMORY_A_BYTE = 4 * _GB, 3
_WRITING_SECONDS, _WRITING_SECONDS_A_GB = 300, 120
_WRITTEN, _WRITTEN_A_BYTE = _GB, 4


def reading(folder: Path) -> Bounds:
    """What reading a checkpoint may take. It writes nothing."""
    size = _size(folder)
    return Bounds(folder, _MEMORY + _MEMORY_A_BYTE * size, _SECONDS + _SECONDS_A_GB * size // _GB)


def writing(folder: Path) -> Bounds:
    """What writing the networks of a checkpoint may take."""
    size = _size(folder)
    return Bounds(
        folder,
        _WRITING_MEMORY + _WRITING_MEMORY_A_BYTE * size,
        _WRITING_SECONDS + _WRITING_SECONDS_A_GB * size // _GB,
        _WRITTEN + _WRITTEN_A_BYTE * size,
    )


def survey(model: str, llm: str | None = None, step: Step = silent) -> Source:
    """The checkpoint to build as `open_source` has it, once each of its readers was tried.

    One of a model hub is downloaded first. The one that comes with edgepack is not from outside.
    """
    if model == DEMO:
        return open_source(model, llm)
    reference = parse(model)
    if reference is None:
        folder = open_checkpoint(Path(model)).folder
        return isolated(_survey, model, llm, step=step, bounds=reading(folder))
    found = download(reference, llm, step)
    bounds = reading(found.folder)
    source = isolated(_survey, str(found.folder), llm, step=step, bounds=bounds)
    name = bundle_name(reference.name)
    return replace(source, name=name, origin=found.origin, notes=found.notes)


def summary(model: str, step: Step = silent) -> tuple[CheckpointSummary, Downloaded | None]:
    """What `inspect_checkpoint` finds in a checkpoint, and where that was downloaded from."""
    reference = None if model == DEMO else parse(model)
    found = download(reference, None, step) if reference else None
    here = Path(model) if Path(model).exists() else checkpoint_folder(model)
    folder = open_checkpoint(found.folder if found else here).folder
    return isolated(_summary, folder, step=silent, bounds=reading(folder)), found


def _survey(model: str, llm: str | None, step: Step) -> Source:
    source = open_source(model, llm)
    checkpoint, family = source.checkpoint, source.family
    family.host(checkpoint)
    family.tokenizer(checkpoint)
    family.voices(checkpoint)
    family.enrolment(checkpoint)
    return source


def _summary(folder: Path, step: Step) -> CheckpointSummary:
    return inspect_checkpoint(folder)


def _size(folder: Path) -> int:
    """Bytes of all files of a folder; links count as what they lead to."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
