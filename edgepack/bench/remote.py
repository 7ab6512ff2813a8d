"""The parent's side of a worker process (`worker`)."""

import multiprocessing
import time
from typing import Any

from edgepack.bench.worker import Failed, Spec, serve
from edgepack.errors import ResourceError
from edgepack.process import system
from edgepack.process.isolation import explained, sheltered

_PATIENCE_SECONDS = 1.0


class Remote:
    """A process that has loaded a bundle and answers requests."""

    def __init__(self, spec: Spec) -> None:
        """Start it and wait until it has loaded; raises the error if that failed."""
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
        """Send a request and return its answer; raises the error if it failed."""
        self._pipe.send((name, *arguments))
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode
            dead = "it was killed, as happens when memory runs out"
            cause = dead if system.killed(code) else "it crashed"
            raise ResourceError(
                f"{self.name}: its process ended with code {code}: {cause}"
            ) from None
        if isinstance(answer, Failed):
            raise explained(answer.error, answer.trace)
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        if self._process.pid is not None:
            self._process.join(timeout=_PATIENCE_SECONDS)
            self._process.kill()
            self._process.join()
