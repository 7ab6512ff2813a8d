"""A checkpoint folder: its configuration, its tensors and the hashes of what was read."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgepack.checkpoint import safetensors, torch_zip, yaml
from edgepack.checkpoint.config import Config
from edgepack.documents import read_json
from edgepack.errors import UsageError

_CONFIGS = ("cosyvoice.yaml", "cosyvoice2.yaml", "cosyvoice3.yaml")


@dataclass(frozen=True)
class Checkpoint:
    """A folder in the released CosyVoice layout; nothing is read before it is asked for."""

    folder: Path
    config_name: str

    @cached_property
    def config(self) -> Config:
        """The hyperpyyaml configuration, as data."""
        return Config(self.config_name, yaml.load(self.file(self.config_name)))

    def file(self, name: str) -> Path:
        """The path of a file that must be there."""
        path = self.folder / name
        if not path.is_file():
            raise UsageError(f"{self.folder}: {name} is missing; is the download complete?")
        return path

    def has(self, name: str) -> bool:
        """Whether the folder has this file."""
        return (self.folder / name).is_file()

    def json(self, name: str) -> Config:
        """A JSON file of the folder whose top level is an object."""
        path = self.file(name)
        values = read_json(path)
        if not isinstance(values, dict):
            raise UsageError(f"{path}: the top level is not an object")
        return Config(name, values)

    def container(self, part: str) -> str:
        """The file of a state dict: `<part>.pt`, or `<part>.safetensors` if only that is there."""
        names = (f"{part}.pt", f"{part}.safetensors")
        return next((name for name in names if self.has(name)), names[0])

    def tensors(self, part: str) -> Mapping[str, np.ndarray]:
        """The state dict `<part>.pt` (or `<part>.safetensors`), memory-mapped.

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

        It reads all of a state dict, whose own checksums are compared on the way.
        """
        path = self.file(name)
        if path.suffix == ".pt":
            torch_zip.check(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def open_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`; the first known configuration name decides, as upstream."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such checkpoint folder (or use 'demo')")
    for name in _CONFIGS:
        if (folder / name).is_file():
            return Checkpoint(folder, name)
    raise UsageError(
        f"{folder}: none of {', '.join(_CONFIGS)} is there; not a CosyVoice checkpoint"
    )
