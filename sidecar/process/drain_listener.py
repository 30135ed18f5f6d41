"""The server side of `sidecar drain`, in the running process."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

from sidecar.process.drain_socket import REQUEST, RESPONSE, may_drain, peer_of

#: Seconds. A client that sends nothing for longer is disconnected.
REQUEST_SECONDS = 5.0


class DrainListener:
    """Calls `begin` when a process that may do so asks, and responds when it has returned."""

    def __init__(self, listener: socket.socket, begin: Callable[[], Awaitable[None]]) -> None:
        self._listener = listener
        self._begin = begin
        self._server: asyncio.Server | None = None

    async def serve(self) -> None:
        self._server = await asyncio.start_unix_server(self._respond, sock=self._listener, limit=len(REQUEST) * 2)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        else:
            self._listener.close()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not may_drain(peer_of(writer.get_extra_info("socket"))):
                return
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await reader.readexactly(len(REQUEST))
            if request == REQUEST:
                await self._begin()
                writer.write(RESPONSE)
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # it is gone, or has sent something else
        finally:
            writer.close()
