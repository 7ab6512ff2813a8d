"""Recorded inputs of networks on disk: one safetensors file a call, a folder a network."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edgepack.errors import IntegrityError

Sample = Mapping[str, np.ndarray]


@dataclass
class Reservoir:
    """At most `limit` of all calls offered for a network, each as likely as any other.

    Vitter's algorithm R (1985), seeded by the network's name: the same calls give the same files.
    """

    folder: Path
    stage: str
    limit: int
    offered: int = 0
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha256(self.stage.encode()).digest()
        self._rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        (self.folder / self.stage).mkdir(parents=True, exist_ok=True)

    def offer(self, call: Callable[[], Sample]) -> None:
        """Keep a call or not; `call` is evaluated only if it is kept."""
        slot = self.offered
        self.offered += 1
        if slot >= self.limit:
            slot = int(self._rng.integers(0, self.offered))
            if slot >= self.limit:
                return
        write_call(self.folder, self.stage, slot, call())


def write_call(folder: Path, stage: str, number: int, call: Sample) -> None:
    """Write the call of a number, in the place of the one that had it."""
    arrays = {name: np.ascontiguousarray(value) for name, value in call.items()}
    (folder / stage / f"{number:04d}.safetensors").write_bytes(save(arrays))


def read_calls(folder: Path, stage: str) -> Iterator[dict[str, np.ndarray]]:
    """The recorded calls of a network, in order; raises IntegrityError for a damaged file."""
    for path in sorted((folder / stage).glob("*.safetensors")):
        try:
            yield load(path.read_bytes())
        except SafetensorError as error:
            raise IntegrityError(f"{path}: not recorded inputs ({error}); delete it") from None
