"""The other end of a subject's process."""

import multiprocessing
import time
from typing import Any

from edgepack.bench.worker import Spec, serve
from edgepack.errors import EdgepackError, ResourceError
from edgepack.isolation import sheltered

_PATIENCE_SECONDS = 1.0


class Remote:
    """A process that has loaded a bundle, which requests are sent to."""

    def __init__(self, spec: Spec) -> None:
        """Start it and wait until it has loaded; raises the EdgepackError that this ended with."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self.started = time.perf_counter()
        self._process = context.Process(target=serve, args=(theirs, spec), daemon=True)
        self.name = f"{spec.bundle.name} {spec.runtime}"
        try:
            with sheltered():
                self._process.start()
            theirs.close()
            self.described = self._answer()
        except BaseException:
            self.close()
            raise

    def ask(self, name: str, *arguments: object) -> Any:
        """The answer to a request; raises the EdgepackError that it ended with."""
        self._pipe.send((name, *arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise ResourceError(
                f"{self.name}: its process ended with code {self._process.exitcode}; "
                "memory may have run out"
            ) from None
        if isinstance(answer, EdgepackError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        if self._process.pid is not None:
            self._process.join(timeout=_PATIENCE_SECONDS)
            self._process.kill()
            self._process.join()
