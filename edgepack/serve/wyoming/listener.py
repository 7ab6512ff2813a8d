"""Clients of Wyoming on a socket, in the event loop of the app."""

import asyncio
import socket
import time

from edgepack.serve.service import Service
from edgepack.serve.wyoming.connection import Connection

_CONNECTIONS = 64  # at once; more are closed
_LOOK_SECONDS = 0.05


class Listener:
    """Takes clients between `start` and `stop`, which are called in one event loop."""

    def __init__(self, service: Service, opened: socket.socket) -> None:
        self._service, self._opened = service, opened
        self._connections: dict[asyncio.Task[None], Connection] = {}

    @property
    def url(self) -> str:
        """Where clients find it."""
        host, port = self._opened.getsockname()[:2]
        return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"

    async def start(self) -> None:
        """Take clients from now on."""
        limit = self._service.options.limits.body_bytes
        self._server = await asyncio.start_server(self._come, sock=self._opened, limit=limit)

    def _come(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= _CONNECTIONS:
            writer.close()
            return
        opened: socket.socket = writer.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # clients that lost power
        connection = Connection(self._service, reader, writer)
        task = asyncio.get_running_loop().create_task(connection.run())
        self._connections[task] = connection
        task.add_done_callback(self._connections.pop)

    async def stop(self, seconds: float) -> None:
        """Take no more clients, and let what is being spoken end, for so many seconds at most."""
        self._server.close()
        end = time.monotonic() + seconds
        while any(one.busy for one in self._connections.values()) and time.monotonic() < end:
            await asyncio.sleep(_LOOK_SECONDS)
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
