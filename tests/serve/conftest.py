"""Servers of the demo voice."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from served import Serve, Served, Start, Started, serving
from support import Build

from edgepack.runtime.synthesizer import Synthesizer
from edgepack.serve.options import ServeOptions


@pytest.fixture(scope="session")
def synthesizer(bundle: Build) -> Synthesizer:
    return Synthesizer.load(bundle("demo"), "ort", 2)


@pytest.fixture
def serve(synthesizer: Synthesizer) -> Iterator[Serve]:
    """Starts a server with the options that are given."""
    with ExitStack() as opened:

        def start(**options: Any) -> Served:
            return opened.enter_context(serving(synthesizer, ServeOptions(**options)))

        yield start


@pytest.fixture(scope="session")
def served(synthesizer: Synthesizer) -> Iterator[Served]:
    """A server that several tests ask; without a cache, so that none has the audio of another."""
    with serving(synthesizer, ServeOptions(cache_bytes=0, running=2, waiting=8)) as found:
        yield found


@pytest.fixture
def program(bundle: Build) -> Iterator[Start]:
    """Starts the command with more options; gives its process, document and server."""
    processes = []

    def start(*options: str) -> Started:
        words = ["serve", str(bundle("demo")), "--port", "0", "--format", "ort", "--json", *options]
        process = subprocess.Popen(
            [sys.executable, "-m", "edgepack", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout
        lines: list[str] = []
        while not lines or lines[-1] != "}\n":
            lines.append(process.stdout.readline())
            assert lines[-1], process.communicate()[1]
        document = json.loads("".join(lines))
        port = int(document["url"].removesuffix("/v1").rpartition(":")[2])
        return process, document, Served(port, document["models"][0])

    yield start
    for process in processes:
        process.kill()
        process.communicate()
