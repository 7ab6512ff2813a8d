"""How a server is set up: bounds of requests, of time and of size."""

from dataclasses import dataclass, field
from pathlib import Path

_WAITING = 4  # requests in the queue for each that is being spoken


@dataclass(frozen=True)
class RequestLimits:
    """What a request may take, so that none keeps others out.

    `body_bytes` are counted while a body is read, which may take `body_seconds`. A request waits
    `queue_seconds` at most for its turn, speaks `audio_seconds` at most, and waits `send_seconds`
    at most for a client that does not read. An uploaded recording has `upload_bytes` at most, and
    arrives within `upload_seconds`.
    """

    body_bytes: int = 64 * 1024
    body_seconds: float = 10.0
    queue_seconds: float = 60.0
    audio_seconds: float = 1800.0
    send_seconds: float = 30.0
    upload_bytes: int = 10 * 1000 * 1000
    upload_seconds: float = 60.0


@dataclass(frozen=True)
class ServeOptions:
    """How to serve.

    `running` texts are spoken at once and `waiting` more may be queued. `keys` are the API keys, of
    which each request has to bring one; none means that everybody may ask. `cache_bytes` is how
    much finished speech is kept, in `cache_folder` or in memory, or in the Redis at `cache_url`,
    which has a bound of its own; 0 keeps none. With `strict` a fault of the audio ends a request;
    otherwise it is only counted. `lead_seconds` of silence come before each utterance, for players
    that swallow the first sound. With `uploads` clients may add voices made of recordings, and
    remove those.
    """

    running: int = 1
    waiting: int = _WAITING
    keys: tuple[bytes, ...] = ()
    cache_bytes: int = 64 * 1000 * 1000
    cache_folder: Path | None = None
    cache_url: str | None = field(default=None, repr=False)  # may have a password
    strict: bool = True
    lead_seconds: float = 0.0
    uploads: bool = False
    limits: RequestLimits = field(default_factory=RequestLimits)


def running_for(threads: int, batch: int | None = None) -> int:
    """How many texts to speak at once: one for two compute threads, or as many as are decoded."""
    return max(1, threads // 2, batch or 0)


def waiting_for(running: int) -> int:
    """How many requests may wait: one waits for about as many utterances as a client is patient."""
    return _WAITING * running
