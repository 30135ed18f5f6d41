"""A data listener on a fake transport and a clock set by hand: its connections, as their senders see them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fake_loop import FakeLoop, FakeTransport

from sidecar.http1.admission import ConnectionCount, Deadlines, Listener
from sidecar.http1.connection import DataProtocol
from sidecar.http1.incoming import Incoming
from sidecar.outcomes import Rejected

HEAD_SECONDS, BODY_SECONDS = 10.0, 30.0
UNPARSED = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

Behaviour = Callable[[Incoming], Awaitable[None]]


def respond(incoming: Incoming, body: bytes = b"", status: int = 200) -> None:
    incoming.start(status, b"content-length: %d\r\n" % len(body), sized=True, hold=True)
    incoming.write(body, more=False)


async def read(incoming: Incoming) -> bytes:
    body = b""
    more = True
    while more:
        piece, more = incoming.take()
        body += piece
        if more:
            await incoming.news()
    return body


async def read_and_respond(incoming: Incoming) -> None:
    """Echoes the body."""
    respond(incoming, await read(incoming))


class Server:
    """A listener, its application, and the connections to it. The application behaves as `behaviour` says."""

    def __init__(self, *, max_connections: int = 9) -> None:
        self.loop = FakeLoop()  # type: ignore[abstract]  # it has everything that is used
        self.deadlines = Deadlines(self.loop, head=HEAD_SECONDS, body=BODY_SECONDS)
        self.cell = [0.0]
        self.listener = Listener(self.deadlines, max_connections, ConnectionCount(self.cell, 0))
        self.behaviour: Behaviour = read_and_respond
        self.requests: list[Incoming] = []
        self.faults: list[Rejected] = []  #: as the application saw them
        self.unparsed: list[tuple[str | None, Rejected]] = []
        self.ended: list[str] = []  #: how handling each request ended
        self.connections: set[Any] = set()
        self.tasks: set[Any] = set()

    async def __call__(self, incoming: Incoming) -> None:
        self.requests.append(incoming)
        try:
            if incoming.fault is not None:
                raise incoming.fault
            await self.behaviour(incoming)
        except Rejected as rejected:
            self.faults.append(rejected)
            self.ended.append("rejected")
            respond(incoming, status=400)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        else:
            self.ended.append("done")

    def reject_unparsed(self, peer: str | None, rejected: Rejected) -> bytes:
        self.unparsed.append((peer, rejected))
        return UNPARSED

    def connect(self, **extra: Any) -> "Peer":
        return Peer(self, FakeTransport(**({"peername": ("192.0.2.1", 4000)} | extra)))

    @property
    def open(self) -> int:
        return int(self.cell[0])


class Peer:
    """One connection, seen from its sender."""

    def __init__(self, server: Server, transport: FakeTransport) -> None:
        self.server = server
        self.transport = transport
        self.protocol = DataProtocol(
            server,
            deadlines=server.deadlines,
            listener=server.listener,
            connections=server.connections,
            tasks=server.tasks,
        )
        self.protocol.connection_made(transport)

    def send(self, *segments: bytes) -> bytes:
        """Sends each segment in its own turn of the loop. Returns the bytes that came back since the last call."""
        for segment in segments:
            self.protocol.data_received(segment)
            self.server.loop.turn()
        return self.transport.take()

    def wait(self, seconds: float) -> bytes:
        self.server.loop.advance(self.server.loop.now + seconds)
        return self.transport.take()

    def leave(self, error: Exception | None = None) -> None:
        self.protocol.connection_lost(error)
        self.server.loop.turn()
