"""Finished speech in Redis, which several servers share.

A Redis that is slow, away or full costs a request a fraction of a second and is a miss, never an
error. After a fault nothing is asked of it for some seconds.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl, urlsplit

from edgepack.errors import UsageError

if TYPE_CHECKING:
    from redis import Redis

_log = logging.getLogger(__name__)

T = TypeVar("T")

SCHEMES = ("redis", "rediss", "unix")
_PREFIX = "edgepack:speech:1:"  # with the version of what values are made of
_HASH_BYTES = 32
_LARGEST = 2_000_000  # bytes of a value: what a network of 100 Mbit/s carries within the timeout
_KEPT_SECONDS = 7 * 24 * 3600  # since the latest use
_TIMEOUT_SECONDS = 0.2
_PAUSE_SECONDS = 5.0
_USAGE = "write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], or rediss:// for TLS"


def is_url(place: str) -> bool:
    """Whether the place of a cache is a URL, and not a folder."""
    return "://" in place


def connected(url: str) -> "Redis":
    """A client for a URL, which connects when it is first used.

    Raises UsageError if it is no URL of a Redis. No message repeats it: a password may be in it.
    """
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        parts = urlsplit(url)
        options = {name for name, _ in parse_qsl(parts.query)}
        database = parts.path.strip("/")
        unknown = {name for name in options if name != "db" and not name.startswith("ssl_")}
        if parts.scheme not in SCHEMES:
            raise UsageError(f"a cache at {parts.scheme}://… is not known; {_USAGE}")
        if unknown:
            raise UsageError(f"the URL of Redis has the option {min(unknown)}; only ssl_… and db")
        if parts.scheme != "unix" and (not parts.hostname or not (database or "0").isdecimal()):
            raise UsageError(f"the URL of Redis has no host, or a path that is no number; {_USAGE}")
        # Retries would make a refused connection cost seconds, and one that hangs half a minute.
        client = Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        client.connection_pool.make_connection()  # which looks at the options
    except (ValueError, TypeError) as error:
        said = type(error).__name__
        raise UsageError(f"the URL of Redis cannot be read ({said}); {_USAGE}") from None
    return client


class RedisStore:
    """Values in Redis until nobody asked for them for a week; Redis bounds how many those are.

    `limit` is the largest value that is kept, as far as the time that a fault may cost allows it.
    `faulted` is called for each fault, from any thread.
    """

    def __init__(self, client: "Redis", limit: int, faulted: Callable[[], None]) -> None:
        self._client, self._faulted = client, faulted
        self._largest = min(limit, _LARGEST)
        self._lock = threading.Lock()
        self._silent_until: float | None = None  # after a fault
        self._told: set[str] = set()

    @property
    def size(self) -> float:
        """Not a number: only Redis knows."""
        return float("nan")

    def get(self, key: str) -> bytes | None:
        """A value, which is kept for another week then; None if Redis does not answer in time."""
        return self._asked(lambda: self._read(_PREFIX + key))

    def put(self, key: str, value: bytes) -> None:
        """Keep a value unless it is too large, or Redis does not take it in time."""
        if len(value) <= self._largest:
            sealed = hashlib.sha256(value).digest() + value
            self._asked(lambda: self._client.set(_PREFIX + key, sealed, ex=_KEPT_SECONDS))

    def _read(self, name: str) -> bytes | None:
        """A value that is whole and no larger than what would be kept."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.getrange(name, 0, _HASH_BYTES + self._largest - 1)
            pipe.expire(name, _KEPT_SECONDS)
            data: bytes = pipe.execute()[0]
        value = data[_HASH_BYTES:]
        return value if hashlib.sha256(value).digest() == data[:_HASH_BYTES] else None

    def _asked(self, ask: Callable[[], T]) -> T | None:
        """What Redis answers; None if it is not to be asked now, or fails."""
        from redis.exceptions import RedisError, ResponseError

        if not self._open():
            return None
        try:
            answer = ask()
        except ResponseError as error:  # it is there, and does not do this, as when it is full
            self._fault(error)
            with self._lock:
                self._silent_until = None
        except (RedisError, OSError, ValueError) as error:
            self._fault(error)
            with self._lock:
                self._silent_until = time.monotonic() + _PAUSE_SECONDS
        else:
            with self._lock:
                self._silent_until = None
            return answer
        return None

    def _open(self) -> bool:
        """Whether to ask; after a pause only one thread does, until it has an answer."""
        with self._lock:
            now = time.monotonic()
            if self._silent_until is None:
                return True
            if now < self._silent_until:
                return False
            self._silent_until = now + _PAUSE_SECONDS
            return True

    def _fault(self, error: Exception) -> None:
        """Count a fault, and tell of the first of its kind."""
        self._faulted()
        kind = type(error).__name__
        with self._lock:
            known = kind in self._told
            self._told.add(kind)
        if not known:  # its message stays out: that of an old Redis repeats the password
            _log.warning("the cache in Redis fails (%s); what it has is spoken anew", kind)
