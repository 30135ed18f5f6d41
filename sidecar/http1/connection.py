"""The data listener's HTTP/1.1: an asyncio protocol on httptools' parser, strict, bounded and timed.

httptools' parser (llhttp) leaves these to its user:

- Trailer fields arrive like header fields, so a signature or an X-Forwarded-For sent after the body could count.
  Rejected here.
- An Upgrade or CONNECT request ends HTTP: the parser would take its body for the next request. Here an Upgrade is
  ignored (RFC 9110, 7.8) and a new parser reads the body; CONNECT is rejected.
- All that arrived in one read is parsed at once, however many requests or header fields it has. Here a segment with more
  than one head is parsed in slices, until a request waits for its turn, and a head only up to its limits.
- Nothing limits the head's size or time, the body's time, or how long a sender may leave a response unread.
  Limited here.
- Two Host fields, odd versions, fragments and underscore aliases of framing fields are accepted: `head.check_head`
  rejects them.
- Garbage after a complete request is an error before that request's response. Here the response is sent first, then
  the connection is closed.

A rejection found here is kept as the request's `fault`. The proxy raises it like any other, so one place responds, logs
and counts. A response given before the body was read closes the connection, after the rest was read and discarded for a
moment: otherwise a reset could destroy the response on its way to the sender (RFC 9112, 9.6).
"""

import asyncio
import socket
from collections import deque
from typing import Any, Final, Protocol

import httptools

from sidecar.http1.admission import LINGER_SECONDS, Deadlines, Listener
from sidecar.http1.head import RequestHead, check_head
from sidecar.http1.incoming import Incoming
from sidecar.http1.other_protocols import name_protocol
from sidecar.http1.proxy_protocol import UNKNOWN_PEER, ProxyHeaderError, read_proxy_header
from sidecar.http1.transport import FlowControl
from sidecar.outcomes import TARGET_TOO_LONG, Reason, Rejected

#: Longest request target, bytes.
MAX_TARGET: Final = 16 * 1024
#: A segment with more than one head is parsed in slices of about this size: a slice has room for a dozen requests.
SLICE: Final = 256
END_OF_HEAD: Final = b"\r\n\r\n"
#: Bytes that all connections together may keep unparsed because a request before them waits for its turn.
MAX_UNPARSED: Final = 16 * 1024 * 1024
#: Whole head, bytes; and its number of fields.
MAX_HEAD: Final = 64 * 1024
MAX_FIELDS: Final = 200
#: Chunk framing may cost this many bytes, and this many for each byte of the body, before it counts as an attack.
CHUNK_OVERHEAD: Final = 16 * 1024
CHUNK_OVERHEAD_PER_BYTE: Final = 8
CHUNKS_TOO_COSTLY: Final = Rejected(
    Reason.MALFORMED_REQUEST, "the framing of the chunks is larger than what they carry"
)
MOST_LINGER_SECONDS: Final = 30.0  # in all
LINGER_BYTES: Final = 64 * 1024 * 1024
#: Pieces of a body below this size are joined.
SMALL_CHUNK: Final = 1024
#: Unread body bytes held for the application before reading pauses.
READ_HIGH_WATER: Final = 64 * 1024


class StopParsing(Exception):
    """Raised in the parser's callbacks: the head exceeds a limit, so the rest of it is not parsed."""


class Application(Protocol):
    """Handles the listener's requests."""

    async def __call__(self, incoming: Incoming) -> None:
        """Responds to one request."""
        ...

    def reject_unparsed(self, peer: str | None, rejected: Rejected) -> bytes:
        """Returns the whole response, as bytes, to bytes that never became a request."""
        ...


class DataProtocol(asyncio.Protocol):
    """One connection of a sender."""

    transport: asyncio.Transport
    flow: FlowControl

    def __init__(
        self,
        application: Application,
        *,
        deadlines: Deadlines,
        listener: Listener,
        connections: set[Any],
        tasks: set[Any],
    ) -> None:
        """`connections` and `tasks` are the server's: the open connections, and the requests that are being handled."""
        self.application = application
        self.deadlines = deadlines
        self.turn = deadlines.turn
        self.listener = listener
        self.connections = connections
        self.tasks = tasks
        self.parser: Any = None  # httptools.HttpRequestParser, while the connection is open
        self.address: str | None = None  # see `_peer_address`
        self.peer: str | None = None  # the same, or the address in the PROXY header
        self.proxy_header: bytes | None = None  # what has arrived of the PROXY header; None if none is due
        self.counted = False  # among the listener's connections
        self.latest: Incoming | None = None  # the request that came last
        self.active: Incoming | None = None  # the request that is being handled
        self.pipeline: deque[Incoming] = deque()  # requests that wait for their turn, the next one last
        self.idle_since: float | None = None  # loop time of the last response's end; None before the first one
        self.url = b""
        self.names: list[bytes] = []  # of the head's fields, and their values
        self.values: list[bytes] = []
        self.segment = b""  # the data being parsed
        self.earlier = bytearray()  # the data before it, if this head began in it
        self.rest = b""  # data of which the part from `rest_at` on is parsed when no request waits any more
        self.rest_at = 0
        self.in_head = False
        self.head_timed = False
        self.body_timed = False
        self.head_bytes = 0
        self.wire_bytes = 0  # of the current body, framing included
        self.body_bytes = 0
        self.upgrading = False  # the parser will stop after this head, because it has an Upgrade
        self.discarding = False
        self.discarded = 0
        self.discarded_before = 0  # at the last check
        self.linger_until = 0.0  # loop time

    # Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.flow = FlowControl(self.transport)
        self.parser = httptools.HttpRequestParser(self)
        self.connections.add(self)
        self.address = self.peer = _peer_address(self.transport)
        self.counted = True
        if not self.listener.admit():
            self._reject(Rejected(Reason.OVERLOADED, "limits.connections reached"))
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
            self.listener.release()
        incoming = self.active
        if incoming is not None and not incoming.response_complete:
            incoming.disconnected = True
            if not incoming.more_body and incoming.task is not None:
                incoming.task.cancel()  # its delivery is under way
            incoming.wake()  # if its body is being read, `take` raises
        self.flow.resume_writing()
        # The parser and the requests hold the protocol. These circles would wait for the collector, which rarely runs.
        self.parser = self.latest = self.active = None
        self.pipeline.clear()
        self._keep_rest(b"")
        self.segment = b""
        self.earlier.clear()

    def data_received(self, data: bytes) -> None:
        if self.discarding:
            self.discarded += len(data)
            if self.discarded > LINGER_BYTES:
                self.transport.abort()
            return
        if self.proxy_header is not None:
            data = self._after_proxy_header(data)
            if not data:
                return
        if self.rest:  # the transport had read this before it was paused
            self._keep_rest(self.rest[self.rest_at :] + data)
            return
        end = data.find(END_OF_HEAD)
        if end < 0 or data.find(END_OF_HEAD, end + len(END_OF_HEAD)) < 0:
            self._parse(data)
        else:
            self._keep_rest(data)
            self._parse_rest()
        if self.active is not None:
            self.active.go_on()

    def _parse_rest(self) -> None:
        """Parses data in slices, each up to the end of a head, until a request waits for its turn."""
        rest, at = self.rest, self.rest_at
        while at < len(rest) and not self.pipeline and not self.discarding:
            end = rest.find(END_OF_HEAD, at + SLICE)
            end = len(rest) if end < 0 else end + len(END_OF_HEAD)
            self._parse(rest[at:end])
            at = end
        self.rest_at = at
        if at >= len(rest) or self.discarding:
            self._keep_rest(b"")
        elif self.listener.unparsed > MAX_UNPARSED:
            self._unfinished().keep_alive = (
                False  # the response to the last request that was parsed closes the connection
            )
            self.discarding = True
            self._keep_rest(b"")

    def _keep_rest(self, data: bytes) -> None:
        self.listener.unparsed += len(data) - len(self.rest)
        self.rest, self.rest_at = data, 0

    def _parse(self, data: bytes) -> None:
        """Parses data that ends at most one head, or about `SLICE` bytes of more."""
        self.wire_bytes += len(data)
        before = self.latest
        in_body = before is not None and before.more_body
        try:
            self.segment = data
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._ignore_upgrades(data, upgrade.args[0])
        except httptools.HttpParserError as error:
            if not self.discarding:  # else the first fault in this segment counts
                self._reject_unparsable(Rejected(Reason.MALFORMED_REQUEST, self._problem(error)))
        else:
            if self.in_head:
                self._unfinished_head(data, only_head=self.latest is before and not in_body)
            elif self.latest is not None and self.latest.more_body:
                self._unfinished_body()

    def _ignore_upgrades(self, data: bytes, at: int) -> None:
        """Parses on at `at`, after a head with an Upgrade, as if it had none (RFC 9110, 7.8)."""
        while not self.discarding:
            self.upgrading = False
            incoming = self._unfinished()
            names = incoming.head.names
            framing = b"transfer-encoding: chunked" if names.chunked else b"content-length: 0"
            if names.sized:
                framing = b"content-length: " + incoming.head.values(b"content-length")[0]
            close = b"" if incoming.keep_alive else b"connection: close\r\n"
            # A parser that stopped has forgotten the framing. A new one learns it from a head that nobody else sees.
            self.parser = httptools.HttpRequestParser(self)
            self.discarding = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b%b\r\n\r\n" % (close, framing))
            self.discarding = False
            if not names.chunked and not incoming.head.content_length:
                self.on_message_complete()
            data = self.segment = data[at:]
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                at = upgrade.args[0]
            else:
                return

    def _problem(self, error: Exception) -> str:
        """What is wrong with bytes that are not HTTP/1.1; another protocol is named."""
        if self.latest is None:
            protocol = name_protocol(bytes(self.earlier) + self.segment)
            if protocol:
                return f"not HTTP/1.1: {protocol}"
        return f"not HTTP/1.1: {str(error)[:80]}"

    def pause_writing(self) -> None:
        self.flow.pause_writing()
        if self.counted:
            self.deadlines.write.add(self)

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        self.deadlines.write.discard(self)
        self._begin_next()

    def shutdown(self) -> None:
        """The listener stops. Unused connections are closed now, the others after the response to their last request."""
        if self.discarding:  # it closes as soon as its sender could read the response
            self.linger_until = min(self.linger_until, self.deadlines.now() + LINGER_SECONDS)
        elif self.latest is None or self.latest.response_complete:
            self.transport.close()
        else:
            self.latest.keep_alive = False

    def _after_proxy_header(self, data: bytes) -> bytes:
        """Returns the data after the PROXY header; nothing while the header is incomplete or after it was rejected."""
        assert self.proxy_header is not None
        self.proxy_header += data
        try:
            header = read_proxy_header(self.proxy_header)
        except ProxyHeaderError as error:
            self._reject_unparsable(
                Rejected(Reason.MALFORMED_REQUEST, f"{error} (proxy_protocol: true, a trusted proxy's)")
            )
            return b""
        if header is None:
            return b""
        rest = self.proxy_header[header.size :]
        self.proxy_header = None
        if not header.local:
            self.peer = header.source or UNKNOWN_PEER
        return rest

    def _unfinished_head(self, data: bytes, *, only_head: bool) -> None:
        """`only_head`: otherwise other requests come first in the data, and how much of it is head is not known."""
        if self.discarding:
            return
        if only_head:
            self.head_bytes += len(data)
        self.earlier += data
        if self.head_bytes > MAX_HEAD:
            self._reject_unparsable(Rejected(Reason.HEADERS_TOO_LARGE, f"the head is larger than {MAX_HEAD} bytes"))
        elif not self.head_timed:
            self.head_timed = True
            self.deadlines.head.add(self)

    def _unfinished_body(self) -> None:
        if self._chunks_too_costly(MAX_HEAD):
            self._set_fault(CHUNKS_TOO_COSTLY)
        elif self.active is self.latest:  # else nothing is read until the requests before it have their responses
            self._time_body()

    def _time_body(self) -> None:
        if not self.body_timed:
            self.body_timed = True
            self.deadlines.body.add(self)

    # httptools

    def on_message_begin(self) -> None:
        if self.discarding:
            return
        self.url = b""
        self.names, self.values = [], []
        self.head_bytes = 0
        self.earlier.clear()
        self.in_head = True

    def on_url(self, url: bytes) -> None:
        self.url += url
        if len(self.url) > MAX_TARGET and not self.discarding:
            self.url = self.url[:MAX_TARGET]
            self._stop_in_head(
                Rejected(
                    Reason.HEADERS_TOO_LARGE,
                    f"the request target is longer than {MAX_TARGET} bytes",
                    response=TARGET_TOO_LONG,
                )
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_head:
            if not self.discarding:
                self._set_fault(Rejected(Reason.MALFORMED_REQUEST, "trailer fields after the body"))
            return
        self.names.append(name)
        self.values.append(value)
        if len(self.names) > MAX_FIELDS and not self.discarding:
            self._stop_in_head(Rejected(Reason.HEADERS_TOO_LARGE, f"more than {MAX_FIELDS} header fields"))

    def _stop_in_head(self, rejected: Rejected) -> None:
        """Rejects a request whose head exceeds a limit, and parses no more of it."""
        method = self.parser.get_method().decode("ascii")
        head = RequestHead(method, self.url, self.names, self.values, self.peer)
        self._head_ended()
        self._take_turn(Incoming(self, head, rejected, keep_alive=False, http_1_0=False))
        raise StopParsing

    def on_headers_complete(self) -> None:
        if self.discarding:
            return
        self._head_ended()
        parser = self.parser
        version = parser.get_http_version()
        method = parser.get_method()
        head = RequestHead(method.decode("ascii"), self.url, self.names, self.values, self.peer)
        self.body_bytes = self.wire_bytes = 0
        self.upgrading = parser.should_upgrade()
        fault = self._check_head(head, method, version)
        keep_alive = fault is None and version == "1.1" and parser.should_keep_alive()
        incoming = Incoming(self, head, fault, keep_alive=keep_alive, http_1_0=version == "1.0")
        self._take_turn(incoming)

    def _head_ended(self) -> None:
        self.in_head = False
        if self.head_timed:
            self.head_timed = False
            self.deadlines.head.discard(self)

    def _take_turn(self, incoming: Incoming) -> None:
        """Makes a request the one that is handled, or lets it wait for those before it."""
        self.latest = incoming
        if incoming.fault is not None:
            self.discarding = True
        if self.active is None and not self.flow.write_paused:
            self.active = incoming
        else:
            self.flow.pause_reading()
            self.pipeline.append(incoming)

    def _check_head(self, head: RequestHead, method: bytes, version: str) -> Rejected | None:
        if fault := self._check_raw(b"%b %b HTTP/%b\r\n" % (method, self.url, version.encode()), head):
            return fault
        return check_head(head, version=version)

    def _check_raw(self, line: bytes, head: RequestHead) -> Rejected | None:
        """Checks the bytes that the parser hides: it accepts RTSP as HTTP, and skips spaces without counting them."""
        raw = bytes(self.earlier) + self.segment if self.earlier else self.segment
        start = raw.find(line)
        if start < 0:
            return Rejected(Reason.MALFORMED_REQUEST, "not a request line of HTTP")
        if len(raw) > MAX_HEAD or head.names.chunked:
            end = raw.find(END_OF_HEAD, start) + len(END_OF_HEAD)
            if end - start > MAX_HEAD:
                return Rejected(Reason.HEADERS_TOO_LARGE, f"the head is larger than {MAX_HEAD} bytes")
            if head.names.chunked:
                self.wire_bytes = len(raw) - end
        return None

    def on_body(self, body: bytes) -> None:
        incoming = self.latest
        if self.discarding or incoming is None or incoming.response_complete:
            return
        size = len(body)
        self.body_bytes += size
        if size < SMALL_CHUNK and incoming.pieces:
            incoming.join(body)
        else:
            incoming.pieces.append(body)
        incoming.unread += size
        incoming.has_news = True
        if incoming.unread > READ_HIGH_WATER:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        if self.discarding or self.upgrading:  # of a head with an Upgrade, only the head has ended
            return
        if self.body_timed:
            self.body_timed = False
            self.deadlines.body.discard(self)
        if self._chunks_too_costly(0):
            self._set_fault(CHUNKS_TOO_COSTLY)
            return
        incoming = self._unfinished()
        incoming.more_body = False
        incoming.has_news = True

    def _unfinished(self) -> Incoming:
        """The request that came last, whose body may still be on its way."""
        assert self.latest is not None
        return self.latest

    def _chunks_too_costly(self, of_others: int) -> bool:
        """Whether the framing of the body's chunks is larger than any honest sender needs.

        `of_others`: bytes that may not be this body's.
        """
        if not self._unfinished().head.names.chunked:
            return False
        overhead = self.wire_bytes - self.body_bytes - of_others
        return overhead > CHUNK_OVERHEAD + CHUNK_OVERHEAD_PER_BYTE * self.body_bytes

    # Deadlines and the limit of connections

    def head_expired(self) -> None:
        """The head did not arrive in time. A peer that sent nothing is not counted; the connection is just closed."""
        if self.in_head:
            self._reject_unparsable(
                Rejected(Reason.HEADER_TIMEOUT, f"no whole head within {self.deadlines.head.seconds:g} s")
            )
        else:
            self.transport.close()

    def body_expired(self) -> None:
        self.reject_body(Rejected(Reason.BODY_TIMEOUT, f"no whole body within {self.deadlines.body.seconds:g} s"))

    def keep_alive_expired(self) -> None:
        """Checks once per keep-alive time, so an unused connection is closed after one to two times that.

        Empty lines aren't a request and don't keep the connection open.
        """
        clock = self.deadlines.keep_alive
        if self.unused and self.idle_since is not None and self.idle_since + clock.seconds <= clock.now():
            self.close_after_response(unread=False)
        else:
            clock.add(self)

    def linger_expired(self) -> None:
        """A sender that still sends has hardly read the response yet; closing now would destroy it by a reset."""
        if self.discarded > self.discarded_before and self.deadlines.now() < self.linger_until:
            self.discarded_before = self.discarded
            self.deadlines.linger.add(self)
        else:
            self.transport.abort()

    @property
    def unused(self) -> bool:
        """Whether the connection is between two requests."""
        return self.active is None and not self.pipeline and not self.in_head

    def evict(self) -> None:
        """Makes room for another connection: this one has waited longest for its sender."""
        in_head, in_body = self in self.deadlines.head, self in self.deadlines.body
        unread = self in self.deadlines.write
        for queue in self.deadlines.all:
            queue.discard(self)
        if unread:
            self.transport.abort()
        elif in_body:
            self.reject_body(Rejected(Reason.OVERLOADED, "limits.connections reached, and this body was the slowest"))
        elif in_head:
            self._reject_unparsable(
                Rejected(Reason.OVERLOADED, "limits.connections reached, and this head was the slowest")
            )
        else:
            self.close_after_response(unread=False)

    # Faults

    def reject_body(self, rejected: Rejected) -> None:
        """Rejects the request whose body is being read, without waiting for more of it."""
        self.body_timed = False
        self.deadlines.body.discard(self)
        self._set_fault(rejected)
        self._unfinished().wake()

    def _set_fault(self, rejected: Rejected) -> None:
        """Rejects the request whose body is being read: its next `take` raises."""
        self.discarding = True
        incoming = self._unfinished()
        incoming.fault = rejected
        incoming.keep_alive = False
        incoming.has_news = True

    def _reject_unparsable(self, rejected: Rejected) -> None:
        """Rejects bytes that won't become a request. Complete requests before them get their responses first."""
        incoming = self.latest
        if incoming is not None and not incoming.response_complete:
            if incoming.more_body and not self.in_head:
                self._set_fault(rejected)  # inside this request's own body
                return
            self.discarding = True
            incoming.keep_alive = False  # the bytes come after it: its response closes the connection
            return
        self._reject(rejected)

    def _reject(self, rejected: Rejected) -> None:
        """Responds to bytes that never became a request."""
        self.discarding = True
        self.transport.write(self.application.reject_unparsed(self.address, rejected))
        self.close_after_response(unread=True)

    # After a response

    def on_response_complete(self) -> None:
        """Begins the next request of the pipeline, or the wait for one."""
        self.active = None
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._begin_next()
        elif not self.discarding:
            self.flow.resume_reading()
            if self.idle_since is None:
                self.deadlines.keep_alive.add(self)
            self.idle_since = self.deadlines.now()

    def _begin_next(self) -> None:
        """Waits while responses are unread: a sender that never reads could otherwise make us hold any number of them."""
        if self.pipeline and self.active is None and not self.flow.write_paused:
            self.active = incoming = self.pipeline.popleft()
            if not self.pipeline and self.rest:
                self._parse_rest()
            if not self.pipeline:  # else a sender that never stops sending could make the queue longer and longer
                self.flow.resume_reading()
                if incoming.more_body and not self.discarding:
                    self._time_body()
            incoming.go_on()

    def close_after_response(self, *, unread: bool) -> None:
        """Closes the connection so that the sender can still read the response. `unread`: it may still be sending."""
        if self.transport.is_closing():
            return
        if unread:
            self.discarding = True
            self._keep_rest(b"")
            for queue in self.deadlines.all:  # from now on it makes no room for others, and has another deadline
                queue.discard(self)
            self.flow.resume_reading()
            self.transport.write_eof()
            self.linger_until = self.deadlines.now() + MOST_LINGER_SECONDS
            self.deadlines.linger.add(self)
            if self.counted:
                self.counted = False
                self.listener.linger()
            return
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self.deadlines.write.add(self)


def _peer_address(transport: asyncio.Transport) -> str | None:
    """The address of the direct connection; None on a unix socket.

    A connection that was reset before it was accepted has no address any more, but its data can still be read. It must
    not look like a unix socket, whose peer may be trusted.
    """
    try:
        name = transport.get_extra_info("peername")
    except OSError:
        name = None
    if isinstance(name, tuple):
        return str(name[0])
    accepted = transport.get_extra_info("socket")
    return None if accepted is not None and accepted.family == socket.AF_UNIX else UNKNOWN_PEER
