"""What a back end offers the pipeline; back ends are modules in `backends`.

A back end and the runtime engine that runs its files have the same name.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from edgepack import discovery
from edgepack.manifest import State
from edgepack.target import RuntimeOptions

PACKAGE = "edgepack.backends"


@dataclass(frozen=True)
class Job:
    """One graph to convert.

    `model` is the fp32 hub's `.onnx` file, `folder` where the result goes; a back end may write
    only there. `precision` is how weights are stored.
    """

    stage: str
    model: Path
    folder: Path
    states: tuple[State, ...]
    precision: str
    options: RuntimeOptions


class Backend(Protocol):
    """A module of `backends`: `BACKEND = ...`."""

    @property
    def containers(self) -> Sequence[str]:
        """The `container` values it understands."""
        ...

    def convert(self, job: Job) -> list[Path]:
        """Write the files of one graph; the first is the one to open.

        Raises UnsupportedError with the operator or limit that stands in the way.
        """
        ...


def backend(name: str) -> Backend:
    """The back end called `name`."""
    return cast(Backend, discovery.load(PACKAGE, name, "BACKEND"))
