"""What an inference engine offers the rest of the runtime; engines are modules in `sessions`."""

import importlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np

from edgepack import discovery
from edgepack.errors import EdgepackError, IntegrityError, ResourceError, UnsupportedError
from edgepack.manifest import State

PACKAGE = "edgepack.runtime.sessions"

Feeds = Mapping[str, np.ndarray]

# How engines say that memory ran out; none has an exception of its own for it.
_NO_MEMORY = ("bad_alloc", "bad allocation", "allocate memory", "out of memory", "BFCArena")
_LONGEST = 600  # characters of an engine's message


class Session(Protocol):
    """One loaded network. Caches stay inside it between calls."""

    def run(self, feeds: Feeds) -> dict[str, np.ndarray]:
        """Outputs by name for inputs by name; caches are neither fed nor returned."""
        ...

    def reset(self) -> None:
        """Empty the caches."""
        ...

    def caches(self) -> dict[str, np.ndarray]:
        """The caches as they are now, by the name of the output that wrote them."""
        ...


@runtime_checkable
class Forkable(Protocol):
    """A session whose weights several sessions can share, each with caches of its own."""

    def fork(self) -> Session:
        """Another one, with empty caches; the two may be called at once from several threads."""
        ...


def fork(session: Session) -> Session:
    """A fork of a session, or the session itself if it is of a kind that needs none."""
    return session.fork() if isinstance(session, Forkable) else session


@runtime_checkable
class TakingTurns(Protocol):
    """A session that forks of it wait for, and that does better if they wait for several calls."""

    def turn(self) -> AbstractContextManager[object]:
        """While it is entered, no fork is called."""
        ...


def turn(session: Session) -> AbstractContextManager[object]:
    """For calls that belong together; nobody waits for a session of another kind."""
    return session.turn() if isinstance(session, TakingTurns) else nullcontext()


@runtime_checkable
class Profiled(Protocol):
    """A session of an engine that can time its operators."""

    def operators(self) -> dict[str, float]:
        """Seconds by type of operator, of all calls since it was loaded with `profile`."""
        ...


@runtime_checkable
class Keeping(Protocol):
    """A session of which outputs can stay where they were computed, such as on a GPU."""

    def run_kept(self, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
        """As `run`, but outputs of `keep` may be other than arrays.

        `np.asarray` makes them some, and sessions of the same engine take them as they are.
        """
        ...


def run_kept(session: Session, feeds: Feeds, keep: Collection[str]) -> dict[str, Any]:
    """Run a session, with the outputs `keep` left where they are if it can do that."""
    if isinstance(session, Keeping):
        return session.run_kept(feeds, keep)
    return dict(session.run(feeds))


@runtime_checkable
class Restorable(Protocol):
    """A session that can go on from caches that were taken elsewhere."""

    def restore(self, caches: Mapping[str, np.ndarray]) -> None:
        """Put caches, by the name of their output, in the place of its own."""
        ...


@runtime_checkable
class Rewindable(Restorable, Protocol):
    """A session whose last call can be made by another one instead."""

    def before(self) -> dict[str, np.ndarray]:
        """The caches as they were before the last call, by the name of their output."""
        ...


@runtime_checkable
class Shaped(Protocol):
    """A session that knows what its network is to be given."""

    def shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """The lengths of its inputs' axes, None for those that change."""
        ...


@dataclass(frozen=True)
class Placed:
    """Where a network runs: the provider of its main operators, and operators by provider."""

    provider: str
    nodes: Mapping[str, int]


@runtime_checkable
class Placeable(Protocol):
    """A session that knows where it runs."""

    @property
    def placed(self) -> Placed:
        """Where it runs."""
        ...


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


class RefusedError(IntegrityError):
    """An engine refuses a network, or the inputs it is given."""


@contextmanager
def translated(where: object, what: str) -> Iterator[None]:
    """Errors of an engine as ours: ResourceError if memory ran out, else RefusedError.

    `where` is the network's file, `what` the engine and what it cannot do with it. Engines' own
    exceptions share no base class.
    """
    try:
        yield
    except (EdgepackError, ModuleNotFoundError):
        raise
    except Exception as error:
        text = str(error).strip()[:_LONGEST] or type(error).__name__
        if isinstance(error, MemoryError) or any(sign in text for sign in _NO_MEMORY):
            raise ResourceError(
                f"{where}: memory ran out ({text.splitlines()[0]}); use a shorter text or "
                "--memory low, or close other programs"
            ) from None
        raise RefusedError(f"{where}: {what} it: {text}") from None


class Engine(Protocol):
    """A module of `sessions`: `ENGINE = Engine(...)`."""

    @property
    def distribution(self) -> str:
        """The package to install, for the message when it is missing."""
        ...

    @property
    def batches(self) -> bool:
        """Whether its files take several rows of a batch in one call."""
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


def engines() -> list[str]:
    """Names of the engines this version knows, installed or not."""
    return discovery.names(PACKAGE)


def engine(name: str) -> Engine:
    """The engine called `name`; raises UnsupportedError if its package is not installed."""
    found = cast(Engine, discovery.load(PACKAGE, name, "ENGINE"))
    try:
        importlib.import_module(found.distribution)
    except ImportError:
        raise UnsupportedError(
            f"{found.distribution} is not installed; pip install 'edgepack[{name}]'"
        ) from None
    return found
