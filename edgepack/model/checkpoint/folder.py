"""A checkpoint folder: its configuration, its tensors and the hashes of what was read.

Files are read or copied from the folder itself or, if the folder is a snapshot of a Hugging Face
cache, from the blobs of the same repository (`links`). Links to other places are refused.
"""

import hashlib
from collections.abc import Container, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from edgepack.errors import IntegrityError, UsageError
from edgepack.files import links
from edgepack.files.documents import read_json
from edgepack.model.checkpoint import safetensors, torch_zip, yaml
from edgepack.model.checkpoint.config import Config

# The newest name first: a folder that was downloaded over an older release may have both. The name
# does not tell the family, as CosyVoice2 had that of CosyVoice 1 until April 2025.
CONFIGS = ("cosyvoice3.yaml", "cosyvoice2.yaml", "cosyvoice.yaml")
_CONTAINERS = (".pt", ".safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A folder in the released CosyVoice layout; nothing is read before it is asked for.

    `parts` names state dicts that are in another file than `<part>.pt`. While a repository is only
    partly downloaded, `listed` are all of its files, and `has` answers by these.
    """

    folder: Path
    config_name: str
    parts: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    listed: frozenset[str] | None = field(default=None, kw_only=True)

    @cached_property
    def config(self) -> Config:
        """The hyperpyyaml configuration, as data."""
        return Config(self.config_name, yaml.load(self.file(self.config_name)))

    def file(self, name: str) -> Path:
        """The path of a file that must be there; raises IntegrityError if it leads elsewhere."""
        path = self.folder / name
        if not path.is_file():
            raise UsageError(f"{self.folder}: {name} is missing; is the download complete?")
        if not links.stays(path, self.folder):
            raise IntegrityError(
                f"{path}: a link out of the checkpoint, to {path.resolve()}; refused. "
                "If that is meant, copy the file into the folder"
            )
        return path

    def has(self, name: str) -> bool:
        """Whether the folder has this file, or the repository that it is downloaded from."""
        return name in self.listed if self.listed is not None else (self.folder / name).is_file()

    def json(self, name: str) -> Config:
        """A JSON file of the folder whose top level is an object."""
        path = self.file(name)
        values = read_json(path)
        if not isinstance(values, dict):
            raise UsageError(f"{path}: the top level is not an object")
        return Config(name, values)

    def container(self, part: str) -> str:
        """The file of a state dict: the one it was given, `<part>.pt`, or `<part>.safetensors`.

        The last one is used only if there is no `<part>.pt`.
        """
        if part in self.parts:
            return self.parts[part]
        names = [part + suffix for suffix in _CONTAINERS]
        return next((name for name in names if self.has(name)), names[0])

    def with_part(self, part: str, name: str) -> "Checkpoint":
        """The same folder with the state dict of a part from another file of it."""
        pure = PurePath(name)
        if pure.is_absolute() or ".." in pure.parts or pure.suffix not in _CONTAINERS:
            raise UsageError(
                f"{name!r} cannot be {part}: give the name of a .pt or .safetensors file that is "
                f"inside {self.folder}"
            )
        if self.listed is None:
            self.file(name)
        return replace(self, parts={**self.parts, part: name})

    def tensors(self, part: str) -> Mapping[str, np.ndarray]:
        """The state dict of a part, memory-mapped.

        Entries that are not tensors (a training checkpoint's `epoch` and `step`) are left out.
        """
        path = self.file(self.container(part))
        if path.suffix == ".safetensors":
            return safetensors.load(path)
        tree = torch_zip.load(path)
        if not isinstance(tree, dict):
            raise UsageError(f"{path}: holds a {type(tree).__name__}, expected a state dict")
        odd = [k for k, v in tree.items() if not isinstance(v, np.ndarray | int | float)]
        if odd:
            raise UsageError(f"{path}: {odd[0]!r} is not a tensor; expected a flat state dict")
        return {str(k): v for k, v in tree.items() if isinstance(v, np.ndarray)}

    def objects(self, name: str) -> Any:
        """The object tree of another `.pt` file, such as `spk2info.pt`."""
        return torch_zip.load(self.file(name))

    def sha256(self, name: str) -> str:
        """Hash of one file of the folder, hexadecimal.

        If the file is a state dict, the checksums inside it are verified as well.
        """
        path = self.file(name)
        if path.suffix == ".pt":
            torch_zip.check(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def open_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, by the first configuration that is there."""
    if not folder.is_dir():
        demo = str(folder).casefold() == "demo"
        instead = "; did you mean 'demo'?" if demo else " (or use 'demo', or OWNER/NAME)"
        raise UsageError(f"{folder}: no such checkpoint folder{instead}")
    names = {name for name in CONFIGS if (folder / name).is_file()}
    return Checkpoint(folder, config_name(names, folder))


def config_name(names: Container[str], where: object) -> str:
    """The configuration among the files of a checkpoint; raises UsageError if there is none."""
    found = next((name for name in CONFIGS if name in names), None)
    if found is None:
        raise UsageError(
            f"{where}: none of {', '.join(CONFIGS)} is there; not a CosyVoice checkpoint"
        )
    return found
