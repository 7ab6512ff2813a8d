"""API keys: read from a file, compared in constant time."""

import hmac
from collections.abc import Sequence
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from edgepack.errors import UsageError
from edgepack.serve.refusal import RefusalError

_LEAST = 16  # characters
_OPEN = ("/health/live", "/health/ready", "/")
_OPEN_FOLDER = "/page/"


def read(path: Path) -> tuple[bytes, ...]:
    """The keys in a file, one a line; blank lines and lines that begin with # do not count.

    Raises UsageError if there is none, or one that is easily guessed.
    """
    lines = [line.strip() for line in path.read_bytes().splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not keys:
        raise UsageError(f"{path}: no API key in it; write one a line")
    for key in keys:
        if len(key) < _LEAST or not key.isascii() or len(key.split()) > 1:
            raise UsageError(
                f"{path}: a key is {_LEAST} ASCII characters or more, without blanks; make one "
                "with 'openssl rand -hex 32'"
            )
    return keys


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine can reach an address that is listened on."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def is_open(path: str) -> bool:
    """Whether a path is for everybody: the server's health, and the page, which asks for a key."""
    return path in _OPEN or path.startswith(_OPEN_FOLDER)


class Guard:
    """Lets requests through that bring a key, and those to what is open to everybody."""

    def __init__(self, app: ASGIApp, keys: Sequence[bytes]) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 401."""
        if scope["type"] == "http" and self._keys and not is_open(scope["path"]):
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not self._known(given):
                refusal = RefusalError(
                    HTTPStatus.UNAUTHORIZED,
                    "give an API key of this server: Authorization: Bearer KEY",
                    code="invalid_api_key",
                )
                await refusal.response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _known(self, given: bytes) -> bool:
        scheme, _, key = given.partition(b" ")
        # Every key is compared, so that the time tells nothing.
        matches = [hmac.compare_digest(key.strip(), known) for known in self._keys]
        return scheme.lower() == b"bearer" and any(matches)
