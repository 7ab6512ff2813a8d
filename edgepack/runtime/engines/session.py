"""What an inference engine offers the rest of the runtime; engines are modules in `sessions`."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from edgepack import discovery, shortage
from edgepack.errors import EdgepackError, IntegrityError, ResourceError, UnsupportedError
from edgepack.manifest import State
from edgepack.runtime.installed import SESSIONS, imported

Feeds = Mapping[str, np.ndarray]

_LONGEST = 600  # characters of an engine's message


@dataclass(frozen=True)
class Placed:
    """Where a network runs: the provider of its main operators, and operators by provider."""

    provider: str
    nodes: Mapping[str, int]


class RefusedError(UnsupportedError):
    """A call that an engine's libraries have no way to make in the network's precision."""


class Session(ABC):
    """One loaded network. Caches stay inside it between calls.

    What not every engine can do has an answer here that says so.
    """

    @property
    @abstractmethod
    def batches(self) -> bool:
        """Whether it takes several rows of a batch in one call."""

    @abstractmethod
    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Outputs by name for inputs by name; caches are neither fed nor returned."""

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

        The session itself where there is none: then callers have to take turns.
        """
        return self

    def turn(self) -> AbstractContextManager[object]:
        """For calls that belong together; while it is entered, no fork is called if that helps."""
        return nullcontext()

    @property
    def restorable(self) -> bool:
        """Whether it can go on from caches that were taken elsewhere."""
        return False

    def restore(self, caches: Mapping[str, np.ndarray]) -> None:
        """Put caches, by the name of their output, in the place of its own.

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

    @property
    def placed(self) -> Placed | None:
        """Where it runs, if it knows."""
        return None


@dataclass(frozen=True)
class Accelerator:
    """Execution providers in order of preference, each with its options.

    `repeated` is for a network that is called several times in a row with inputs of equal shapes.
    """

    providers: tuple[tuple[str, Mapping[str, str]], ...]
    repeated: bool = False

    def without(self, name: str) -> "Accelerator":
        """The same without one provider, such as one that may compute in fp16 at will."""
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
    """A module of `sessions`: `ENGINE = Engine(...)`."""

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
        """Have the engine say no more on stderr than it has to; `path` is a file it can load.

        It changes the process: for programs, at their start (`runtime.quiet`).
        """
        ...


def engine(name: str) -> Engine:
    """The engine called `name`.

    Raises UnsupportedError if its package is not installed or broken, ResourceError if there is no
    memory for its libraries.
    """
    found = cast(Engine, discovery.load(SESSIONS, name, "ENGINE"))
    try:
        imported(found.distribution)
    except ModuleNotFoundError:
        raise UnsupportedError(
            f"{found.distribution} is not installed; pip install 'edgepack[{name}]'"
        ) from None
    return found
