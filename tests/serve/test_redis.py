"""Finished speech in Redis, and what its faults cost; tests/interop has a real server."""

import logging
import time
from collections.abc import Callable

import fakeredis
import pytest
import redis
from served import Serve, listening
from support import Build

from edgepack.cli import main
from edgepack.errors import UsageError
from edgepack.serve import redis_store
from edgepack.serve.cache import Cache, Spoken
from edgepack.serve.redis_store import RedisStore, connected

TEXT = "Good morning. How are you?"
KEY = "a" * 64
NAME = f"edgepack:speech:1:{KEY}"
FAULTS = "edgepack_cache_faults_total"
HIT = 'edgepack_cache_requests_total{result="hit"}'


@pytest.fixture
def kept() -> redis.Redis:
    return fakeredis.FakeRedis()


@pytest.fixture
def faults() -> list[float]:
    """When each fault was."""
    return []


@pytest.fixture
def store(kept: redis.Redis, faults: list[float]) -> RedisStore:
    return RedisStore(kept, 10_000, lambda: faults.append(time.monotonic()))


def failing(error: Exception) -> Callable[..., object]:
    def fail(*given: object, **named: object) -> object:
        raise error

    return fail


def test_a_value_comes_back_for_a_week_from_its_latest_use(
    kept: redis.Redis, store: RedisStore
) -> None:
    store.put(KEY, b"value")
    assert kept.keys() == [NAME.encode()]
    week = 7 * 24 * 3600
    assert week - 5 <= kept.ttl(NAME) <= week
    kept.expire(NAME, 10)
    assert store.get(KEY) == b"value"
    assert kept.ttl(NAME) > week - 5
    assert store.get("b" * 64) is None


def test_another_server_has_it_too(kept: redis.Redis, store: RedisStore) -> None:
    Cache(store).keep(KEY, Spoken(b"\x01\x00", 3, 4))
    assert Cache(RedisStore(kept, 10_000, lambda: None)).spoken(KEY) == Spoken(b"\x01\x00", 3, 4)


@pytest.mark.parametrize("value", [b"", b"x" * 10, b"x" * 100_000])
def test_what_others_wrote_is_a_miss(kept: redis.Redis, store: RedisStore, value: bytes) -> None:
    kept.set(NAME, value)
    assert store.get(KEY) is None


def test_what_is_no_speech_is_a_miss(store: RedisStore) -> None:
    store.put(KEY, b"\xc1 whole, but no speech")
    assert store.get(KEY) is not None
    assert Cache(store).spoken(KEY) is None


def test_large_values_are_not_kept(
    kept: redis.Redis, store: RedisStore, faults: list[float]
) -> None:
    store.put(KEY, b"x" * 10_001)
    RedisStore(kept, 10**9, lambda: None).put(KEY, b"x" * 2_000_001)
    assert (kept.keys(), faults) == ([], [])


def test_after_a_fault_it_is_left_alone_for_a_while(
    kept: redis.Redis, store: RedisStore, faults: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    store.put(KEY, b"value")
    with monkeypatch.context() as broken:
        broken.setattr(kept, "pipeline", failing(redis.ConnectionError("gone")))
        assert store.get(KEY) is None
        assert len(faults) == 1
    assert store.get(KEY) is None  # and not because Redis says so
    store.put("b" * 64, b"value")
    assert len(kept.keys()) == 1
    now[0] += 5.1
    assert store.get(KEY) == b"value"
    assert len(faults) == 1


def test_one_that_is_full_is_still_read(
    kept: redis.Redis, store: RedisStore, faults: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put(KEY, b"value")
    monkeypatch.setattr(kept, "set", failing(redis.OutOfMemoryError("full")))
    store.put("b" * 64, b"value")
    assert len(faults) == 1
    assert store.get(KEY) == b"value"


@pytest.mark.parametrize(
    "url", ["redis://:secret@h", "rediss://me:secret@h:1/2?ssl_cert_reqs=none"]
)
def test_urls_with_a_password_are_taken(url: str) -> None:
    given = connected(url).connection_pool.make_connection()
    assert given.password == "secret"  # type: ignore[attr-defined]
    assert isinstance(given, redis.SSLConnection) is url.startswith("rediss")


@pytest.mark.parametrize(
    "url",
    [
        "http://:secret@h",
        "redis://",
        "redis://:secret@h:port",
        "redis://:secret@h/name",
        "redis://:secret@h?socket_timeout=30",
        "rediss://:secret@h?ssl_nothing=1",
        "redis://[:secret",
        "redis://:secret@h?db=x",
    ],
)
def test_other_urls_are_refused_in_a_line_without_the_password(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        connected(url)
    assert "secret" not in str(refused.value)


def test_the_command_refuses_them_before_anything_is_loaded(
    bundle: Build, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["serve", str(bundle("demo")), "--port", "0", "--cache"]
    assert main([*words, "http://localhost"]) == 2
    assert "a cache at http://… is not known; write redis://" in capsys.readouterr().err
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    assert main([*words, "redis://localhost"]) == 3
    assert "redis is not installed; pip install 'edgepack[redis]'" in capsys.readouterr().err


def test_a_refused_connection_is_a_miss(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with listening() as port:
        pass
    found = serve(cache_url=f"redis://:secret@127.0.0.1:{port}")
    answers = [found.speak(TEXT, response_format="pcm") for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].body == answers[1].body
    assert found.metric(FAULTS) == 1
    assert found.metric(HIT) == 0
    warned = [record for record in caplog.records if record.name == redis_store.__name__]
    assert [record.levelno for record in warned] == [logging.WARNING]
    assert "secret" not in warned[0].getMessage()
