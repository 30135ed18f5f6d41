"""The data listener's connections: an asyncio protocol, bounded and timed.

`request_parser.py` turns what arrives into requests; this half has the connection, its deadlines and its place among the
others:

- The head's time, the body's time, and the time that a sender may leave a response unread are limited.
- Garbage after a complete request is an error before that request's response. The response is sent first, then the
  connection is closed.
- A response given before the body was read closes the connection, after the rest was read and discarded for a moment:
  otherwise a reset could destroy the response on its way to the sender (RFC 9112, 9.6).
"""

import asyncio
import socket
from typing import Any, Final, Protocol

import httptools

from sidecar.http1.admission import DISCARD_STEP, LINGER_SECONDS, Deadlines, Listener
from sidecar.http1.head import RequestHead
from sidecar.http1.incoming import Incoming
from sidecar.http1.proxy_protocol import UNKNOWN_PEER, ProxyHeaderError, read_proxy_header
from sidecar.http1.request_parser import RequestParser
from sidecar.http1.transport import FlowControl
from sidecar.outcomes import Reason, Rejected

MOST_LINGER_SECONDS: Final = 30.0  # in all
LINGER_BYTES: Final = 64 * 1024 * 1024


class Application(Protocol):
    """Handles the listener's requests."""

    async def __call__(self, incoming: Incoming) -> None:
        """Responds to one request."""
        ...

    def reject_unparsed(self, peer: str | None, rejected: Rejected) -> bytes:
        """Returns the whole response, as bytes, to bytes that never became a request."""
        ...


class DataProtocol(RequestParser):
    """One connection of a sender."""

    transport: asyncio.Transport

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
        super().__init__(listener)
        self.application = application
        self.deadlines = deadlines
        self.turn = deadlines.turn
        self.connections = connections
        self.tasks = tasks
        self.address: str | None = None  # see `_peer_address`
        self.proxy_header: bytes | None = None  # what has arrived of the PROXY header; None if none is due
        self.counted = False  # among the listener's connections
        self.recognized = False  # it has carried something genuine
        self.active: Incoming | None = None  # the request that is being handled
        self.idle_since: float | None = None  # loop time of the last response's end; None before the first one
        self.head_timed = False
        self.body_timed = False
        self.discarded = 0
        self.discarded_before = 0  # at the last check
        self.pause_at = DISCARD_STEP  # `discarded` at the next pause
        self.linger_until = 0.0  # loop time

    # Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.flow = FlowControl(self.transport)
        self.parser = httptools.HttpRequestParser(self)
        self.connections.add(self)
        self.address = self.peer = _peer_address(self.transport)
        self.counted = True
        if not self.listener.admit(self):
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
            self.listener.release(self)
        incoming = self.active
        if incoming is not None and not incoming.response_complete:
            incoming.disconnected = True
            if not incoming.more_body and incoming.task is not None:
                incoming.task.cancel()  # its delivery is under way
            incoming.wake()  # if its body is being read, `take` raises
        self.flow.resume_writing()
        # The parser and the requests hold the protocol. These cycles would wait for the collector, which rarely runs.
        self.parser = self.latest = self.active = None
        self.pipeline.clear()
        self.keep_rest(b"")
        self.segment = b""
        self.earlier.clear()

    def data_received(self, data: bytes) -> None:
        if self.discarding:
            self.discarded += len(data)
            if self.discarded > LINGER_BYTES:
                self.transport.abort()
            elif self.linger_until and self.discarded >= self.pause_at:
                # Its sender could keep the event loop busy with bytes that nobody wants.
                self.pause_at = self.discarded + DISCARD_STEP
                self.flow.pause_reading()
                self.deadlines.discard.add(self)
            return
        if self.proxy_header is not None:
            data = self._after_proxy_header(data)
            if not data:
                return
        self.feed(data)
        if self.active is not None:
            self.active.go_on()

    def pause_writing(self) -> None:
        self.flow.pause_writing()
        if self.counted:
            self.deadlines.write.add(self)

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        self.deadlines.write.discard(self)
        self._begin_next()

    def shutdown(self) -> None:
        """The listener stops. Unused connections close now, the others after the response to their last request."""
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
            self.reject_unparsable(
                Rejected(
                    Reason.MALFORMED_REQUEST, f"{error}; proxy_protocol expects a valid one from each trusted proxy"
                )
            )
            return b""
        if header is None:
            return b""
        rest = self.proxy_header[header.size :]
        self.proxy_header = None
        if not header.local:
            self.peer = header.source or UNKNOWN_PEER
        return rest

    # Events of the parser

    def take_turn(self, head: RequestHead, fault: Rejected | None, *, keep_alive: bool, http_1_0: bool) -> None:
        self.latest = incoming = Incoming(self, head, fault, keep_alive=keep_alive, http_1_0=http_1_0)
        if fault is not None:
            self.discarding = True
        if self.active is None and not self.flow.write_paused:
            self.active = incoming
        else:
            self.flow.pause_reading()
            self.pipeline.append(incoming)

    def head_incomplete(self) -> None:
        if not self.head_timed:
            self.head_timed = True
            self.deadlines.head.add(self)

    def head_complete(self) -> None:
        if self.head_timed:
            self.head_timed = False
            self.deadlines.head.discard(self)

    def body_incomplete(self) -> None:
        if self.active is self.latest:  # otherwise nothing is read until earlier requests have their responses
            self._time_body()

    def body_complete(self) -> None:
        if self.body_timed:
            self.body_timed = False
            self.deadlines.body.discard(self)

    def _time_body(self) -> None:
        if not self.body_timed:
            self.body_timed = True
            self.deadlines.body.add(self)

    # Deadlines and the limit of connections

    def head_expired(self) -> None:
        """The head did not arrive in time. A peer that sent nothing is not counted; the connection is just closed."""
        if self.in_head:
            self.reject_unparsable(
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
        """A sender that is still sending has probably not read the response. Closing now would destroy it by a reset."""
        if self.discarded > self.discarded_before and self.deadlines.now() < self.linger_until:
            self.discarded_before = self.discarded
            self.deadlines.linger.add(self)
        else:
            self.transport.abort()

    def read_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    @property
    def unused(self) -> bool:
        """Whether the connection is between two requests."""
        return self.active is None and not self.pipeline and not self.in_head

    @property
    def waits_for_sender(self) -> bool:
        """Whether the next step is the sender's: to send a request, or the rest of one, or to read a response."""
        deadlines = self.deadlines
        return self.unused or self in deadlines.head or self in deadlines.body or self in deadlines.write

    def recognize(self) -> None:
        """Notes that the connection has carried something genuine, so its sender may take time between two requests."""
        if not self.recognized:
            self.recognized = True
            self.listener.recognize(self)

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
            self.reject_unparsable(
                Rejected(Reason.OVERLOADED, "limits.connections reached, and this head was the slowest")
            )
        else:
            self.close_after_response(unread=False)

    # Faults

    def reject_body(self, rejected: Rejected) -> None:
        """Rejects the request whose body is being read, without waiting for more of it."""
        self.body_timed = False
        self.deadlines.body.discard(self)
        self.set_fault(rejected)
        self.unfinished().wake()

    def reject_unparsable(self, rejected: Rejected) -> None:
        """Rejects bytes that won't become a request. Complete requests before them get their responses first."""
        incoming = self.latest
        if incoming is not None and not incoming.response_complete:
            if incoming.more_body and not self.in_head:
                self.set_fault(rejected)  # inside this request's own body
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
                self.parse_rest()
            if not self.pipeline:  # otherwise a sender that never stops could make the queue grow without end
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
            self.keep_rest(b"")
            for queue in self.deadlines.all:  # from now on it makes no room for others, and has another deadline
                queue.discard(self)
            self.flow.resume_reading()
            self.transport.write_eof()
            self.linger_until = self.deadlines.now() + MOST_LINGER_SECONDS
            self.deadlines.linger.add(self)
            if self.counted:
                self.counted = False
                self.listener.linger(self)
            return
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self.deadlines.write.add(self)


def _peer_address(transport: asyncio.Transport) -> str | None:
    """The address of the direct connection; None on a unix socket. An IPv4 client of a dual-stack socket has its IPv4 address.

    A connection that was reset before it was accepted has no address any more, but its data can still be read. It must
    not look like a unix socket, whose peer may be trusted.
    """
    try:
        name = transport.get_extra_info("peername")
    except OSError:
        name = None
    if isinstance(name, tuple):
        address = str(name[0])
        return address[7:] if address.startswith("::ffff:") and "." in address else address
    accepted = transport.get_extra_info("socket")
    return None if accepted is not None and accepted.family == socket.AF_UNIX else UNKNOWN_PEER
