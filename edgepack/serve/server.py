"""The app on a socket, in uvicorn, until a signal ends it."""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import HANDLED_SIGNALS

_BACKLOG = 128
_CONNECTIONS = 256  # at once, idle ones included; more are told 503
_IDLE_SECONDS = 30
_LOOK_SECONDS = 0.1


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens on an address; port 0 is any that is free.

    Raises OSError that names the address if it cannot be had.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, proto)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
            opened.listen(_BACKLOG)
        except BaseException:
            opened.close()
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), f"{host}:{port}") from None
    return opened


def url(opened: socket.socket) -> str:
    """Where clients find a bound socket."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Peer(Protocol):
    """A server of another protocol in the event loop of the app."""

    async def start(self) -> None:
        """Take requests from now on."""

    async def stop(self, seconds: float) -> None:
        """Take no more, and wait so long at most for what is being spoken."""


def serve(
    app: ASGIApp,
    opened: socket.socket,
    drain_seconds: int,
    ready: Callable[[], None],
    peers: Sequence[Peer] = (),
) -> None:
    """Answer until SIGTERM or Ctrl-C, then finish what is being spoken and return.

    After `drain_seconds` what is still unfinished is cut. `ready` is called once requests are
    taken. To be called in the main thread.
    """
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=drain_seconds,
    )
    server = _Server(config, ready, peers)
    with opened, _handling(server.handle_exit):
        server.run(sockets=[opened])


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have SIGTERM and Ctrl-C handled during the block."""
    before = {number: signal.signal(number, handler) for number in HANDLED_SIGNALS}
    try:
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)


class _Server(uvicorn.Server):
    """Tells when it has started; its peers start and end with it."""

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], None], peers: Sequence[Peer]
    ) -> None:
        super().__init__(config)
        self._ready, self._peers = ready, peers

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: `serve` has signals handled until the event loop is closed, not only until here.

        uvicorn would raise them again here, and another one would interrupt that closing.
        """
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            for peer in self._peers:
                await peer.start()
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        seconds = self.config.timeout_graceful_shutdown or 0
        stopping = asyncio.gather(*(peer.stop(seconds) for peer in self._peers))
        await super().shutdown(sockets)
        while not stopping.done() and not self.force_exit:  # which a second Ctrl-C asks for
            await asyncio.wait([stopping], timeout=_LOOK_SECONDS)
        stopping.cancel()
