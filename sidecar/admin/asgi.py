"""Runs the admin listener's ASGI application on the data listener's HTTP/1.1.

uvicorn's own protocol limits neither the size of a head, nor the time for it, nor the number of connections, and parses any
number of pipelined requests. Our protocol limits all of these, and one set of limits is easier to maintain than two.
"""

import asyncio
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from starlette.types import ASGIApp, Message, Scope

from sidecar.http1.admission import ConnectionCount, Deadlines, Listener
from sidecar.http1.head import field_lines
from sidecar.http1.incoming import Incoming
from sidecar.http1.status_response import format_response, format_unparsed, send
from sidecar.http1.uvicorn_server import Server, http_server
from sidecar.outcomes import RESPONSES, Reason, Rejected

#: Open connections. A new one replaces the one that has waited longest for its client, as on the data listener.
MAX_CONNECTIONS: Final = 128
#: Time for a whole head, and for a whole body.
HEAD_SECONDS: Final = 10.0
BODY_SECONDS: Final = 10.0
#: The page's forms are smaller.
MAX_BODY: Final = 16 * 1024


def asgi_server(application: ASGIApp, loop: asyncio.AbstractEventLoop) -> Server:
    """The admin listener's server."""
    deadlines = Deadlines(loop, head=HEAD_SECONDS, body=BODY_SECONDS)
    listener = Listener(deadlines, MAX_CONNECTIONS, ConnectionCount([0.0], 0))
    return http_server(AsgiBridge(application), deadlines=deadlines, listener=listener)


class AsgiBridge:
    """The application that `DataProtocol` calls with each request."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, incoming: Incoming) -> None:
        """Reads the body, then runs the application and passes on what it sends."""
        if incoming.fault is not None:
            send(incoming, *_rejection(incoming.fault))
            return
        body = b""
        try:
            more = True
            while more:
                piece, more = incoming.take()
                body += piece
                if len(body) > MAX_BODY:
                    raise Rejected(Reason.BODY_TOO_LARGE)
                if more:
                    await incoming.news()
        except Rejected as rejected:
            send(incoming, *_rejection(rejected))
            return
        exchange = Exchange(body)
        # Its own task, because it may use what a light task can't, and a client that leaves must not cut off a reload.
        task = asyncio.get_running_loop().create_task(exchange.run(self._application, _scope(incoming)))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await _pass_on(exchange, incoming)
        finally:
            exchange.disconnect()

    def reject_unparsed(self, peer: str | None, rejected: Rejected) -> bytes:
        """The whole response, as bytes, to input that never became a request."""
        return format_unparsed(*_rejection(rejected))


class Exchange:
    """One request and what the application sends in response."""

    def __init__(self, body: bytes) -> None:
        self.messages: asyncio.Queue[Message | None] = asyncio.Queue(1)  #: None: the application has ended
        self._body: bytes | None = body
        self._disconnected = asyncio.Event()

    async def run(self, application: ASGIApp, scope: Scope) -> None:
        try:
            await application(scope, self._receive, self._send)
        except Exception as bug:
            # Starlette has sent a 500 if nothing else was sent.
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the admin listener failed", "exception": bug}
            )
        finally:
            if not self._disconnected.is_set():
                await self.messages.put(None)

    def disconnect(self) -> None:
        """The client is gone: nobody waits for the response."""
        self._disconnected.set()
        while not self.messages.empty():  # lets the application go on
            self.messages.get_nowait()

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if not self._disconnected.is_set():
            await self.messages.put(message)


async def _pass_on(exchange: Exchange, incoming: Incoming) -> None:
    """The application's response. If it ends early, the connection closes."""
    start: Message | None = None
    while (message := await exchange.messages.get()) is not None:
        if message["type"] == "http.response.start":
            start = message
            continue
        if message["type"] != "http.response.body":
            continue
        more: bool = message.get("more_body", False)
        if start is not None:
            headers: list[tuple[bytes, bytes]] = list(start.get("headers", ()))
            sized = any(name.lower() == b"content-length" for name, _ in headers)
            incoming.start(start["status"], field_lines(headers), sized=sized, hold=True)
            start = None
        incoming.write(message.get("body", b""), more=more)
        if not more:
            return
        await incoming.writable()


def _scope(incoming: Incoming) -> dict[str, Any]:
    head = incoming.head
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.0" if incoming.http_1_0 else "1.1",
        "method": head.method,
        "scheme": "http",
        "path": unquote_to_bytes(head.path).decode("utf-8", "replace"),
        "raw_path": head.path,
        "query_string": head.target[len(head.path) + 1 :],
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in head.headers],
        "client": (head.peer, 0) if head.peer is not None else None,
        "server": None,
    }


def _rejection(rejected: Rejected) -> tuple[int, bytes, bytes]:
    return format_response(rejected.response or RESPONSES[rejected.reason])
