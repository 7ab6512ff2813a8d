"""The interface of inference engines, which are modules in `adapters`."""

import sys
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from edgepack import discovery
from edgepack.bundle.arrays import Feeds as Feeds  # what a call is given
from edgepack.bundle.manifest import State
from edgepack.errors import EdgepackError, IntegrityError, ResourceError, UnsupportedError
from edgepack.machine.memory import require_room
from edgepack.process import shortage
from edgepack.runtime.engines.installed import SESSIONS, imported

_LONGEST = 600  # characters of an engine's message


@dataclass(frozen=True)
class Placed:
    """Where a network runs: the provider of its main operators, and operators by provider."""

    provider: str
    nodes: Mapping[str, int]


class RefusedError(UnsupportedError):
    """The engine's libraries have no kernel for a call in the network's precision."""


class Rows(ABC):
    """Rows of a batch over a network's weights, each with caches of its own.

    They are in the order in which they joined, except that the last takes the place of one that
    leaves. What is computed of a row is the same bits whatever the others are.
    """

    @abstractmethod
    def join(self, caches: Mapping[str, np.ndarray]) -> None:
        """Add a row at the end, which goes on from the caches of a session."""

    @abstractmethod
    def leave(self, row: int) -> None:
        """Remove a row."""

    @abstractmethod
    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Outputs of one more position of every row: feeds and outputs are [rows, …]."""


class Session(ABC):
    """One loaded network. Caches stay inside it between calls.

    Methods that not every engine implements have a default that says so.
    """

    @property
    @abstractmethod
    def batches(self) -> bool:
        """Whether it takes several rows of a batch in one call."""

    @abstractmethod
    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Outputs by name for inputs by name; caches are neither fed nor returned.

        Raises CancelledError if the work of this thread was cancelled, as soon as the engine can
        end a call (`runtime.cancellation.interruptible`). What is called next has to be right.
        """

    @abstractmethod
    def reset(self) -> None:
        """Empty the caches."""

    @abstractmethod
    def caches(self) -> dict[str, np.ndarray]:
        """The caches as they are now, by the name of the output that wrote them."""

    def run_kept(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        """As `run`, but outputs of `keep` may stay where they were computed, such as on a GPU.

        `np.asarray` makes arrays of them, and sessions of the same engine take them as they are.
        """
        return dict(self.run(feeds))

    def fork(self) -> "Session":
        """Another one over the same weights, with empty caches; both may be called at once.

        If the engine cannot fork, it is the session itself, and callers have to take turns.
        """
        return self

    def turn(self) -> AbstractContextManager[object]:
        """A context for calls that belong together: forks wait, if the engine gains by that."""
        return nullcontext()

    def rows(self) -> Rows | None:
        """Rows over its weights, none at first; None if its caches are those of one row only."""
        return None

    @property
    def restorable(self) -> bool:
        """Whether it can continue from caches of another session (`restore`)."""
        return False

    def restore(self, caches: Mapping[str, np.ndarray]) -> None:
        """Replace its caches, given by the name of their output.

        Raises UnsupportedError unless it is `restorable`.
        """
        raise UnsupportedError(f"{type(self).__name__} cannot go on from given caches")

    def before(self) -> dict[str, np.ndarray]:
        """The caches as they were before the last call, by the name of their output.

        Raises UnsupportedError if it does not keep them.
        """
        raise UnsupportedError(f"{type(self).__name__} does not keep earlier caches")

    def operators(self) -> dict[str, float] | None:
        """Seconds by type of operator, of all calls since it was loaded with `profile`.

        None if the engine cannot time them.
        """
        return None

    def shapes(self) -> Mapping[str, tuple[int | None, ...]] | None:
        """The lengths of its inputs' axes, None for those that change; None if it cannot say."""
        return None

    def types(self) -> Mapping[str, type[np.generic]] | None:
        """The types of its floating-point inputs; None if it cannot say."""
        return None

    @property
    def placed(self) -> Placed | None:
        """Where it runs; None if the engine does not know."""
        return None


@dataclass(frozen=True)
class Accelerator:
    """Execution providers in order of preference, each with its options.

    `repeated` is for a network that is called several times in a row with inputs of equal shapes.
    """

    providers: tuple[tuple[str, Mapping[str, str]], ...]
    repeated: bool = False

    def without(self, name: str) -> "Accelerator":
        """The same without one provider, such as TensorRT, which may choose to compute in fp16."""
        left = tuple(p for p in self.providers if p[0] != name)
        return Accelerator(left, self.repeated)


@dataclass(frozen=True)
class Options:
    """How to load a network.

    `threads` is the number of compute threads; `cpus` are those to pin them to, none for wherever
    the system likes. `kind` is P or E if all of them are, on a machine with both. `spin` lets idle
    threads wait busily. `mapped` keeps the weights in the page cache instead of a repacked copy: it
    loads at once and suits a network that reads each weight once a call. `transient` gives the
    memory of inner values back after each call. `taps` are inner values to return as outputs too.
    `profile` has the engine time its operators. With an `accelerator` it runs there.
    """

    threads: int
    mapped: bool = False
    transient: bool = False
    taps: Sequence[str] = ()
    cpus: Sequence[int] = ()
    kind: str = ""
    spin: bool = False
    profile: bool = False
    accelerator: Accelerator | None = None


class EngineError(IntegrityError):
    """An engine refuses a network, or the inputs it is given."""


@contextmanager
def translated(where: object, what: str) -> Iterator[None]:
    """Errors of an engine as ours: ResourceError if memory ran out, else EngineError.

    `where` is the network's file, `what` the engine and what it cannot do with it. Engines' own
    exceptions share no base class.
    """
    try:
        yield
    except (EdgepackError, ModuleNotFoundError):
        raise
    except Exception as error:
        text = str(error).strip()[:_LONGEST] or type(error).__name__
        if shortage.of_memory(error):
            raise ResourceError(
                f"{where}: memory ran out ({text.splitlines()[-1]}); use a shorter text or "
                "--memory low, or close other programs"
            ) from None
        raise EngineError(f"{where}: {what} it: {text}") from None


class Engine(Protocol):
    """What a module of `adapters` has as its `ENGINE`."""

    @property
    def distribution(self) -> str:
        """The package to install, for the message when it is missing."""
        ...

    @property
    def batches(self) -> bool:
        """Whether its sessions take several rows of a batch in one call."""
        ...

    @property
    def reads_onnx(self) -> bool:
        """Whether it runs `.onnx` files, such as the networks of a checkpoint taken over."""
        ...

    def open(self, path: Path, states: Sequence[State], options: Options) -> Session:
        """Load a network file; raises IntegrityError if the engine refuses it."""
        ...

    def version(self) -> str:
        """The engine's version."""
        ...

    def hush(self, path: Path) -> None:
        """Have the engine write only errors to stderr; `path` is a file that it can load.

        It changes the process: for programs, at their start (`runtime.engines.quiet`).
        """
        ...


def engine(name: str) -> Engine:
    """The engine called `name`.

    Raises UnsupportedError if its package is not installed or broken, ResourceError if there is no
    memory for its libraries.
    """
    found = cast(Engine, discovery.load(SESSIONS, name, "ENGINE"))
    if found.distribution not in sys.modules:
        require_room(found.distribution)  # a library that is loaded in part can crash, or hang
    try:
        imported(found.distribution)
    except ModuleNotFoundError:
        raise UnsupportedError(
            f"{found.distribution} is not installed; pip install 'edgepack[{name}]'"
        ) from None
    return found
