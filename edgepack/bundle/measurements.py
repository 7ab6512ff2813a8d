"""Measurements of a build, in a file beside the bundle.

They are not in the bundle, as speeds and errors differ from run to run, and a bundle of the same
inputs and recipes has the same bytes.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edgepack.bundle import beside
from edgepack.bundle.bundle import Bundle
from edgepack.bundle.metrics import Values
from edgepack.bundle.ranges import Struct
from edgepack.files.atomic import write_atomically

_ENDING = "build.json"
_MOST_BYTES = 16 << 20


class Candidate(Struct, frozen=True):
    """A recipe that was tried for a network: what it gave, and why it was chosen or not.

    `speed` is fp32's time by this one's in the same runtime, above 1 is faster; None if it was
    not measured. `values` are metrics of `verification.gates`.
    """

    recipe: str
    bytes: int
    speed: float | None
    values: Values
    verdict: str


class Measurements(Struct, frozen=True):
    """What was measured while a bundle was built, on the machine of `cpu` with `threads`.

    `build` is the bundle's, which says what they are of. `seconds` is by build step; `candidates`
    (`offers` in the file) and the self-test's `errors` are by runtime and network; `peaks` is
    memory of speaking, in bytes by runtime.
    """

    build: str
    cpu: str
    threads: int
    seconds: dict[str, float]
    candidates: dict[str, dict[str, tuple[Candidate, ...]]] = msgspec.field(name="offers")
    errors: dict[str, dict[str, float]]
    peaks: dict[str, int]


@dataclass
class Lap:
    """A stopwatch: seconds by name, each measured from the lap before."""

    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        """Add the time since the last lap to `name`."""
        now = time.perf_counter()
        self.seconds[name] = now - self.started
        self.started = now


def place(bundle: Path) -> Path:
    """The file of a bundle's measurements."""
    return beside.place(bundle, _ENDING)


def write(bundle: Path, measured: Measurements) -> None:
    """Put measurements beside the bundle they are of."""
    write_atomically(place(bundle), msgspec.json.format(msgspec.json.encode(measured)) + b"\n")


def read(bundle: Bundle) -> Measurements | None:
    """The measurements of a bundle; None if there are none that can be read."""
    path = beside.found(bundle.folder, _ENDING)
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        found = msgspec.json.decode(path.read_bytes(), type=Measurements)
    except (OSError, msgspec.DecodeError, RecursionError):
        return None
    return found if found.build == bundle.manifest.build else None
