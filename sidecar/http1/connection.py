"""The data listener's HTTP/1.1: uvicorn's httptools protocol, made strict, bounded and timed.

uvicorn leaves to whoever stands in front of it what this program must do itself, because nothing stands in front of it:

- Trailer fields would be merged into the request's headers, so that a signature or an X-Forwarded-For sent after the
  body counts. Refused here.
- An Upgrade or CONNECT request would be handed on without its body, and the body parsed as the next request. Refused.
- Nothing limits the head's size or time, the body's time, or how long a sender may take to read. Limited here.
- Two Host fields, odd versions, fragments, underscore aliases of framing fields: `request.check_head` refuses them.
- Garbage behind a complete request would replace that request's answer. Here the answer comes first, then the close.

A refusal found here is kept as the request's `fault` and raised by the proxy like any other, so that one place answers,
logs and counts. An answer given before the body was read closes the connection, after what is still on its way was
read and thrown away for a moment: otherwise a reset could take the answer from the sender (RFC 9112, 9.6).
"""

import asyncio
from collections import deque
from typing import Any, Final, Protocol

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from sidecar.http1.admission import LINGER_SECONDS, Deadlines, Listener
from sidecar.http1.head import RequestHead, check_head
from sidecar.http1.light_task import LightTask, Signal
from sidecar.http1.proxy_protocol import UNKNOWN_PEER, ProxyHeaderError, read_proxy_header
from sidecar.http1.transport import HIGH_WATER, write_pieces
from sidecar.outcomes import TARGET_TOO_LONG, Reason, Rejected

#: Longest request target, bytes.
MAX_TARGET: Final = 16 * 1024
#: Whole head, bytes; and its number of fields.
MAX_HEAD: Final = 64 * 1024
MAX_FIELDS: Final = 200
#: Chunk framing may cost this much, and this many bytes for each byte of body, before it is an attack.
CHUNK_OVERHEAD: Final = 16 * 1024
CHUNK_OVERHEAD_PER_BYTE: Final = 8
CHUNKS_TOO_COSTLY: Final = Rejected(
    Reason.MALFORMED_REQUEST, "the framing of the chunks is larger than what they carry"
)
MOST_LINGER_SECONDS: Final = 30.0  # in all
LINGER_BYTES: Final = 64 * 1024 * 1024
#: Pieces of a body below this size are joined to the one before them.
SMALL_PIECE: Final = 1024


class Application(Protocol):
    """What stands behind the listener."""

    async def __call__(self, incoming: "Incoming") -> None:
        """Answers one request."""
        ...

    def refuse_unparsed(self, peer: str | None, rejected: Rejected) -> bytes:
        """The whole answer, as bytes, to what never became a request."""
        ...


class DataProtocol(HttpToolsProtocol):
    """One connection of a sender."""

    # What uvicorn's class has under these names is of another type or none. The compiler takes types at their word.
    url: bytes
    parser: Any  #: httptools.HttpRequestParser, while the connection is open
    cycle: "Incoming | None"  # type: ignore[assignment]  #: the request that came last
    pipeline: "deque[Incoming]"  # type: ignore[assignment]  #: requests that wait for their turn, the next one last

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        deadlines: Deadlines,
        listener: Listener,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.application: Application = config.loaded_app
        self.deadlines = deadlines
        self.turn = deadlines.turn
        self.listener = listener
        self.counted = False  # among the listener's connections
        self.active: Incoming | None = None  # the request that is being answered
        self.idle_since: float | None = None  # loop time of the last answer's end; None before the first one
        self.in_head = False
        self.head_timed = False
        self.body_timed = False
        self.head_bytes = 0
        self.wire_bytes = 0  # of the current body, framing included
        self.body_bytes = 0
        self.head_fault: Rejected | None = None
        self.discarding = False
        self.discarded = 0
        self.discarded_before = 0  # when it was looked at last
        self.linger_until = 0.0  # loop time
        self.segment = b""  # what is being parsed
        self.earlier: list[bytes] = []  # the segments before it in which this head began
        self.peer: str | None = None
        self.names: list[bytes] = []  # of the head's fields, and their values
        self.values: list[bytes] = []
        self.proxy_header: bytes | None = None  # what came of the PROXY header that is due; None if none is

    # Connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.peer = self.client[0] if self.client else None
        self.counted = True
        if not self.listener.opened():
            self._refuse(Rejected(Reason.OVERLOADED, "limits.connections reached"))
            return
        self.head_timed = True
        self.deadlines.head.add(self)
        wanted = self.listener.wants_proxy_header
        if wanted is not None and wanted(self.peer):
            self.proxy_header = b""

    def connection_lost(self, exc: Exception | None) -> None:
        for queue in self.deadlines.all:
            queue.discard(self)
        self.connections.discard(self)
        if self.counted:
            self.listener.closed()
        cycle = self.active
        if cycle is not None and not cycle.response_complete:
            cycle.disconnected = True
            if not cycle.more_body and cycle.task is not None:
                cycle.task.cancel()  # its delivery is under way
            cycle.wake()  # if its body is being read, `take` tells
        self.flow.resume_writing()
        # The parser and the last request hold the protocol: the circles would wait for the collector, which seldom comes.
        self.parser = self.cycle = self.active = None
        self.segment = b""
        self.earlier.clear()

    def data_received(self, data: bytes) -> None:
        if self.discarding:
            self.discarded += len(data)
            if self.discarded > LINGER_BYTES:
                self.transport.abort()
            return
        if self.proxy_header is not None:
            data = self._behind_proxy_header(data)
            if not data:
                return
        self.wire_bytes += len(data)
        self.segment = data
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # refused in on_headers_complete
        except httptools.HttpParserError as error:
            self._unparsable(Rejected(Reason.MALFORMED_REQUEST, f"not HTTP/1.1: {str(error)[:80]}"))
        else:
            if self.in_head:
                self._unfinished_head(data)
            elif self.cycle is not None and self.cycle.more_body:
                self._unfinished_body()
        if self.active is not None:
            self.active.go_on()

    def _behind_proxy_header(self, data: bytes) -> bytes:
        """What follows the PROXY header; nothing while it is not whole, or if it never will be."""
        assert self.proxy_header is not None
        self.proxy_header += data
        try:
            header = read_proxy_header(self.proxy_header)
        except ProxyHeaderError as error:
            self._unparsable(Rejected(Reason.MALFORMED_REQUEST, f"{error} (proxy_protocol: true, a trusted proxy's)"))
            return b""
        if header is None:
            return b""
        rest = self.proxy_header[header.size :]
        self.proxy_header = None
        if not header.local:
            self.peer = header.source or UNKNOWN_PEER
        return rest

    def _unfinished_head(self, data: bytes) -> None:
        if self.discarding:
            return
        if self.earlier:  # how much of the first segment is head is not known yet
            self.head_bytes += len(data)
        self.earlier.append(data)
        if self.head_bytes > MAX_HEAD:
            self._unparsable(Rejected(Reason.HEADERS_TOO_LARGE, f"the head is larger than {MAX_HEAD} bytes"))
        elif not self.head_timed:
            self.head_timed = True
            self.deadlines.head.add(self)

    def _unfinished_body(self) -> None:
        if self._chunks_too_costly(MAX_HEAD):
            self._fault(CHUNKS_TOO_COSTLY)
        elif self.active is self.cycle:  # else nothing is read, until the requests before it are answered
            self._time_body()

    def _time_body(self) -> None:
        if not self.body_timed:
            self.body_timed = True
            self.deadlines.body.add(self)

    # Parser callbacks

    def on_message_begin(self) -> None:
        if self.discarding:
            return
        self.url = b""
        self.names, self.values = [], []
        self.head_fault = None
        self.head_bytes = 0
        self.earlier.clear()
        self.in_head = True

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > MAX_TARGET and self.head_fault is None:
            self.head_fault = Rejected(
                Reason.HEADERS_TOO_LARGE,
                f"the request target is longer than {MAX_TARGET} bytes",
                response=TARGET_TOO_LONG,
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_head:
            if not self.discarding:
                self._fault(Rejected(Reason.MALFORMED_REQUEST, "trailer fields after the body"))
            return
        self.names.append(name)
        self.values.append(value)

    def on_headers_complete(self) -> None:
        if self.discarding:
            return
        self.in_head = False
        if self.head_timed:
            self.head_timed = False
            self.deadlines.head.discard(self)
        parser = self.parser
        version = parser.get_http_version()
        method = parser.get_method()
        head = RequestHead(method.decode("ascii"), self.url, self.names, self.values, self.peer)
        self.body_bytes = self.wire_bytes = 0
        fault = self.head_fault or self._head_fault(head, method, version)
        keep_alive = fault is None and version == "1.1" and parser.should_keep_alive()
        self.cycle = cycle = Incoming(self, head, fault, keep_alive=keep_alive, http_1_0=version == "1.0")
        if fault is not None:
            self.discarding = True
        if self.active is None and not self.flow.write_paused:
            self.active = cycle
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft(cycle)

    def _head_fault(self, head: RequestHead, method: bytes, version: str) -> Rejected | None:
        if len(self.names) > MAX_FIELDS:
            return Rejected(Reason.HEADERS_TOO_LARGE, f"more than {MAX_FIELDS} header fields")
        if fault := self._check_raw(b"%b %b HTTP/%b\r\n" % (method, self.url, version.encode()), head):
            return fault
        if self.parser.should_upgrade():
            return Rejected(
                Reason.MALFORMED_REQUEST,
                "Upgrade and CONNECT are not taken; a Java sender must turn off HTTP/2 upgrade",
            )
        return check_head(head, version=version)

    def _check_raw(self, line: bytes, head: RequestHead) -> Rejected | None:
        """What only the bytes themselves tell: the parser takes RTSP for HTTP and skips blanks without counting them."""
        raw = b"".join((*self.earlier, self.segment)) if self.earlier else self.segment
        start = raw.find(line)
        if start < 0:
            return Rejected(Reason.MALFORMED_REQUEST, "not a request line of HTTP")
        if len(raw) > MAX_HEAD or head.names.chunked:
            end = raw.find(b"\r\n\r\n", start) + 4
            if end - start > MAX_HEAD:
                return Rejected(Reason.HEADERS_TOO_LARGE, f"the head is larger than {MAX_HEAD} bytes")
            if head.names.chunked:
                self.wire_bytes = len(raw) - end
        return None

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if self.discarding or cycle is None or cycle.response_complete:
            return
        size = len(body)
        self.body_bytes += size
        if size < SMALL_PIECE and cycle.pieces:
            cycle.join(body)
        else:
            cycle.pieces.append(body)
        cycle.unread += size
        cycle.has_news = True
        if cycle.unread > HIGH_WATER:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        if self.discarding:
            return
        if self.body_timed:
            self.body_timed = False
            self.deadlines.body.discard(self)
        if self._chunks_too_costly(0):
            self._fault(CHUNKS_TOO_COSTLY)
            return
        cycle = self._received()
        cycle.more_body = False
        cycle.has_news = True

    def _received(self) -> "Incoming":
        """The request that came last, whose body may still be on its way."""
        assert self.cycle is not None
        return self.cycle

    def _chunks_too_costly(self, of_others: int) -> bool:
        """Whether more was sent to frame the body's chunks than any honest sender needs; `of_others`: bytes that may not be
        this body's."""
        if not self._received().head.names.chunked:
            return False
        overhead = self.wire_bytes - self.body_bytes - of_others
        return overhead > CHUNK_OVERHEAD + CHUNK_OVERHEAD_PER_BYTE * self.body_bytes

    # Faults

    def head_expired(self) -> None:
        """The head did not come in time. Who sent nothing at all is no delivery: closed without a word."""
        if self.in_head:
            self._unparsable(Rejected(Reason.HEADER_TIMEOUT, f"no whole head within {self.deadlines.head.seconds:g} s"))
        else:
            self.transport.close()

    def body_expired(self) -> None:
        self._fault(Rejected(Reason.BODY_TIMEOUT, f"no whole body within {self.deadlines.body.seconds:g} s"))
        self._received().wake()

    def keep_alive_expired(self) -> None:
        """Looked at once in the time that it may stay unused, so it is closed after one to two times that.

        Blank lines are no request and don't hold it open.
        """
        clock = self.deadlines.keep_alive
        if self.unused and self.idle_since is not None and self.idle_since + clock.seconds <= self.loop.time():
            self.close_after_answer(unread=False)
        else:
            clock.add(self)

    def linger_expired(self) -> None:
        """Who still sends has hardly read the answer yet, and closing now would reset it away."""
        if self.discarded > self.discarded_before and self.loop.time() < self.linger_until:
            self.discarded_before = self.discarded
            self.deadlines.linger.add(self)
        else:
            self.transport.abort()

    @property
    def unused(self) -> bool:
        """Between two requests."""
        return self.active is None and not self.pipeline and not self.in_head

    def evict(self) -> None:
        """Makes room for another connection: this one has waited longest for what its sender has yet to send."""
        in_head, in_body = self in self.deadlines.head, self in self.deadlines.body
        for queue in self.deadlines.all:
            queue.discard(self)
        if in_body:
            self._fault(Rejected(Reason.OVERLOADED, "limits.connections reached, and this body was the slowest"))
            self._received().wake()
        elif in_head:
            self._unparsable(Rejected(Reason.OVERLOADED, "limits.connections reached, and this head was the slowest"))
        else:
            self.close_after_answer(unread=False)

    def _fault(self, rejected: Rejected) -> None:
        """Found while the body is read: `take` raises it as soon as the proxy looks for more."""
        self.discarding = True
        cycle = self._received()
        cycle.fault = rejected
        cycle.keep_alive = False
        cycle.has_news = True

    def _unparsable(self, rejected: Rejected) -> None:
        """No request will come of it. Complete ones before it are answered first; then the connection closes."""
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
        self.transport.write(self.application.refuse_unparsed(peer, rejected))
        self.close_after_answer(unread=True)

    def close_after_answer(self, *, unread: bool) -> None:
        """Closes so that the sender can still read the answer."""
        if self.transport.is_closing():
            return
        if unread:
            self.discarding = True
            self.flow.resume_reading()
            self.transport.write_eof()
            self.linger_until = self.loop.time() + MOST_LINGER_SECONDS
            self.deadlines.linger.add(self)
            if self.counted:
                self.counted = False
                self.listener.lingers()
            return
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self.deadlines.write.add(self)

    # Overridden for what uvicorn does otherwise

    def on_response_complete(self) -> None:
        """The next request of the pipeline, or the wait for one; uvicorn would make a timer for each."""
        self.active = None
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._next_of_pipeline()
        elif not self.discarding:
            self.flow.resume_reading()
            if self.idle_since is None:
                self.deadlines.keep_alive.add(self)
            self.idle_since = self.loop.time()

    def _next_of_pipeline(self) -> None:
        """Not while answers wait unread: a sender that never reads could make us hold any number of them."""
        if self.pipeline and self.active is None and not self.flow.write_paused:
            self.active = cycle = self.pipeline.pop()
            if not self.pipeline:  # else a sender that never stops sending could make the queue longer and longer
                self.flow.resume_reading()
                if cycle.more_body and not self.discarding:
                    self._time_body()
            cycle.go_on()

    def shutdown(self) -> None:
        """The listener stops: unused connections are closed, the others when their request was answered."""
        if not self.discarding:
            super().shutdown()
        else:  # it closes as soon as its sender could read the answer
            self.linger_until = min(self.linger_until, self.loop.time() + LINGER_SECONDS)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.deadlines.write.add(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.deadlines.write.discard(self)
        self._next_of_pipeline()


class Incoming:
    """One request: its head, its body as it comes, and the way to answer it.

    Stands where uvicorn has its RequestResponseCycle, whose `keep_alive` and `response_complete` the protocol's base
    class looks at, and speaks plain calls instead of ASGI's messages: the application gets the head as a value, with the
    target and the spelling of header names that ASGI does not carry, and body pieces are not copied together.
    """

    # Defaults stand on the class: making one of these is on every delivery's way.
    task: LightTask | None = None
    disconnected = False
    more_body = True
    response_started = False
    response_complete = False
    has_news = False
    unread = 0  #: bytes of body that arrived and were not taken
    _held_head = b""
    _chunked = False
    _continued = False
    _no_body = False

    def __init__(
        self, protocol: DataProtocol, head: RequestHead, fault: Rejected | None, *, keep_alive: bool, http_1_0: bool
    ) -> None:
        self.protocol = protocol
        self.transport = protocol.transport
        self.head = head
        self.fault = fault  #: why this request must be refused, found before or while its body was read
        self.keep_alive = keep_alive
        self.http_1_0 = http_1_0
        self.pieces: list[bytes | bytearray] = []  #: of the body, arrived and not taken
        self._signal = Signal()

    def go_on(self) -> None:
        """Begins to have the request answered, or tells of what is new since."""
        if self.task is None:
            protocol = self.protocol
            self.task = LightTask(protocol.application(self), protocol.turn, self._ended)
            protocol.tasks.add(self.task)  # type: ignore[arg-type]  # uvicorn asks these for `cancel` only
        elif self.has_news:
            self._signal.set()

    def _ended(self, task: LightTask) -> None:
        """What is left unanswered closes the connection."""
        self.protocol.tasks.discard(task)
        if not self.response_complete and not self.disconnected:
            self.transport.abort()

    # The request

    def join(self, piece: bytes) -> None:
        """Chunks of a few bytes would take many times their size as objects of their own."""
        last = self.pieces[-1]
        if not isinstance(last, bytearray):
            last = bytearray()
            self.pieces.append(last)
        last += piece

    def wake(self) -> None:
        """There is something new to `take`, and it did not come with what the connection received."""
        self.has_news = True
        self._signal.set()

    async def news(self) -> None:
        """Waits until `has_news`, asking a sender that waits for it to go on (RFC 9110, 10.1.1)."""
        if not self._continued and not self.http_1_0 and self.head.values(b"expect"):
            self._continued = True
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.protocol.flow.resume_reading()
        await self._signal

    def take(self) -> tuple[bytes, bool]:
        """What of the body has arrived, and whether more follows. Raises the `Rejected` that ends it."""
        self.has_news = False
        if self.fault is not None:
            raise self.fault
        if self.disconnected:
            raise Rejected(Reason.BODY_INCOMPLETE, "the sender left in the middle of its body")
        piece = b"".join(self.pieces)  # a single piece is not copied
        self.pieces = []
        self.unread = 0
        return piece, self.more_body

    # The answer

    def start(self, status: int, lines: bytes, *, sized: bool, hold: bool) -> None:
        """Sends the head of the answer; `lines` are its fields. `sized`: they tell its length; else it is chunked or ends the
        connection.

        With `hold` it waits for the first `write`, which follows at once: one write for both.
        """
        head = self._answer_head(status, lines, sized)
        if hold:
            self._held_head = head
        elif not self.disconnected:
            self.transport.write(head)

    def write(self, body: bytes, *, more: bool) -> None:
        """Sends a piece of the answer. With `more` to come, wait for `writable` before the next one."""
        if self.disconnected:
            return
        pieces = [self._held_head] if self._held_head else []
        self._held_head = b""
        if body and not self._no_body:
            if self._chunked:
                pieces += (b"%x\r\n" % len(body), body, b"\r\n")
            else:
                pieces.append(body)
        if not more and self._chunked:
            pieces.append(b"0\r\n\r\n")
        if pieces:
            write_pieces(self.transport, pieces, len(body))
        if not more:
            self._complete()

    async def writable(self) -> None:
        """Waits while the sender reads too slowly."""
        if self.protocol.flow.write_paused:
            await self.protocol.flow.drain()

    def abort(self) -> None:
        """Closes the connection at once, in the middle of an answer: the sender sees that it is not whole."""
        self.transport.abort()

    def _answer_head(self, status: int, lines: bytes, sized: bool) -> bytes:
        self.response_started = True
        self._no_body = self.head.method == "HEAD" or status in (204, 304)
        framing = b""
        if not (sized or self._no_body):
            if self.http_1_0:
                self.keep_alive = False  # its end is the connection's end
            else:
                self._chunked = True
                framing = b"transfer-encoding: chunked\r\n"
        if self.more_body or self.protocol.listener.closing:
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"connection: close\r\n"
        return b"%b%b%b\r\n" % (STATUS_LINE[status], lines, framing)

    def _complete(self) -> None:
        self.response_complete = True
        if not self.keep_alive:
            self.protocol.pipeline.clear()
            self.pieces = []
            self.protocol.close_after_answer(unread=self.more_body or self.protocol.discarding)
        self.protocol.on_response_complete()
