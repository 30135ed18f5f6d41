"""Connections that are kept after an answer: what holds them open, and what does not.

The default times are too long to be waited for, so the listener's protocol is run here with shorter ones, on real sockets.
"""

import asyncio
import socket
import time

import pytest
import uvloop
from craft import Craft
from receiver import Receiver
from sidecar_process import Start

from sidecar.http1.admission import ConnectionCount, Deadlines, Listener
from sidecar.http1.connection import DataProtocol
from sidecar.http1.incoming import Incoming
from sidecar.outcomes import Rejected

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Always:
    """Answers everything with a body of this size."""

    def __init__(self, size: int) -> None:
        self.size = size

    async def __call__(self, incoming: Incoming) -> None:
        incoming.start(200, b"content-length: %d\r\n" % self.size, sized=True, hold=True)
        incoming.write(bytes(self.size), more=False)

    def reject_unparsed(self, peer: str | None, rejected: Rejected) -> bytes:
        raise AssertionError(rejected)


def on_a_connection(size: int, then: list[bytes], *, read: bool) -> float:
    """Sends a request, reads its answer or not, sends the rest with pauses; seconds until the listener let it go."""
    made: list[DataProtocol] = []

    async def run() -> float:
        loop = asyncio.get_running_loop()
        deadlines = Deadlines(loop, head=5, body=5, write=0.3, keep_alive=0.4)

        def make() -> DataProtocol:
            made.append(
                DataProtocol(
                    Always(size),
                    deadlines=deadlines,
                    listener=Listener(deadlines, 9, ConnectionCount([0.0], 0)),
                    connections=set(),
                    tasks=set(),
                )
            )
            return made[-1]

        listener = socket.create_server(("127.0.0.1", 0))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server = await loop.create_server(make, sock=listener)
        sender = socket.socket()
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sender.setblocking(False)
        await loop.sock_connect(sender, listener.getsockname())
        began = loop.time()
        try:
            await loop.sock_sendall(sender, REQUEST)
            if read:
                assert (await loop.sock_recv(sender, 65536)).startswith(b"HTTP/1.1 200 OK")
            for data in then:
                await asyncio.sleep(0.1)
                if made[0].parser is None:
                    break
                await loop.sock_sendall(sender, data)
            while made[0].parser is not None:
                assert loop.time() - began < 5, "it was never let go"
                await asyncio.sleep(0.02)
            return loop.time() - began
        finally:  # a loop with an open server never closes
            sender.close()
            server.close()

    return uvloop.run(run())


def test_an_unused_connection_is_closed() -> None:
    assert 0.3 < on_a_connection(2, [], read=True) < 2


def test_a_next_request_puts_it_off() -> None:
    assert 0.8 < on_a_connection(2, [REQUEST] * 6, read=True) < 3


def test_blank_lines_do_not_put_it_off() -> None:
    """RFC 9112, 2.2, lets them stand before a request; they cancelled the clock, and nothing started it again."""
    assert 0.3 < on_a_connection(2, [b"\r\n"] * 30, read=True) < 1


@pytest.mark.parametrize("size", [40_000, 2_000_000])
def test_an_answer_that_nobody_reads_does_not_hold_it(size: int) -> None:
    """What is left of a small answer does not pause writing, so nothing timed it and the close waited for ever."""
    assert 0.2 < on_a_connection(size, [], read=False) < 3


def test_the_time_is_configurable(start: Start, receiver: Receiver, craft: type[Craft]) -> None:
    sidecar = start({"timeouts": {"keep_alive": "300ms"}})
    with sidecar.connect() as client:
        assert client.send(craft.begini()).answer().status == 200
        began = time.monotonic()
        assert client.rest() == b""
        assert 0.2 < time.monotonic() - began < 2
