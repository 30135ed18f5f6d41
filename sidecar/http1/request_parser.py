"""From bytes to requests: httptools' parser, made strict and bounded.

httptools' parser (llhttp) leaves these to its user:

- Trailer fields arrive like header fields, so a signature or an X-Forwarded-For sent after the body could count.
  Rejected here.
- An Upgrade or CONNECT request ends HTTP: the parser would read its body as the next request. Here an Upgrade is
  ignored (RFC 9110, 7.8) and a new parser reads the body; CONNECT is rejected.
- All that arrived in one read is parsed at once, however many requests or header fields it has. Here a segment with more
  than one head is parsed in slices, until a request waits for its turn, and a head only up to its limits.
- Two Host fields, odd versions, fragments and underscore aliases of framing fields are accepted: `head.check_head`
  rejects them.

A rejection found here is kept as the request's `fault`. The proxy returns it like any other, so one place responds, logs
and counts.
"""

import asyncio
from collections import deque
from typing import Any, Final

import httptools

from sidecar.http1.admission import Listener
from sidecar.http1.head import RequestHead, check_head
from sidecar.http1.incoming import Incoming
from sidecar.http1.other_protocols import name_protocol
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
#: Pieces of a body below this size are joined.
SMALL_CHUNK: Final = 1024
#: Unread body bytes held for the application before reading pauses.
READ_HIGH_WATER: Final = 64 * 1024


class StopParsing(Exception):
    """Raised in the parser's callbacks: the head exceeds a limit, so the rest of it is not parsed."""


class RequestParser(asyncio.Protocol):
    """The parsing half of `DataProtocol`, which is the only subclass: what has arrived, and the request it belongs to.

    The other half supplies what touches the connection: its transport, its deadlines and the turns of requests.
    """

    flow: FlowControl

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.peer: str | None = None  # address of the direct connection, or the one in the PROXY header
        self.pipeline: deque[Incoming] = deque()  # requests that wait for their turn, the next one last
        self.parser: Any = None  # httptools.HttpRequestParser, while the connection is open
        self.latest: Incoming | None = None  # the request that came last
        self.url = b""
        self.names: list[bytes] = []  # of the head's fields, and their values
        self.values: list[bytes] = []
        self.segment = b""  # the data being parsed
        self.earlier = bytearray()  # the data before it, if this head began in it
        self.rest = b""  # data that is parsed from `rest_at` on when no request waits any more
        self.rest_at = 0
        self.in_head = False
        self.head_bytes = 0
        self.wire_bytes = 0  # of the current body, framing included
        self.body_bytes = 0
        self.upgrading = False  # the parser will stop after this head, because it has an Upgrade
        self.discarding = False

    # Supplied by the other half

    def take_turn(self, head: RequestHead, fault: Rejected | None, *, keep_alive: bool, http_1_0: bool) -> None:
        """Begins a request, whose body may follow: it is handled now, or waits for those before it. Sets `latest`."""
        raise NotImplementedError

    def head_incomplete(self) -> None:
        """The data ends within a head."""
        raise NotImplementedError

    def head_complete(self) -> None:
        raise NotImplementedError

    def body_incomplete(self) -> None:
        """The data ends within a body."""
        raise NotImplementedError

    def body_complete(self) -> None:
        raise NotImplementedError

    def reject_unparsable(self, rejected: Rejected) -> None:
        """The bytes won't become a request."""
        raise NotImplementedError

    # Parsing

    def feed(self, data: bytes) -> None:
        """Parses what has arrived, or keeps it until no request waits any more."""
        if self.rest:  # the transport had read this before it was paused
            self.keep_rest(self.rest[self.rest_at :] + data)
            return
        end = data.find(END_OF_HEAD)
        after = end + len(END_OF_HEAD)
        # A single byte is searched for many times faster, and most bodies have no CR.
        if end < 0 or data.find(b"\r", after) < 0 or data.find(END_OF_HEAD, after) < 0:
            self.parse(data)
        else:
            self.keep_rest(data)
            self.parse_rest()

    def parse_rest(self) -> None:
        """Parses data in slices, each up to the end of a head, until a request waits for its turn."""
        rest, at = self.rest, self.rest_at
        while at < len(rest) and not self.pipeline and not self.discarding:
            end = rest.find(END_OF_HEAD, at + SLICE)
            end = len(rest) if end < 0 else end + len(END_OF_HEAD)
            self.parse(rest[at:end])
            at = end
        self.rest_at = at
        if at >= len(rest) or self.discarding:
            self.keep_rest(b"")
        elif self.listener.unparsed > MAX_UNPARSED:
            self.reject_unparsable(Rejected(Reason.OVERLOADED, "too many bytes wait behind pipelined requests"))
            self.keep_rest(b"")

    def keep_rest(self, data: bytes) -> None:
        self.listener.unparsed += len(data) - len(self.rest)
        self.rest, self.rest_at = data, 0

    def parse(self, data: bytes) -> None:
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
            if not self.discarding:  # otherwise the first fault in this segment counts
                self.reject_unparsable(Rejected(Reason.MALFORMED_REQUEST, self._problem(error)))
        else:
            if self.in_head:
                self._unfinished_head(data, only_head=self.latest is before and not in_body)
            elif self.latest is not None and self.latest.more_body:
                self._unfinished_body()

    def _ignore_upgrades(self, data: bytes, at: int) -> None:
        """Continues at `at`, after a head with an Upgrade, as if it had none (RFC 9110, 7.8)."""
        while not self.discarding:
            self.upgrading = False
            incoming = self.unfinished()
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
        """The fault of bytes that are not HTTP/1.1; another protocol is named."""
        if self.latest is None:
            protocol = name_protocol(bytes(self.earlier) + self.segment)
            if protocol:
                return f"not HTTP/1.1: {protocol}"
        return f"not HTTP/1.1: {str(error)[:80]}"

    def _unfinished_head(self, data: bytes, *, only_head: bool) -> None:
        """`only_head`: otherwise other requests come first in the data, and how much of it is head is not known."""
        if self.discarding:
            return
        if only_head:
            self.head_bytes += len(data)
        self.earlier += data
        if self.head_bytes > MAX_HEAD:
            self.reject_unparsable(Rejected(Reason.HEADERS_TOO_LARGE, f"the head is larger than {MAX_HEAD} bytes"))
        else:
            self.head_incomplete()

    def _unfinished_body(self) -> None:
        if self._chunks_too_costly(MAX_HEAD):
            self.set_fault(CHUNKS_TOO_COSTLY)
        else:
            self.body_incomplete()

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
                self.set_fault(Rejected(Reason.MALFORMED_REQUEST, "trailer fields after the body"))
            return
        self.names.append(name)
        self.values.append(value)
        if len(self.names) > MAX_FIELDS and not self.discarding:
            self._stop_in_head(Rejected(Reason.HEADERS_TOO_LARGE, f"more than {MAX_FIELDS} header fields"))

    def _stop_in_head(self, rejected: Rejected) -> None:
        """Rejects a request whose head exceeds a limit, and parses no more of it."""
        method = self.parser.get_method().decode("ascii")
        head = RequestHead(method, self.url, self.names, self.values, self.peer)
        self.in_head = False
        self.head_complete()
        self.take_turn(head, rejected, keep_alive=False, http_1_0=False)
        raise StopParsing

    def on_headers_complete(self) -> None:
        if self.discarding:
            return
        self.in_head = False
        self.head_complete()
        parser = self.parser
        version = parser.get_http_version()
        method = parser.get_method()
        head = RequestHead(method.decode("ascii"), self.url, self.names, self.values, self.peer)
        self.body_bytes = self.wire_bytes = 0
        self.upgrading = parser.should_upgrade()
        fault = self._check_head(head, method, version)
        keep_alive = fault is None and version == "1.1" and parser.should_keep_alive()
        self.take_turn(head, fault, keep_alive=keep_alive, http_1_0=version == "1.0")

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
        self.body_complete()
        if self._chunks_too_costly(0):
            self.set_fault(CHUNKS_TOO_COSTLY)
            return
        incoming = self.unfinished()
        incoming.more_body = False
        incoming.has_news = True

    def unfinished(self) -> Incoming:
        """The request that came last, whose body may still be on its way."""
        assert self.latest is not None
        return self.latest

    def _chunks_too_costly(self, of_others: int) -> bool:
        """Whether the framing of the body's chunks is larger than any honest sender needs.

        `of_others`: bytes that may not be this body's.
        """
        if not self.unfinished().head.names.chunked:
            return False
        overhead = self.wire_bytes - self.body_bytes - of_others
        return overhead > CHUNK_OVERHEAD + CHUNK_OVERHEAD_PER_BYTE * self.body_bytes

    def set_fault(self, rejected: Rejected) -> None:
        """Rejects the request whose body is being read: its next `take` raises."""
        self.discarding = True
        incoming = self.unfinished()
        incoming.fault = rejected
        incoming.keep_alive = False
        incoming.has_news = True
