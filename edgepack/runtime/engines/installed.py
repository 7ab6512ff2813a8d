"""Which engines are installed, and which runtimes of a bundle can speak with them.

Except for `imported`, nothing here imports an engine or numpy: commands ask before they are pinned
to CPUs, which has to happen first.
"""

from collections.abc import Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from edgepack import discovery
from edgepack.bundle.bundle import Bundle
from edgepack.errors import EdgepackError, ResourceError, UnsupportedError, UsageError
from edgepack.process import shortage

SESSIONS = "edgepack.runtime.engines.adapters"


def engines() -> list[str]:
    """Names of the engines this version knows, installed or not."""
    return discovery.names(SESSIONS)


def package(name: str) -> str:
    """The package that an engine is imported from: the first possible one that is installed.

    If none is installed, the first one.
    """
    return choose(discovery.strings(SESSIONS, name, "PACKAGES"))


def choose(packages: Sequence[str]) -> str:
    """The first of several packages that is installed, or the first one if none is."""
    return next((name for name in packages if importable(name)), packages[0])


def missing(bundle: Bundle, runtime: str) -> list[str]:
    """Engines that a runtime of a bundle needs and that are not installed."""
    known = engines()
    return [n for n in bundle.engines(runtime) if n not in known or not importable(package(n))]


def usable(bundle: Bundle) -> list[str]:
    """Runtimes of a bundle that can speak on this machine, in the order of its target.

    Raises UnsupportedError if there is none.
    """
    runtimes = bundle.runtimes()
    if found := [runtime for runtime in runtimes if not missing(bundle, runtime)]:
        return found
    if len(runtimes) == 1:
        require(bundle, runtimes[0])
    ways = " or ".join(advice(missing(bundle, runtime)) for runtime in runtimes)
    raise UnsupportedError(f"{bundle.folder}: nothing is installed that it speaks with; {ways}")


def chosen(bundle: Bundle, runtime: str | None = None) -> str:
    """The named runtime of a bundle, or the first of its own that can speak on this machine.

    Raises UsageError if the bundle has none of that name, UnsupportedError if its engines are not
    installed.
    """
    if runtime is None:
        return usable(bundle)[0]
    runtimes = bundle.runtimes()
    if runtime not in runtimes:
        raise UsageError(f"{bundle.folder}: {discovery.unknown('runtime', runtime, runtimes)}")
    require(bundle, runtime)
    return runtime


def require(bundle: Bundle, runtime: str) -> None:
    """Raise UnsupportedError that names all engines a runtime needs and that are not installed."""
    absent = missing(bundle, runtime)
    if unknown := set(absent) - set(engines()):
        raise UnsupportedError(
            f"{bundle.folder}: needs the runtime {min(unknown)!r}, which this edgepack does not "
            "know; update it"
        )
    if others := [name for name in absent if name != runtime]:
        stages = ", ".join(s for other in others for s in bundle.delegated(runtime, other))
        raise UnsupportedError(
            f"{bundle.folder}: its {runtime} files leave {stages} to {', '.join(others)}, and "
            f"{_packages(absent)} not installed; {advice(absent)}, or build it with a --recipe "
            f"that leaves nothing to {', '.join(others)}"
        )
    if absent:
        raise UnsupportedError(f"{_packages(absent)} not installed; {advice(absent)}")


def skipped(bundle: Bundle) -> dict[str, str]:
    """Runtimes of a bundle that cannot speak here, with the reason."""
    found = {runtime: missing(bundle, runtime) for runtime in bundle.runtimes()}
    return {r: f"{_packages(m)} not installed; {advice(m)}" for r, m in found.items() if m}


def advice(names: Iterable[str]) -> str:
    """How to install engines."""
    return f"pip install 'edgepack[{','.join(names)}]'"


def imported(name: str) -> ModuleType:
    """Import a module of another package; whatever goes wrong becomes one of our errors.

    Raises ModuleNotFoundError if it is not installed, UnsupportedError if it is broken,
    ResourceError if there is no memory for its libraries.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name in (name, name.split(".")[0]):
            raise
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> EdgepackError:
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if shortage.of_memory(error):
        return ResourceError(f"{name}: memory ran out while it was loaded ({said}); close programs")
    return UnsupportedError(
        f"{name}: is installed and cannot be imported ({said}); install it again"
    )


def importable(name: str) -> bool:
    """Whether a package is installed; it is not imported."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # a finder that blocks it
        return False


def _packages(names: list[str]) -> str:
    known = [package(name) if name in engines() else name for name in names]
    return f"{' and '.join(known)} {'is' if len(known) == 1 else 'are'}"
