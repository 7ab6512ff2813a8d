"""Servers that share a real Redis, which is refused, hangs, is killed and comes back."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import redis
from served import Served, serving, within
from support import Build

from edgepack.runtime.synthesizer import Synthesizer
from edgepack.serve import redis_store
from edgepack.serve.options import ServeOptions

SERVER = shutil.which("redis-server")
pytestmark = [
    pytest.mark.fleet,
    pytest.mark.skipif(SERVER is None, reason="redis-server is not installed"),
]

TEXT = "Good morning. How are you?"
PASSWORD = "a-secret-of-this-test"
HIT = 'edgepack_cache_requests_total{result="hit"}'
MISS = 'edgepack_cache_requests_total{result="miss"}'
FAULTS = "edgepack_cache_faults_total"
SLOWER = 0.5  # seconds that a fault may cost a request


@pytest.fixture(scope="module")
def synthesizer(bundle: Build) -> Synthesizer:
    return Synthesizer.load(bundle("demo"), "ort", 2)


@pytest.fixture
def servers(synthesizer: Synthesizer) -> Iterator["Servers"]:
    with ExitStack() as opened:
        yield Servers(synthesizer, opened)


class Servers:
    """Starts servers with a cache at a URL."""

    def __init__(self, synthesizer: Synthesizer, opened: ExitStack) -> None:
        self._synthesizer, self._opened = synthesizer, opened

    def start(self, url: str | None, most: int = 10**7) -> Served:
        options = ServeOptions(cache_url=url, cache_bytes=most)
        return self._opened.enter_context(serving(self._synthesizer, options))


class Running:
    """A redis-server with a password, on a port that stays the same when it is started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}/1"
        self._folder = folder
        self.start()

    def start(self) -> None:
        assert SERVER
        said = ["--save", "", "--requirepass", PASSWORD, "--dir", str(self._folder)]
        words = [SERVER, "--port", str(self.port), "--bind", "127.0.0.1", *said]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        within(20, self._answers)

    def _answers(self) -> bool:
        with closing(self.client) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, socket_timeout=5)

    def tell(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    started = Running(tmp_path)
    yield started
    started.kill()


def seconds(served: Served, seed: int) -> float:
    """How long a request for new speech takes."""
    start = time.monotonic()
    answer = served.speak(TEXT, response_format="mp3", seed=seed)
    assert answer.status == 200
    assert len(answer.body) > 5000
    return time.monotonic() - start


@pytest.fixture
def usual(servers: Servers) -> float:
    """How long such a request takes without a cache."""
    plain = servers.start(None, 0)
    return min(seconds(plain, seed) for seed in range(3))


def test_the_second_server_has_what_the_first_spoke(servers: Servers, running: Running) -> None:
    first, second = servers.start(running.url), servers.start(running.url)
    made = first.speak(TEXT, response_format="opus").body
    client = running.client
    within(10, lambda: len(client.keys()) == 1)  # it is written after the answer
    kept = second.speak(TEXT, response_format="pcm")
    assert (second.metric(MISS), second.metric(HIT)) == (0, 1)
    assert first.speak(TEXT, response_format="pcm").body == kept.body
    assert len(second.speak(TEXT, response_format="opus").body) == pytest.approx(len(made), rel=0.1)
    assert len(client.keys("edgepack:speech:1:*")) == client.dbsize() == 2  # one is the opus file
    assert all(client.ttl(name) > 0 for name in client.scan_iter())
    assert first.metric(FAULTS) == second.metric(FAULTS) == 0


def test_one_that_refuses_costs_next_to_nothing(servers: Servers, usual: float) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = servers.start(f"redis://127.0.0.1:{port}")
    assert min(seconds(found, seed) for seed in range(3)) <= usual + SLOWER
    assert found.metric(FAULTS) >= 1


def test_one_that_hangs_costs_a_fifth_of_a_second(
    servers: Servers, usual: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "_PAUSE_SECONDS", 0.0)  # each request waits for it
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        found = servers.start(f"redis://127.0.0.1:{silent.getsockname()[1]}")
        assert min(seconds(found, seed) for seed in range(3)) <= usual + SLOWER
        assert found.metric(FAULTS) >= 3


def test_a_wrong_password_is_a_miss(
    servers: Servers, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    found = servers.start(running.url.replace(PASSWORD, "another-secret"))
    assert found.speak(TEXT).status == 200
    assert found.metric(FAULTS) >= 1
    assert "AuthenticationError" in caplog.text
    assert "another-secret" not in caplog.text


def test_one_that_is_killed_and_comes_back(
    servers: Servers, running: Running, usual: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "_PAUSE_SECONDS", 0.3)
    found = servers.start(running.url)
    wanted = found.speak(TEXT, response_format="pcm").body
    within(10, lambda: len(running.client.keys()) == 1)
    running.kill()
    assert found.speak(TEXT, response_format="pcm").body == wanted
    assert min(seconds(found, seed) for seed in range(1, 4)) <= usual + SLOWER
    assert (found.metric(HIT), found.metric(FAULTS) >= 1) == (0, True)
    running.start()
    time.sleep(0.4)
    assert found.speak(TEXT, response_format="pcm").body == wanted
    within(10, lambda: len(running.client.keys()) == 1)
    assert found.speak(TEXT, response_format="pcm").body == wanted
    assert found.metric(HIT) == 1


def test_one_that_stops_while_a_text_is_spoken(servers: Servers, running: Running) -> None:
    found = servers.start(running.url)
    response = found.begin(TEXT * 3).getresponse()
    first = response.read(1000)
    running.tell(signal.SIGSTOP)
    try:
        heard = first + response.read()
        start = time.monotonic()
        assert found.speak(TEXT).status == 200
        within(5, lambda: found.metric(FAULTS) >= 1)
    finally:
        running.tell(signal.SIGCONT)
    assert len(heard) > 48_000
    assert time.monotonic() - start < 20


def test_one_that_is_full_is_only_misses(servers: Servers, running: Running) -> None:
    running.client.config_set("maxmemory", "1")
    found = servers.start(running.url)
    for _ in range(2):
        assert found.speak(TEXT).status == 200
    assert found.metric(MISS) == 2
    within(5, lambda: found.metric(FAULTS) >= 2)
