"""Where to listen for Wyoming, whose clients bring no keys."""

from typing import NamedTuple
from urllib.parse import urlsplit

from edgepack.errors import UsageError
from edgepack.serve.keys import is_loopback


class Address(NamedTuple):
    """A host and a port of TCP; port 0 is any that is free."""

    host: str
    port: int


def read(given: str, *, everybody: bool) -> Address:
    """The address in `tcp://HOST:PORT`.

    Raises UsageError if it is none, or if others than this machine can reach it and not `everybody`
    may speak.
    """
    try:
        parts = urlsplit(given)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or parts.scheme != "tcp" or parts.path.strip("/"):
        raise UsageError(f"--wyoming {given}: write tcp://HOST:PORT, such as tcp://127.0.0.1:10200")
    if not everybody and not is_loopback(host):
        raise UsageError(
            f"--wyoming {given}: Wyoming has no keys, so that everybody there could speak with it; "
            "give --wyoming-open if they may, or 127.0.0.1"
        )
    return Address(host, port)
