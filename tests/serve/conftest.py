"""Servers of the demo voice."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from served import Serve, Served, serving
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
