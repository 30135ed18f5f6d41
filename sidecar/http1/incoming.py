"""One request on the data listener, and the means to respond to it."""

from typing import TYPE_CHECKING

from sidecar.http1.head import RequestHead
from sidecar.http1.light_task import LightTask, Signal
from sidecar.http1.transport import STATUS_LINES, write_pieces
from sidecar.outcomes import Reason, Rejected

if TYPE_CHECKING:
    from sidecar.http1.connection import DataProtocol


class Incoming:
    """One request: its head, its body as it arrives, and the means to respond.

    It uses plain calls instead of ASGI's messages. The application gets the head as a value, with the raw target and
    the spelling of header names, which ASGI doesn't carry, and pieces of the body aren't copied together.
    """

    # The defaults are class attributes because every delivery creates one of these.
    task: LightTask | None = None
    disconnected = False
    more_body = True
    response_started = False
    response_complete = False
    has_news = False
    unread = 0  #: bytes of the body that have arrived and haven't been taken
    _held_head = b""
    _chunked = False
    _continued = False
    _no_body = False

    def __init__(
        self, protocol: "DataProtocol", head: RequestHead, fault: Rejected | None, *, keep_alive: bool, http_1_0: bool
    ) -> None:
        self.protocol = protocol
        self.transport = protocol.transport
        self.head = head
        self.fault = fault  #: why this request must be rejected, found before or while its body was read
        self.keep_alive = keep_alive
        self.http_1_0 = http_1_0
        self.pieces: list[bytes | bytearray] = []  #: of the body, arrived and not taken
        self._signal = Signal()

    def go_on(self) -> None:
        """Starts the application on this request, or wakes it if there is news."""
        if self.task is None:
            protocol = self.protocol
            self.task = LightTask(protocol.application(self), protocol.turn, self._finish)
            protocol.tasks.add(self.task)
        elif self.has_news:
            self._signal.set()

    def _finish(self, task: LightTask) -> None:
        """Closes the connection if the application ended without a complete response."""
        self.protocol.tasks.discard(task)
        if not self.response_complete and not self.disconnected:
            self.transport.abort()

    # The request

    def join(self, piece: bytes) -> None:
        """Gathers small pieces in one buffer: as objects, chunks of a few bytes would take many times their size."""
        last = self.pieces[-1]
        if not isinstance(last, bytearray):
            last = bytearray()
            self.pieces.append(last)
        last += piece

    def wake(self) -> None:
        """Reports news for `take` that didn't arrive as data."""
        self.has_news = True
        self._signal.set()

    def recognize(self) -> None:
        """Notes that this request is genuine."""
        self.protocol.recognize()

    def evict(self, rejected: Rejected) -> None:
        """Rejects this request, whose body is still on its way, to make room for others."""
        self.protocol.reject_body(rejected)

    async def news(self) -> None:
        """Waits until `has_news`. Sends `100 Continue` first if the sender waits for it (RFC 9110, 10.1.1)."""
        if not self._continued and not self.http_1_0 and self.head.values(b"expect"):
            self._continued = True
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.protocol.flow.resume_reading()
        await self._signal

    def take(self) -> tuple[bytes, bool]:
        """Returns what has arrived of the body, and whether more follows. Raises the `Rejected` that ends the request."""
        self.has_news = False
        if self.fault is not None:
            raise self.fault
        if self.disconnected:
            raise Rejected(Reason.BODY_INCOMPLETE, "the sender left in the middle of its body")
        piece = b"".join(self.pieces)  # a single piece is not copied
        self.pieces = []
        self.unread = 0
        return piece, self.more_body

    # The response

    def start(self, status: int, lines: bytes, *, sized: bool, hold: bool) -> None:
        """Sends the response's head, with the fields in `lines`.

        `sized` says that the fields give the length of the body. Otherwise the body is chunked, or ends with the
        connection. With `hold` the head waits for the first `write`, which must follow at once: one write for both.
        """
        head = self._response_head(status, lines, sized)
        if hold:
            self._held_head = head
        elif not self.disconnected:
            self.transport.write(head)

    def write(self, body: bytes, *, more: bool) -> None:
        """Sends a piece of the response's body. If there is `more`, await `writable` before the next piece."""
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
        """Closes the connection at once, in the middle of a response, so that the sender sees that it is incomplete."""
        self.transport.abort()

    def _response_head(self, status: int, lines: bytes, sized: bool) -> bytes:
        self.response_started = True
        self._no_body = self.head.method == "HEAD" or status in (204, 304)
        framing = b""
        if not (sized or self._no_body):
            if self.http_1_0:
                self.keep_alive = False  # the end of the connection ends the body
            else:
                self._chunked = True
                framing = b"transfer-encoding: chunked\r\n"
        if self.more_body or self.protocol.listener.closing:
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"connection: close\r\n"
        return b"%b%b%b\r\n" % (STATUS_LINES[status], lines, framing)

    def _complete(self) -> None:
        self.response_complete = True
        if not self.keep_alive:
            self.protocol.pipeline.clear()
            self.pieces = []
            protocol = self.protocol
            protocol.close_after_response(unread=self.more_body or protocol.discarding or bool(protocol.rest))
        self.protocol.on_response_complete()
