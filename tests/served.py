"""A server on a real socket, in a thread of the tests, and what asks it."""

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from types import MappingProxyType
from typing import Any

import uvicorn
from openai import OpenAI

from edgepack.energy.measurement import Measurement
from edgepack.runtime.synthesizer import Synthesizer
from edgepack.serve import server
from edgepack.serve.app import app
from edgepack.serve.options import ServeOptions

MODEL = "demo"
LONG = "Good morning, and how are you today? " * 40


def within(seconds: float, reached: Callable[[], bool]) -> float:
    """How long it takes until something is so; fails if it takes longer than `seconds`."""
    start = time.monotonic()
    while not reached():
        assert time.monotonic() - start < seconds
        time.sleep(0.02)
    return time.monotonic() - start


@dataclass(frozen=True)
class Answer:
    """What came back, with the names of headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


@dataclass(frozen=True)
class Served:
    """A running server."""

    port: int
    model: str = MODEL

    @property
    def client(self) -> OpenAI:
        url = f"http://127.0.0.1:{self.port}/v1"
        return OpenAI(base_url=url, api_key="none", max_retries=0, timeout=120)

    def connect(self, timeout: float = 120) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def post(self, body: Any, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"Content-Type": "application/json", **headers}
        return self.ask("POST", "/v1/audio/speech", data, kind)

    def speak(self, text: str, **fields: Any) -> Answer:
        return self.post({"model": self.model, "input": text, **fields})

    def begin(self, text: str, **fields: Any) -> HTTPConnection:
        """Ask for speech, and leave the answer to be read."""
        connection = self.connect()
        body = json.dumps({"model": self.model, "input": text, "response_format": "pcm", **fields})
        kind = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/audio/speech", body, kind)
        return connection

    def metric(self, name: str) -> float:
        """The value of a metric, by its name with labels."""
        lines = self.get("/metrics").body.decode().splitlines()
        found = [line for line in lines if line.startswith(f"{name} ")]
        return float(found[0].split()[-1]) if found else 0.0

    def ask(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> Answer:
        connection = self.connect()
        try:
            connection.request(method, path, data, dict(headers))
            found = connection.getresponse()
            names = {name.lower(): value for name, value in found.getheaders()}
            return Answer(found.status, names, found.read())
        finally:
            connection.close()


@contextmanager
def listening() -> Iterator[int]:
    """A port that is taken by somebody else."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@contextmanager
def serving(
    synthesizer: Synthesizer, options: ServeOptions, energy: Measurement | None = None
) -> Iterator[Served]:
    """A server until the end of the block, which waits for what is still being spoken."""
    made = app({MODEL: synthesizer}, options)
    if energy:
        made.state.service.metrics.measure(energy)
    with server.bound("127.0.0.1", 0) as opened:
        config = uvicorn.Config(made, lifespan="off", log_config=None)
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [opened]})
        thread.start()
        try:
            yield Served(opened.getsockname()[1])
        finally:
            running.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


Serve = Callable[..., Served]  # what the fixture `serve` gives

Started = tuple[subprocess.Popen[str], dict[str, object], Served]
Start = Callable[..., Started]  # what the fixture `program` gives
