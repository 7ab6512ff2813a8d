"""CPUs that processes of one machine share out among themselves, so that each has its own.

A claim is a lock on a file for each CPU. The system releases it when the process ends, however it
ends. Only processes that claim, of one user, keep out of each other's way.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from edgepack.files import caches
from edgepack.process import system

_claims: list["Claim"] = []  # of this process: locks end with the objects that hold them


class Claim:
    """CPUs of this process, until `release` or its end."""

    def __init__(self, cpus: tuple[int, ...], held: ExitStack) -> None:
        self.cpus, self._held = cpus, held

    def release(self) -> None:
        """Let others have them."""
        self._held.close()
        _claims.remove(self)


def claim(count: int, among: Iterable[int], folder: Path | None = None) -> Claim | None:
    """Take the first `count` CPUs that no other process has; None if so many are not free.

    `among` are the CPUs in the order in which they are preferred. Systems without such locks have
    none to give.
    """
    if not system.LOCKS:
        return None
    folder = folder or caches.folder() / "cpus"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "claiming").open("a+b") as turn:
        system.lock(turn, wait=True)  # or two could keep each other from enough of them
        with ExitStack() as held:
            taken: list[int] = []
            for cpu in among:
                if len(taken) == count:
                    break
                file = (folder / str(cpu)).open("a+b")
                if system.lock(file, wait=False):
                    held.enter_context(file)
                    taken.append(cpu)
                else:
                    file.close()
            if len(taken) < count:
                return None
            made = Claim(tuple(sorted(taken)), held.pop_all())
            _claims.append(made)
            return made
