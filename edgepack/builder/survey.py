"""Reading checkpoints in a process with limits first, so that a hostile file ends only that.

Every reader is run there before this process reads any part of the checkpoint. The networks are
written in such a process, too.
"""

from dataclasses import replace
from pathlib import Path

from edgepack.builder.download import Downloaded, download
from edgepack.builder.model_hub import parse
from edgepack.builder.planning import DEMO, Source, bundle_name, checkpoint_folder, open_source
from edgepack.model.checkpoint.folder import open_checkpoint
from edgepack.model.inspection import CheckpointSummary, inspect_checkpoint
from edgepack.process.isolation import Bounds, isolated
from edgepack.report import Step, silent

_GB = 1 << 30
# Several times what sound checkpoints were seen to take: docs/security.md.
_MEMORY, _MEMORY_A_BYTE = 2 * _GB, 2
_SECONDS, _SECONDS_A_GB = 60, 60
_WRITING_MEMORY, _WRITING_MEMORY_A_BYTE = 4 * _GB, 3
_WRITING_SECONDS, _WRITING_SECONDS_A_GB = 300, 120
_WRITTEN, _WRITTEN_A_BYTE = _GB, 4


def reading(folder: Path) -> Bounds:
    """Limits of the process that reads a checkpoint; it may not write files."""
    size = _size(folder)
    return Bounds(folder, _MEMORY + _MEMORY_A_BYTE * size, _SECONDS + _SECONDS_A_GB * size // _GB)


def writing(folder: Path) -> Bounds:
    """Limits of the process that writes the networks of a checkpoint."""
    size = _size(folder)
    return Bounds(
        folder,
        _WRITING_MEMORY + _WRITING_MEMORY_A_BYTE * size,
        _WRITING_SECONDS + _WRITING_SECONDS_A_GB * size // _GB,
        _WRITTEN + _WRITTEN_A_BYTE * size,
    )


def survey(model: str, llm: str | None = None, step: Step = silent) -> Source:
    """The checkpoint to build as `open_source` has it, once each of its readers was tried.

    A checkpoint of a model hub is downloaded first. The demo that comes with edgepack is trusted.
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
    told = isolated(_summary, folder, step=silent, bounds=reading(folder))
    if reference:
        told = replace(told, release=told.release.of_repository(reference.name))
    return told, found


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
