"""uvicorn's side of the contract: it makes our protocol for each connection, and shuts the connections down."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from sidecar.http1.admission import ConnectionCount, Deadlines, Listener
from sidecar.http1.incoming import Incoming
from sidecar.http1.uvicorn_server import Server, http_server
from sidecar.outcomes import Rejected

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LAST = RESPONSE.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")


class Application:
    """Responds when `gate` is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun = asyncio.Event()
        self.cancelled = 0

    async def __call__(self, incoming: Incoming) -> None:
        self.begun.set()
        try:
            await asyncio.get_running_loop().create_task(self.gate.wait())
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        incoming.start(200, b"content-length: 2\r\n", sized=True, hold=True)
        incoming.write(b"ok", more=False)

    def reject_unparsed(self, peer: str | None, rejected: Rejected) -> bytes:
        raise AssertionError(rejected)


Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def run(play: Callable[[Application, Server, Connect], Awaitable[None]]) -> Application:
    """Plays while the server runs, and checks that nothing is left when it has stopped."""

    async def main() -> Application:
        application = Application()
        deadlines = Deadlines(asyncio.get_running_loop(), head=5, body=5)
        cell = [0.0]
        server = http_server(
            application, deadlines=deadlines, listener=Listener(deadlines, 9, ConnectionCount(cell, 0))
        )
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        serving = asyncio.create_task(server.serve([listener]))
        async with asyncio.timeout(10):
            await play(application, server, lambda: asyncio.open_connection("127.0.0.1", port))
            await serving
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.05)
        assert (cell, server.server_state.connections, server.server_state.tasks) == ([0.0], set(), set())
        return application

    return asyncio.run(main())


async def in_flight(application: Application) -> None:
    await application.begun.wait()


def test_it_counts_connections_and_requests_and_closes_unused_connections() -> None:
    async def play(application: Application, server: Server, connect: Connect) -> None:
        reader, writer = await connect()
        writer.write(REQUEST)
        assert await reader.readexactly(len(RESPONSE)) == RESPONSE
        assert (len(server.server_state.connections), len(server.server_state.tasks)) == (1, 0)
        server.stop(5)
        assert await reader.read() == b""
        writer.close()

    run(play)


def test_a_request_in_flight_gets_its_response() -> None:
    async def play(application: Application, server: Server, connect: Connect) -> None:
        application.gate.clear()
        reader, writer = await connect()
        writer.write(REQUEST)
        await in_flight(application)
        assert len(server.server_state.tasks) == 1
        server.stop(5)
        await asyncio.sleep(0.05)
        application.gate.set()
        assert await reader.read() == LAST
        writer.close()

    assert run(play).cancelled == 0


def test_a_request_that_takes_too_long_is_cancelled() -> None:
    async def play(application: Application, server: Server, connect: Connect) -> None:
        application.gate.clear()
        reader, writer = await connect()
        writer.write(REQUEST)
        await in_flight(application)
        server.stop(0.1)
        assert await reader.read() == b""
        writer.close()

    assert run(play).cancelled == 1
