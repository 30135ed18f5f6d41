"""Every sender gets its own answer, however many others leave at the moment in which theirs arrives."""

import asyncio
import contextlib
import itertools
import random
import socket
import struct

from sidecar_process import Start

ROUNDS = 90
CROWD = 24


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A receiver that answers each delivery with its own body."""
    with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            body = await reader.readexactly(size)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (size, body))


async def send(port: int, raw: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    return reader, writer


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    got = await reader.readuntil(b"\r\n\r\n")
    size = int(got.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    body = await reader.readexactly(size)
    writer.close()
    return body


def test_an_answer_whose_sender_left_reaches_nobody_else(start: Start) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    upstream = f"http://127.0.0.1:{listener.getsockname()[1]}"
    sidecar = start({"upstream": upstream, "routes": [{"path": "/all", "open": True}]})  # signing adds nothing here
    port = int(sidecar.address.rpartition(":")[2])
    numbers = itertools.count()
    chance = random.Random(1)

    def delivery() -> tuple[bytes, bytes]:
        body = b"delivery %d" % next(numbers)
        return body, b"POST /all HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def play() -> None:
        receiver = await asyncio.start_server(echo, sock=listener)
        for _ in range(ROUNDS):
            leaving = [await send(port, delivery()[1]) for _ in range(CROWD)]
            await asyncio.sleep(chance.random() * 0.006)
            for _, writer in leaving:
                abrupt = writer.get_extra_info("socket")
                abrupt.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            staying = [delivery() for _ in range(CROWD)]
            sent = [await send(port, raw) for _, raw in staying]
            answers = await asyncio.gather(*(answer(*one) for one in sent))
            assert answers == [body for body, _ in staying]
        receiver.close()
        await asyncio.sleep(1.2)  # the sidecar closes its unused connections after a second

    asyncio.run(play())
    sidecar.idle()
