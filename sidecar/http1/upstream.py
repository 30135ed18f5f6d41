"""A pool of connections to the receiver, made for forwarding.

Each connection carries one request at a time, and the response is passed on as it arrives. A request is written once. If
its connection is found closed before a byte was written, another one is used, but a request that may have reached the
receiver is never sent again (RFC 9110, 9.2.2). A connection is used again only if request and response both ended where
they should, and nothing followed the response.
"""

import asyncio
import select
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, Final, NamedTuple

import httptools

from sidecar.http1.admission import KEEP_ALIVE_SECONDS
from sidecar.http1.client_tls import ClientTls
from sidecar.http1.connect import Connector
from sidecar.http1.deadlines import DeadlineQueue
from sidecar.http1.fields import HARMLESS_OPTIONS, HOP_BY_HOP, connection_options
from sidecar.http1.head import FieldNames, field_lines, field_names
from sidecar.http1.light_task import Signal
from sidecar.http1.other_protocols import name_response_protocol
from sidecar.http1.slots import Slots
from sidecar.http1.transport import write_pieces
from sidecar.outcomes import Aborted, DeliveryEnd, Reason, Rejected


class UpstreamAddress(NamedTuple):
    """Where a receiver listens. For a unix socket `path` is set, and host and port are unused."""

    scheme: str  #: http, https or unix
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.scheme == "unix" else f"{self.scheme}://{self.authority.decode()}"

    @property
    def authority(self) -> bytes:
        """Host and port, in the form of a Host field."""
        if self.scheme == "unix":
            return b"localhost"
        return f"[{self.host}]:{self.port}".encode() if ":" in self.host else f"{self.host}:{self.port}".encode()


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits towards the upstream, and `keep_alive` towards senders, in seconds."""

    connect: float = 5.0
    response: float = 30.0
    total: float = 60.0
    idle: float = 1.0
    keep_alive: float = KEEP_ALIVE_SECONDS


class UpstreamSettings(NamedTuple):
    """A receiver, and how it is connected to. Routes with equal settings share its connections."""

    address: UpstreamAddress
    timeouts: Timeouts
    tls: ClientTls | None = None  #: None: the system's authorities, for https
    connections: int | None = None  #: the most at a time; None: as many as there are deliveries


#: Largest head of a response, bytes, with all informational ones before it; also the largest trailer section.
MAX_RESPONSE_HEAD: Final = 64 * 1024
HEAD_TOO_LARGE: Final = f"the head of the receiver's response is larger than {MAX_RESPONSE_HEAD} bytes"
#: Response bytes held for a sender that reads slowly, before reading from the receiver pauses.
RESPONSE_HIGH_WATER: Final = 256 * 1024
#: A connection unused for longer is checked: the receiver may have just closed it. No server ends a kept connection
#: sooner, and the check costs a system call.
RECHECK_SECONDS: Final = 0.25


class Connection(asyncio.Protocol):
    """One connection, and the response that is arriving on it."""

    def __init__(self, pool: "Upstream") -> None:
        self.pool = pool
        self.parser: Any = None  # httptools.HttpResponseParser, while the connection is open
        self.transport: asyncio.Transport
        self.closed = False
        self.idle_since = 0.0
        self.busy = False
        self.total_timer: asyncio.TimerHandle | None = None
        self._signal = Signal()
        self._begin(no_body=False)

    def _begin(self, *, no_body: bool) -> None:
        """Forgets the previous response: nothing of it may reach another sender."""
        self.status = 0
        self.lines = b""  # of the head, without hop-by-hop fields
        self.head_done = False
        self.complete = False
        self.failed: DeliveryEnd | None = None
        self.has_length = False  # a Content-Length is among the headers
        self._no_body = no_body  # the response to HEAD has none, whatever its headers say
        self._sized = False  # the head says where the body ends; otherwise the connection's end does
        self._reusable = True
        self._informational = False
        self._framing = 0  # bytes since the last body byte: heads, chunk sizes, trailer fields
        self._names: list[bytes] = []  # of the head's fields, and their values
        self._values: list[bytes] = []
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._paused = False

    # For the proxy

    def write(self, head: bytes, body: Sequence[bytes], size: int, *, no_body: bool) -> None:
        """Sends a complete request, whose body has `size` bytes."""
        self._begin(no_body=no_body)
        self.busy = True
        write_pieces(self.transport, [head, *body], size)

    async def news(self) -> None:
        """Waits for more of the response. Raises its failure: `Rejected` before its head arrived, `Aborted` after."""
        if self.failed is None:
            await self._signal
        if self.failed is not None and not self.has_piece:
            raise self.failed

    def take(self) -> tuple[bytes, bool]:
        """Returns what has arrived of the response's body, and whether more follows."""
        chunks = self._chunks
        piece = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._buffered = 0
        if self._paused and not self.closed:
            self._paused = False
            self.transport.resume_reading()
        return piece, not self.complete

    @property
    def has_piece(self) -> bool:
        """Whether there is a piece of the body, or its end, to `take`."""
        return self.complete or bool(self._chunks)

    def release(self) -> None:
        """Ends the exchange: back to the pool if its whole response was passed on and it is reusable, otherwise closed."""
        self.busy = False
        whole = self.complete and self.failed is None and not self._chunks
        reusable = whole and self._reusable and not self.closed
        if reusable and not self._paused and not self.transport.get_write_buffer_size():
            self.pool.put_back(self)
        else:
            self.abort()

    def abort(self) -> None:
        self.closed = True
        self.transport.abort()

    def fail(self, reason: Reason, detail: str) -> None:
        """Ends the wait for the response with this failure."""
        if self.failed is None and not self.complete:
            self.failed = (Aborted if self.head_done else Rejected)(reason, detail)
            self._signal.set()

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.parser = httptools.HttpResponseParser(self)
        self.pool.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.pool.connections.discard(self)
        self.pool.forget(self)
        self.parser = None  # it holds this protocol: the cycle would wait for the collector, which rarely runs
        if not self.busy:
            return
        if exc is None and self.head_done and not self._sized:
            self.complete = True  # close-delimited (RFC 9112, 6.3, rule 8)
            self._signal.set()
        elif self.head_done:
            self.fail(Reason.UPSTREAM_BROKE, "the receiver closed the connection in the middle of its response")
        elif isinstance(exc, ssl.SSLError):  # with TLS 1.3 it rejects a certificate when we have sent the request
            self.fail(Reason.UPSTREAM_BROKE, f"the receiver ended TLS: {exc.reason or type(exc).__name__}")
        else:
            # Java's server ends TLS 1.3 without an alert if it wants a certificate; never later than with the first request.
            wanted = self.pool.anonymous and not self.idle_since
            why = "; if it wants a client certificate, set `tls: {client_cert: ...}`" if wanted else ""
            self.fail(Reason.UPSTREAM_BROKE, f"the receiver closed the connection without a response{why}")

    def data_received(self, data: bytes) -> None:
        if not self.busy or self.complete:
            self._reusable = False  # no request is open
            self.abort()
            return
        self._framing += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break("the receiver switched protocols")
        except httptools.HttpParserError as error:
            self._reusable = False
            if not self.complete:
                protocol = name_response_protocol(data) if self._framing == len(data) else ""
                self._break(f"the receiver's response is not HTTP/1.1: {protocol or str(error)[:80]}")
        if self._framing > MAX_RESPONSE_HEAD:
            if not self.head_done:
                self._break(HEAD_TOO_LARGE)
            elif not self.complete:
                self._break("the framing of the receiver's response is larger than what it carries")
        if self._buffered > RESPONSE_HIGH_WATER and not self._paused and not self.complete:
            self._paused = True
            self.transport.pause_reading()
        self._signal.set()  # last: the waiting task may give this connection another request

    # httptools

    def on_message_begin(self) -> None:
        if self.complete:
            self._reusable = False  # a second response to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head_done:  # trailer fields are dropped (RFC 9110, 6.5.1)
            self._names.append(name)
            self._values.append(value)

    def on_headers_complete(self) -> None:
        if self.complete or self.failed is not None:
            return
        status = self.parser.get_status_code()
        if 100 <= status < 200:
            self._names, self._values = [], []
            self._informational = True
            if status == 101:
                self._break("the receiver switched protocols")
            return
        if not 200 <= status <= 599:
            self._break(f"the receiver responded with the status {status}")
            return
        if self.parser.get_http_version() not in ("1.1", "1.0"):
            self._break("the receiver's response is not HTTP/1.1")
            return
        values = self._values
        if self._framing > MAX_RESPONSE_HEAD and _least_size(self._names, values) > MAX_RESPONSE_HEAD:
            self._break(HEAD_TOO_LARGE)
            return
        listed = field_names(tuple(self._names))
        if listed.as_response is None:
            listed.as_response = ResponseFields(listed)
        fields: ResponseFields = listed.as_response
        if fields.codings and any(values[place].strip().lower() != b"chunked" for place in fields.codings):
            self._break("the receiver's response has a transfer coding other than chunked")
            return
        self.lines = fields.end_to_end(values, sized=status != 204)
        self.has_length = fields.sized
        self.status = status
        self._sized = fields.sized or bool(fields.codings) or self._no_body or status in (204, 304)
        self._reusable = self._sized and self.parser.should_keep_alive()
        self.head_done = True
        if self._no_body:
            # The parser would read the next bytes as this response's body, so the connection can't be used again.
            self._reusable = False
            self.complete = True

    def on_body(self, body: bytes) -> None:
        if self.complete or self.failed is not None:
            self._reusable = False
            return
        self._chunks.append(body)
        self._buffered += len(body)
        self._framing = 0

    def on_message_complete(self) -> None:
        if self._informational:
            self._informational = False
            return
        if self.head_done:
            self.complete = True

    def _break(self, detail: str) -> None:
        """Fails the response while parsing; `data_received` wakes the waiting task."""
        self._reusable = False
        if self.failed is None and not self.complete:
            self.failed = (Aborted if self.head_done else Rejected)(Reason.UPSTREAM_BROKE, detail)


class ResponseFields:
    """Facts about the names of a response's fields: which ones are passed on, and how the body is framed."""

    __slots__ = ("_connections", "_kept", "_lower", "_names", "_template", "codings", "sized")

    def __init__(self, names: FieldNames) -> None:
        self._kept = [name not in HOP_BY_HOP for name in names.lower]
        self._names = tuple(compress(names.listed, self._kept))  # of those that are kept
        self._lower = tuple(compress(names.lower, self._kept))
        self._template = b"".join([name.replace(b"%", b"%%") + b": %b\r\n" for name in self._names])
        self._connections = [place for place, name in enumerate(names.lower) if name == b"connection"]
        self.codings = [place for place, name in enumerate(names.lower) if name == b"transfer-encoding"]
        self.sized = names.sized  #: a Content-Length gives the end of the body

    def end_to_end(self, values: Sequence[bytes], *, sized: bool) -> bytes:
        """The lines for the sender: without hop-by-hop fields and those that `Connection` names.

        If not `sized`, without Content-Length as well: a 204 must not have it (RFC 9110, 8.6).
        """
        kept = tuple(compress(values, self._kept))
        named = [values[place] for place in self._connections if values[place] not in HARMLESS_OPTIONS]
        if not named and (sized or not self.sized):
            return self._template % kept
        dropped = connection_options(named) - HARMLESS_OPTIONS - {b"content-length"}
        if not sized:
            dropped |= {b"content-length"}
        fields = zip(self._names, kept)
        return field_lines(field for field, lower in zip(fields, self._lower) if lower not in dropped)


class Upstream:
    """The connections to one receiver: `send`, read the response from the connection, then `finish`."""

    def __init__(
        self,
        address: UpstreamAddress,
        timeouts: Timeouts,
        loop: asyncio.AbstractEventLoop,
        *,
        tls: ClientTls | None = None,
        connections: int | None = None,
    ) -> None:
        self.address = address
        self.timeouts = timeouts
        self.loop = loop
        self._slots = Slots(connections, timeouts.connect, loop, str(address)) if connections is not None else None
        self.connections: set[Connection] = set()
        self._idle: dict[Connection, None] = {}  # in order of use; a dict, so that any can be taken out at once
        self._closing = False
        context = (
            tls.context if tls is not None else ssl.create_default_context() if address.scheme == "https" else None
        )
        self.anonymous = context is not None and not (
            tls is not None and tls.presents_certificate
        )  #: TLS without our certificate
        self._connector = Connector(loop, address, context, tls.server_name if tls is not None else "")
        self._sweeper: asyncio.TimerHandle | None = None
        self._response_clock: DeadlineQueue[Connection] = DeadlineQueue(
            loop, min(timeouts.response, timeouts.total), self._response_late
        )

    @property
    def longest(self) -> float:
        """Seconds after which `send` and the response have ended, successfully or not."""
        return self.timeouts.connect + self.timeouts.total

    async def send(self, head: bytes, body: Sequence[bytes], size: int, *, no_body: bool) -> Connection:
        """Sends a request, whose body has `size` bytes, and waits for the head of its response.

        The caller reads the body from the connection and then calls `finish`. Raises `Rejected` with
        `upstream_unreachable` (no connection within `timeouts.connect`, refused connections retried), `upstream_timeout`
        (no response within `timeouts.response`), or `upstream_broke` (anything that is not a response).
        """
        if self._slots is None:
            connection = self._take()
            if connection is None:
                connection = await self.loop.create_task(
                    self._connector.connect(self.timeouts.connect, lambda: Connection(self))
                )
        else:
            connection = await self._take_in_turn(self._slots)
        connection.write(head, body, size, no_body=no_body)
        due = self._response_clock.add(connection)
        try:
            while not connection.head_done:
                await connection.news()
        except BaseException:
            self.finish(connection)
            raise
        if not connection.complete:
            self._response_clock.discard(connection)
            ends = due - self._response_clock.seconds + self.timeouts.total
            connection.total_timer = self.loop.call_at(ends, self._total_late, connection)
        return connection

    def finish(self, connection: Connection) -> None:
        """Ends the exchange, in any state."""
        self._response_clock.discard(connection)
        if connection.total_timer is not None:
            connection.total_timer.cancel()
            connection.total_timer = None
        connection.release()
        if self._slots is not None:
            self._slots.give()

    async def _take_in_turn(self, slots: Slots) -> Connection:
        """A connection once there are fewer than `connections`; the wait and the attempts share `timeouts.connect`."""
        deadline = self.loop.time() + self.timeouts.connect
        await slots.take()
        try:
            connection = self._take()
            if connection is None:
                left = max(deadline - self.loop.time(), 0.0)
                connection = await self.loop.create_task(self._connector.connect(left, lambda: Connection(self)))
        except BaseException:
            slots.give()
            raise
        return connection

    def put_back(self, connection: Connection) -> None:
        if self._closing:
            connection.abort()
            return
        connection.idle_since = self.loop.time()
        self._idle[connection] = None
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(self.timeouts.idle, self._sweep)

    def forget(self, connection: Connection) -> None:
        self._idle.pop(connection, None)

    def close(self) -> None:
        """Closes unused connections now, and the others when their exchange ends."""
        self._closing = True
        for connection in list(self._idle):
            connection.abort()

    def _take(self) -> Connection | None:
        """An unused connection that is still open, the most recently used first."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.closed or connection.transport.is_closing():
                continue
            if self.loop.time() - connection.idle_since > RECHECK_SECONDS and _readable(connection.transport):
                connection.abort()
                continue
            return connection
        return None

    def _sweep(self) -> None:
        """Closes connections unused for `timeouts.idle`; the longest unused ones come first."""
        self._sweeper = None
        now = self.loop.time()
        for connection in list(self._idle):
            due = connection.idle_since + self.timeouts.idle
            if due > now:
                self._sweeper = self.loop.call_at(due, self._sweep)
                return
            del self._idle[connection]
            connection.abort()

    def _response_late(self, connection: Connection) -> None:
        connection.fail(Reason.UPSTREAM_TIMEOUT, f"no response within {self.timeouts.response:g} s")

    def _total_late(self, connection: Connection) -> None:
        connection.fail(Reason.UPSTREAM_TIMEOUT, f"the response did not end within {self.timeouts.total:g} s")


def _least_size(names: Sequence[bytes], values: Sequence[bytes]) -> int:
    """The fewest bytes that a head with these fields has: each has a colon and an end of line besides."""
    return sum(map(len, names)) + sum(map(len, values)) + 3 * len(names)


def _readable(transport: asyncio.Transport) -> bool:
    """Whether an unused connection has something to read: its end, or unexpected bytes."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
