"""The data listener's HTTP/1.1: uvicorn's httptools protocol, made strict, bounded and timed.

uvicorn leaves to whoever stands in front of it what this program must do itself, because nothing stands in front of it:

- Trailer fields would be merged into the request's headers, so that a signature or an X-Forwarded-For sent after the
  body counts. Refused here.
- An Upgrade or CONNECT request would be handed on without its body, and the body parsed as the next request. Refused.
- Nothing limits the head's size or time, the body's time, or how long a sender may take to read. Limited here.
- Two Host fields, odd versions, fragments, underscore aliases of framing fields: `request.check_head` refuses them.
- Garbage behind a complete request would replace that request's answer. Here the answer comes first, then the close.

A refusal found here is put into the request's `Wire` and raised by the proxy like any other, so that one place answers,
logs and counts. An answer given before the body was read closes the connection, after what is still on its way was
read and thrown away for a moment: otherwise a reset could take the answer from the sender (RFC 9112, 9.6).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from sidecar.deadlines import DeadlineQueue
from sidecar.outcomes import Reason, Rejected
from sidecar.request import Header, check_head

#: Longest request target, bytes.
MAX_TARGET = 16 * 1024
#: Whole head, bytes; and its number of fields.
MAX_HEAD = 64 * 1024
MAX_FIELDS = 200
#: Chunk framing may cost this much, and this many bytes for each byte of body, before it is an attack.
CHUNK_OVERHEAD = 16 * 1024
CHUNK_OVERHEAD_PER_BYTE = 8
#: After an early answer: how long, and how much, is still read and thrown away.
LINGER_SECONDS = 2.0
LINGER_BYTES = 64 * 1024 * 1024
#: How long a sender may leave an answer unread.
WRITE_SECONDS = 30.0
#: Unread body bytes held for the application before reading pauses.
HIGH_WATER = 64 * 1024

Scope = dict[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class Wire:
    """What the proxy needs of the connection and ASGI does not carry: `scope["sidecar"]`."""

    __slots__ = ("cycle", "fault", "names", "target")

    def __init__(self, target: bytes, names: list[bytes], fault: Rejected | None) -> None:
        self.target = target  #: the request target, raw
        self.names = names  #: header names as the sender wrote them
        self.fault = fault  #: why this request must be refused, found before or while its body was read
        self.cycle: Cycle

    def abort(self) -> None:
        """Closes the connection at once, in the middle of an answer: the sender sees that it is not whole."""
        self.cycle.transport.abort()


class Refuser(Protocol):
    """Who answers, logs and counts what never became a request."""

    def refuse_unparsed(self, peer: str | None, rejected: Rejected) -> bytes:
        """The whole answer, bytes for the wire."""
        ...


class Deadlines:
    """The clocks of all connections of one listener."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, head: float, body: float) -> None:
        self.head: DeadlineQueue[DataProtocol] = DeadlineQueue(loop, head, lambda it: it.head_expired())
        self.body: DeadlineQueue[DataProtocol] = DeadlineQueue(loop, body, lambda it: it.body_expired())
        self.write: DeadlineQueue[DataProtocol] = DeadlineQueue(loop, WRITE_SECONDS, lambda it: it.transport.abort())
        self.linger: DeadlineQueue[DataProtocol] = DeadlineQueue(loop, LINGER_SECONDS, lambda it: it.transport.abort())


class DataProtocol(HttpToolsProtocol):
    """One connection of a sender."""

    cycle: "Cycle"

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        refuser: Refuser,
        deadlines: Deadlines,
        max_connections: Callable[[], int],
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.refuser = refuser
        self.deadlines = deadlines
        self.max_connections = max_connections
        self.in_head = False
        self.head_timed = False
        self.body_timed = False
        self.head_bytes = 0
        self.wire_bytes = 0  # of the current body, framing included
        self.body_bytes = 0
        self.head_fault: Rejected | None = None
        self.discarding = False
        self.discarded = 0
        self.names: list[bytes] = []

    # Connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections():
            self._refuse(Rejected(Reason.OVERLOADED, "limits.connections reached"))
            return
        self.head_timed = True
        self.deadlines.head.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        for queue in (self.deadlines.head, self.deadlines.body, self.deadlines.write, self.deadlines.linger):
            queue.discard(self)
        cycle = self.cycle
        super().connection_lost(exc)
        if cycle is not None and not cycle.response_complete and not cycle.more_body and cycle.task is not None:
            # The sender left while its delivery is under way. (In the body, `receive` tells.)
            cycle.task.cancel()

    def data_received(self, data: bytes) -> None:
        if self.discarding:
            self.discarded += len(data)
            if self.discarded > LINGER_BYTES:
                self.transport.abort()
            return
        self._unset_keepalive_if_required()
        self.wire_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # refused in on_headers_complete
        except httptools.HttpParserError as error:
            self._unparsable(Rejected(Reason.MALFORMED_REQUEST, f"not HTTP/1.1: {str(error)[:80]}"))
            return
        if self.discarding:
            return
        if self.in_head:
            self.head_bytes += len(data)
            if self.head_bytes > MAX_HEAD:
                self._unparsable(Rejected(Reason.HEADERS_TOO_LARGE, f"the head is larger than {MAX_HEAD} bytes"))
            elif not self.head_timed:
                self.head_timed = True
                self.deadlines.head.add(self)
        elif self.cycle is not None and self.cycle.more_body:
            if self.wire_bytes - self.body_bytes > CHUNK_OVERHEAD + CHUNK_OVERHEAD_PER_BYTE * self.body_bytes + MAX_HEAD:
                self._fault(Rejected(Reason.MALFORMED_REQUEST, "the chunks' framing is larger than what it carries"))
            elif not self.body_timed:
                self.body_timed = True
                self.deadlines.body.add(self)

    # Parser callbacks

    def on_message_begin(self) -> None:
        if self.discarding:
            return
        self.url = b""
        self.headers = []
        self.names = []
        self.expect_100_continue = False
        self.head_fault = None
        self.head_bytes = 0
        self.in_head = True

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > MAX_TARGET and self.head_fault is None:
            self.head_fault = Rejected(Reason.HEADERS_TOO_LARGE, f"the request target is longer than {MAX_TARGET} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.discarding:
            return
        if not self.in_head:
            self._fault(Rejected(Reason.MALFORMED_REQUEST, "trailer fields after the body"))
            return
        lower = name.lower()
        self.names.append(name)
        self.headers.append((lower, value.rstrip(b" \t")))
        if lower == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True

    def on_headers_complete(self) -> None:
        if self.discarding:
            return
        self.in_head = False
        if self.head_timed:
            self.head_timed = False
            self.deadlines.head.discard(self)
        version = self.parser.get_http_version()
        method = self.parser.get_method()
        headers = self.headers
        fault = self.head_fault
        if fault is None and len(headers) > MAX_FIELDS:
            fault = Rejected(Reason.HEADERS_TOO_LARGE, f"more than {MAX_FIELDS} header fields")
        if fault is None and self.parser.should_upgrade():
            fault = Rejected(Reason.MALFORMED_REQUEST, "Upgrade and CONNECT are not taken; a Java sender must turn off HTTP/2 upgrade")
        if fault is None:
            fault = check_head(method=method, target=self.url, version=version, headers=headers)

        path, _, query = self.url.partition(b"?")
        wire = Wire(self.url, self.names, fault)
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "method": method.decode("ascii"),
            "scheme": self.scheme,
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": headers,
            "client": self.client,
            "server": self.server,
            "sidecar": wire,
        }
        existing = self.cycle
        keep_alive = fault is None and version == "1.1" and self.parser.should_keep_alive()
        self.cycle = wire.cycle = Cycle(self, self.scope, keep_alive=keep_alive, http_1_0=version == "1.0")
        self.wire_bytes = self.body_bytes = 0
        if fault is not None:
            self.discarding = True
        if existing is None or existing.response_complete:
            self._start_asgi_task(self.cycle, self.app)  # type: ignore[arg-type]
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if self.discarding or cycle.response_complete:
            return
        self.body_bytes += len(body)
        cycle.chunks.append(body)
        cycle.unread += len(body)
        if cycle.unread > HIGH_WATER:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self.discarding:
            return
        if self.body_timed:
            self.body_timed = False
            self.deadlines.body.discard(self)
        self.cycle.more_body = False
        self.cycle.message_event.set()

    # Faults

    def head_expired(self) -> None:
        """The head did not come in time. Who sent nothing at all is no delivery: closed without a word."""
        if self.in_head:
            self._refuse(Rejected(Reason.HEADER_TIMEOUT, f"no whole head within {self.deadlines.head.seconds:g} s"))
        else:
            self.transport.close()

    def body_expired(self) -> None:
        self._fault(Rejected(Reason.BODY_TIMEOUT, f"no whole body within {self.deadlines.body.seconds:g} s"))

    def _fault(self, rejected: Rejected) -> None:
        """Found while the body is read: the proxy raises it as soon as it looks for more."""
        self.discarding = True
        cycle = self.cycle
        cycle.scope["sidecar"].fault = rejected
        cycle.keep_alive = False
        cycle.chunks.clear()
        cycle.message_event.set()

    def _unparsable(self, rejected: Rejected) -> None:
        """The parser gave up. Complete requests before it are answered first; then the connection closes."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.more_body and not self.in_head:
                self._fault(rejected)  # inside this request's own body
                return
            self.discarding = True
            cycle.keep_alive = False  # behind it: its answer closes
            return
        self._refuse(rejected)

    def _refuse(self, rejected: Rejected) -> None:
        """Answers what never became a request."""
        self.discarding = True
        peer = self.client[0] if self.client else None
        self.transport.write(self.refuser.refuse_unparsed(peer, rejected))
        self.close_after_answer(unread=True)

    def close_after_answer(self, *, unread: bool) -> None:
        """Closes so that the sender can still read the answer."""
        if self.transport.is_closing():
            return
        if unread:
            self.discarding = True
            self.flow.resume_reading()
            self.transport.write_eof()
            self.deadlines.linger.add(self)
            return
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self.deadlines.write.add(self)

    # Overridden for what uvicorn does otherwise

    def _start_asgi_task(self, cycle: "Cycle", app: App) -> None:  # type: ignore[override]
        cycle.task = task = self.loop.create_task(cycle.run(app))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.deadlines.write.add(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.deadlines.write.discard(self)


class Cycle:
    """One request and its answer, as ASGI's `receive` and `send`.

    Stands in for uvicorn's RequestResponseCycle, whose `more_body`, `keep_alive`, `response_complete`, `disconnected`
    and `message_event` the protocol's base class uses. Differences: body pieces are not copied together, headers of an
    answer are trusted (the upstream's were checked by its parser, ours are constants), an HTTP/1.0 client is never sent
    chunks, and an answer before the end of the body closes the connection.
    """

    __slots__ = (
        "chunked",
        "chunks",
        "disconnected",
        "flow",
        "http_1_0",
        "keep_alive",
        "message_event",
        "more_body",
        "no_body",
        "protocol",
        "response_complete",
        "response_started",
        "scope",
        "task",
        "transport",
        "unread",
        "waiting_for_100_continue",
    )

    def __init__(self, protocol: DataProtocol, scope: Scope, *, keep_alive: bool, http_1_0: bool) -> None:
        self.protocol = protocol
        self.scope = scope
        self.transport = protocol.transport
        self.flow = protocol.flow
        self.task: asyncio.Task[None] | None = None
        self.message_event = asyncio.Event()
        self.keep_alive = keep_alive
        self.http_1_0 = http_1_0
        self.waiting_for_100_continue = protocol.expect_100_continue and not http_1_0
        self.disconnected = False
        self.chunks: list[bytes] = []
        self.unread = 0
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self.chunked = False
        self.no_body = False

    async def run(self, app: App) -> None:
        """Runs the application. It answers its own errors; what is left unanswered here closes the connection."""
        try:
            await app(self.scope, self.receive, self.send)
        finally:
            if not self.response_complete and not self.disconnected:
                self.transport.abort()

    async def receive(self) -> dict[str, Any]:
        """The next piece of the body, or `http.disconnect`."""
        if self.waiting_for_100_continue:
            self.waiting_for_100_continue = False
            if not self.transport.is_closing():
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self.message_event.is_set():
            self.flow.resume_reading()
            await self.message_event.wait()
        self.message_event.clear()
        if self.disconnected:
            return {"type": "http.disconnect"}
        chunks = self.chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self.chunks = []
        self.unread = 0
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: dict[str, Any]) -> None:
        """Writes a part of the answer; waits while the sender reads too slowly."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message["headers"])
            return
        body = message["body"]
        if body and not self.no_body:
            self.transport.write(b"%x\r\n%b\r\n" % (len(body), body) if self.chunked else body)
        if not message["more_body"]:
            if self.chunked:
                self.transport.write(b"0\r\n\r\n")
            self._complete()

    def _start(self, status: int, headers: list[Header]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        self.no_body = self.scope["method"] == "HEAD" or status in (204, 304)
        head = [STATUS_LINE[status]]
        sized = self.no_body
        for name, value in headers:
            if name == b"content-length":
                sized = True
            head.append(b"%b: %b\r\n" % (name, value))
        if not sized:
            if self.http_1_0:
                self.keep_alive = False  # its end is the connection's end
            else:
                self.chunked = True
                head.append(b"transfer-encoding: chunked\r\n")
        if self.more_body:
            self.keep_alive = False
        if not self.keep_alive:
            head.append(b"connection: close\r\n")
        head.append(b"\r\n")
        self.transport.write(b"".join(head))

    def _complete(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.protocol.pipeline.clear()
            self.protocol.close_after_answer(unread=self.more_body or self.protocol.discarding)
        self.protocol.on_response_complete()
