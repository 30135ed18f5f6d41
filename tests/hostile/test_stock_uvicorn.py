"""The gaps in uvicorn's own httptools protocol: the reasons for a protocol of our own in `sidecar/http1/`.

Each of these tests fails when uvicorn closes a gap, and names our code for it. That code stays as long as the protocol is
ours; once no test is left, uvicorn's protocol would do.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from hostile_cases import BODY, chunked, chunks, request
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState
from waiting import PATIENCE

DONE = "uvicorn %s now, so there is one reason less for a protocol of our own (docs/design-data-path.md); our code for it: %s"


class Seen:
    """An ASGI application that records its requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, Any], bytes]] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.requests.append((scope, body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


@contextlib.asynccontextmanager
async def stock(protocol: type[HttpToolsProtocol] = HttpToolsProtocol) -> AsyncIterator[tuple[Seen, int]]:
    """An application on that protocol, and the port it listens on."""
    seen = Seen()
    config = uvicorn.Config(seen, http=protocol, ws="none", lifespan="off", timeout_keep_alive=1, log_config=None)
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(config, ServerState(), {}), "127.0.0.1", 0)
    yield seen, server.sockets[0].getsockname()[1]
    server.close()


def told(raw: bytes, *, quiet: float = 0.1) -> tuple[bytes, bool, list[tuple[dict[str, Any], bytes]]]:
    """Returns the responses until `quiet` seconds pass, whether the connection ended, and the application's requests."""

    async def run() -> tuple[bytes, bool, list[tuple[dict[str, Any], bytes]]]:
        async with stock() as (seen, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw)
            answer, ended = b"", False
            with contextlib.suppress(TimeoutError):
                while not ended:
                    async with asyncio.timeout(quiet):
                        data = await reader.read(65536)
                    answer += data
                    ended = not data
            writer.close()
            return answer, ended, seen.requests

    return asyncio.run(run())


def headers_of(raw: bytes) -> list[tuple[bytes, bytes]]:
    _, _, requests = told(raw)
    return list(requests[0][0]["headers"]) if requests else []


def test_it_merges_trailer_fields_into_the_headers() -> None:
    trailer = b"X-Signature: from-the-trailer\r\n"
    raw = chunked(chunks()[:-2] + trailer + b"\r\n")
    merged = (b"x-signature", b"from-the-trailer") in headers_of(raw)
    assert merged, DONE % ("keeps trailer fields apart", "the rejection in DataProtocol.on_header")


def test_it_hands_an_upgrade_on_without_its_body() -> None:
    raw = request([(b"Connection", b"Upgrade"), (b"Upgrade", b"h2c")])
    _, _, requests = told(raw)
    lost = bool(requests) and requests[0][1] != BODY
    assert lost, DONE % ("keeps the body of an Upgrade", "RequestParser._ignore_upgrades")


def test_it_sets_no_deadline_for_head_or_body() -> None:
    async def run() -> list[bytes | None]:
        async def open_after_a_while(port: int, start: bytes) -> bytes | None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(start)
            try:
                async with asyncio.timeout(1.6):
                    return await reader.read(65536)
            except TimeoutError:
                return None  # still open, nothing was said
            finally:
                writer.close()

        async with stock() as (_, port):
            starts = (b"", b"POST /webh", request()[:90], request()[:-9])
            return await asyncio.gather(*(open_after_a_while(port, start) for start in starts))

    assert asyncio.run(run()) == [None] * 4, DONE % ("ends unfinished requests", "Deadlines.head and .body")


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(request([(b"X", b"a" * 200_000)]), id="field"),
        pytest.param(request(line=b"POST /" + b"a" * 60_000 + b" HTTP/1.1"), id="target"),
        pytest.param(request([(b"X-%d" % number, b"a") for number in range(5000)]), id="fields"),
        pytest.param(chunked(b"%x;%b\r\n" % (len(BODY), b"e" * 200_000) + BODY + b"\r\n0\r\n\r\n"), id="extension"),
    ],
)
def test_it_sets_no_limit_to_head_and_chunk_framing(raw: bytes) -> None:
    answer, _, _ = told(raw)
    taken = answer.startswith(b"HTTP/1.1 200")
    assert taken, DONE % ("limits heads and chunk extensions", "MAX_TARGET, MAX_HEAD, MAX_FIELDS and CHUNK_OVERHEAD")


def test_garbage_after_a_request_takes_its_response_away() -> None:
    answer, _, requests = told(request() + b"GARBAGE\r\n\r\n")
    lost = bool(requests) and b" 200 " not in answer
    assert lost, DONE % ("responds to a request before the garbage after it", "DataProtocol.reject_unparsable")


@pytest.mark.parametrize(
    ("what", "raw"),
    [
        ("two Hosts", request(host=(b"a", b"b"))),
        ("no Host", request(host=())),
        ("HTTP/2.0", request(line=b"POST /webhooks/begini HTTP/2.0")),
        ("RTSP", request(line=b"POST /webhooks/begini RTSP/1.0")),
        ("a fragment", request(line=b"POST /webhooks/begini#/../x HTTP/1.1")),
        ("another authority", request(line=b"POST http://evil.test/webhooks/begini HTTP/1.1")),
        ("an empty element in front of chunked", chunked(chunks()).replace(b": chunked", b": ,chunked")),
        ("an alias of Content-Length", request([(b"Content_Length", b"3")])),
    ],
)
def test_it_accepts_requests_that_others_read_differently(what: str, raw: bytes) -> None:
    answer, _, _ = told(raw)
    assert b" 200 " in answer, DONE % (
        f"rejects {what}",
        "a check in sidecar/http1/head.py or RequestParser._check_raw",
    )


def test_it_reads_on_while_requests_wait_for_their_turn() -> None:
    """Each response lets one more segment of requests in, however many wait already."""

    async def run() -> int:
        most = 0

        class Watched(HttpToolsProtocol):
            def on_response_complete(self) -> None:
                nonlocal most
                most = max(most, len(self.pipeline))
                super().on_response_complete()

        block = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2500
        async with stock(Watched) as (_, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    while most < 20_000:
                        writer.write(block)
                        await writer.drain()
            writer.transport.abort()
            await asyncio.sleep(0.1)
        return most

    most = asyncio.run(run())
    assert most >= 20_000, DONE % ("bounds its pipeline", "DataProtocol._begin_next")
