"""The data listener's protocol on a fake transport and a clock set by hand: no sockets, no waiting."""

import gc
import socket
import tracemalloc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httptools
import pytest
from fake_loop import FakeTransport
from fake_server import BODY_SECONDS, HEAD_SECONDS, UNPARSED, Behaviour, Peer, Server, read, read_and_respond, respond

from sidecar.http1.admission import (
    DISCARD_SECONDS,
    DISCARD_STEP,
    KEEP_ALIVE_SECONDS,
    LINGER_SECONDS,
    PATIENCE_SECONDS,
    STRANGER_SECONDS,
    STRANGERS_CHECKED,
    WRITE_SECONDS,
    ConnectionCount,
)
from sidecar.http1.connection import LINGER_BYTES, MOST_LINGER_SECONDS
from sidecar.http1.incoming import Incoming
from sidecar.http1.light_task import Signal
from sidecar.http1.proxy_protocol import UNKNOWN_PEER
from sidecar.http1.request_parser import (
    CHUNK_OVERHEAD,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_TARGET,
    MAX_UNPARSED,
    READ_HIGH_WATER,
    SLICE,
)
from sidecar.outcomes import Reason, Rejected

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CONNECTION_CLOSE = b"connection: close\r\n"


def request(line: bytes = b"GET /a HTTP/1.1", *fields: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((line, b"Host: a", *fields, b"", body))


def response(body: bytes = b"", *, close: bool = False, status: bytes = b"200 OK") -> bytes:
    """The response that `read_and_respond` makes."""
    return b"HTTP/1.1 %b\r\ncontent-length: %d\r\n%b\r\n%b" % (
        status,
        len(body),
        CONNECTION_CLOSE if close else b"",
        body,
    )


async def respond_at_once(incoming: Incoming) -> None:
    respond(incoming, b"early")


async def never_respond(incoming: Incoming) -> None:
    await read(incoming)
    await Signal()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    assert server.loop.reported == []


@pytest.fixture
def peer(server: Server) -> Peer:
    return server.connect()


def reasons(faults: list[Rejected]) -> list[Reason]:
    return [fault.reason for fault in faults]


# Requests and responses


def test_a_request_split_byte_by_byte_is_one_request(server: Server, peer: Peer) -> None:
    raw = request(b"POST /a?b=%20c HTTP/1.1", b"X-One: 1", b"x-Two:  2 \t", b"Content-Length: 3", body=b"abc")
    assert peer.send(*(raw[at : at + 1] for at in range(len(raw)))) == response(b"abc")
    (incoming,) = server.requests
    assert (incoming.head.method, incoming.head.target) == ("POST", b"/a?b=%20c")
    assert list(incoming.head.headers) == [
        (b"Host", b"a"),
        (b"X-One", b"1"),
        (b"x-Two", b"2"),
        (b"Content-Length", b"3"),
    ]
    assert incoming.head.peer == "192.0.2.1"


@pytest.mark.parametrize("raw", [POST, CHUNKED + b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n"], ids=["sized", "chunked"])
def test_a_request_may_be_cut_anywhere(raw: bytes) -> None:
    for at in range(1, len(raw)):
        peer = Server().connect()
        assert peer.send(raw[:at], raw[at:]) == response(b"hello"), raw[:at]
        assert not peer.transport.closed


def test_empty_lines_before_a_request_are_skipped(peer: Peer) -> None:
    assert peer.send(b"\r\n", b"\r\n" + GET) == response()


def test_a_connection_serves_one_request_after_another(server: Server, peer: Peer) -> None:
    assert [peer.send(POST) for _ in range(3)] == [response(b"hello")] * 3
    assert server.ended == ["done"] * 3
    assert (server.open, len(server.connections), len(server.tasks)) == (1, 1, 0)


@pytest.mark.parametrize(
    ("raw", "sized", "expected"),
    [
        (GET, True, b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody"),
        (GET, False, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
        (request(b"HEAD / HTTP/1.1"), True, b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n"),
        (request(b"HEAD / HTTP/1.1"), False, b"HTTP/1.1 200 OK\r\n\r\n"),
        (
            request(b"GET / HTTP/1.0"),
            True,
            b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n" + CONNECTION_CLOSE + b"\r\nbody",
        ),
        (request(b"GET / HTTP/1.0"), False, b"HTTP/1.1 200 OK\r\n" + CONNECTION_CLOSE + b"\r\nbody"),
        (
            request(b"GET / HTTP/1.0", b"Connection: keep-alive"),
            False,
            b"HTTP/1.1 200 OK\r\n" + CONNECTION_CLOSE + b"\r\nbody",
        ),
        (
            request(b"GET / HTTP/1.1", b"Connection: close"),
            False,
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n" + CONNECTION_CLOSE + b"\r\n4\r\nbody\r\n0\r\n\r\n",
        ),
    ],
)
def test_the_framing_of_a_response(server: Server, peer: Peer, raw: bytes, sized: bool, expected: bytes) -> None:
    async def body(incoming: Incoming) -> None:
        incoming.start(200, b"content-length: 4\r\n" if sized else b"", sized=sized, hold=True)
        incoming.write(b"body", more=False)

    server.behaviour = body
    assert peer.send(raw) == expected
    assert peer.transport.closed == (CONNECTION_CLOSE in expected)
    assert not peer.transport.eof  # nothing was unread, so a plain close is enough


@pytest.mark.parametrize("status", [204, 304])
def test_some_statuses_have_no_body(server: Server, peer: Peer, status: int) -> None:
    async def body(incoming: Incoming) -> None:
        incoming.start(status, b"x-a: b\r\n", sized=False, hold=False)
        incoming.write(b"never sent", more=False)

    server.behaviour = body
    head, _, rest = peer.send(GET).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert (b"transfer-encoding" in head, rest) == (False, b"")
    assert not peer.transport.closed


@pytest.mark.parametrize(("status", "line"), [(201, b"HTTP/1.1 201 Created\r\n"), (599, b"HTTP/1.1 599 \r\n")])
def test_the_status_line_has_the_phrase_if_the_status_has_one(
    server: Server, peer: Peer, status: int, line: bytes
) -> None:
    async def body(incoming: Incoming) -> None:
        respond(incoming, status=status)

    server.behaviour = body
    assert peer.send(GET).startswith(line)


def test_a_response_in_pieces_waits_while_the_sender_reads_too_slowly(server: Server, peer: Peer) -> None:
    async def stream(incoming: Incoming) -> None:
        incoming.start(200, b"", sized=False, hold=False)
        for piece in (b"one", b"", b"two"):
            incoming.write(piece, more=True)
            peer.protocol.pause_writing()
            await incoming.writable()
        incoming.write(b"", more=False)

    server.behaviour = stream
    assert peer.send(GET).endswith(b"\r\n\r\n3\r\none\r\n")
    for sent in (b"", b"3\r\ntwo\r\n", b"0\r\n\r\n"):
        peer.protocol.resume_writing()
        server.loop.turn()
        assert peer.transport.take() == sent


def test_100_continue_is_sent_once_and_only_when_the_body_is_wanted(server: Server, peer: Peer) -> None:
    head, body = request(b"POST / HTTP/1.1", b"Expect: 100-continue", b"Content-Length: 5"), b"hello"
    assert peer.send(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert peer.send(body[:2], body[2:]) == response(body)
    assert peer.send(head + body) == response(body)
    server.behaviour = respond_at_once
    assert peer.send(head).startswith(b"HTTP/1.1 200 OK")


def test_100_continue_is_not_sent_to_http_1_0(peer: Peer) -> None:
    assert peer.send(request(b"POST / HTTP/1.0", b"Expect: 100-continue", b"Content-Length: 5")) == b""


def test_an_application_that_ends_without_a_response_closes_the_connection(server: Server, peer: Peer) -> None:
    async def nothing(incoming: Incoming) -> None:
        pass

    server.behaviour = nothing
    assert peer.send(GET) == b""
    assert peer.transport.aborted


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("192.0.2.1", 4000), "192.0.2.1"),
        (("2001:db8::1", 4000, 0, 0), "2001:db8::1"),
        (("::ffff:192.0.2.1", 4000, 0, 0), "192.0.2.1"),  # IPv4 on a dual-stack socket
        (None, UNKNOWN_PEER),  # it was reset before it was accepted
    ],
)
def test_the_peer_is_the_address_of_the_connection(server: Server, name: object, address: str) -> None:
    server.connect(peername=name, socket=SimpleNamespace(family=socket.AF_INET)).send(GET)
    assert server.requests[0].head.peer == address


@pytest.mark.parametrize("name", ["", b"", None])
def test_a_peer_on_a_unix_socket_has_no_address(server: Server, name: object) -> None:
    server.connect(peername=name, socket=SimpleNamespace(family=socket.AF_UNIX)).send(GET)
    assert server.requests[0].head.peer is None


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET6, UNKNOWN_PEER), (socket.AF_UNIX, None)])
def test_a_transport_that_cannot_name_the_peer(server: Server, family: int, address: str | None) -> None:
    class Gone(FakeTransport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            if name == "socket":
                return SimpleNamespace(family=family)
            raise OSError(107, "Transport endpoint is not connected")

    Peer(server, Gone()).send(GET)
    assert server.requests[0].head.peer == address


# Pipelining


def test_pipelined_requests_get_their_responses_in_order(server: Server, peer: Peer) -> None:
    raw = b"".join(
        request(b"POST /%d HTTP/1.1" % number, b"Content-Length: 1", body=b"%d" % number) for number in range(3)
    )
    assert peer.send(raw) == b"".join(response(b"%d" % number) for number in range(3))
    assert [incoming.head.target for incoming in server.requests] == [b"/0", b"/1", b"/2"]
    assert peer.transport.reading


def test_a_pipelined_request_waits_for_the_response_before_it(server: Server, peer: Peer) -> None:
    gate = Signal()

    async def wait(incoming: Incoming) -> None:
        await gate
        respond(incoming)

    server.behaviour = wait
    peer.send(GET * 3)
    assert (len(server.requests), peer.transport.reading) == (1, False)
    for handled in (2, 3, 3):
        gate.set()
        server.loop.turn()
        assert len(server.requests) == handled
    assert peer.transport.take() == response() * 3
    assert peer.transport.reading


def test_reading_resumes_only_when_no_request_waits(server: Server, peer: Peer) -> None:
    gate = Signal()

    async def wait(incoming: Incoming) -> None:
        await gate
        respond(incoming)

    server.behaviour = wait
    peer.send(GET * 4)
    resumed = []
    for _ in range(4):
        resumed.append(peer.transport.reading)
        gate.set()
        server.loop.turn()
    assert resumed == [False, False, False, True]


def test_no_further_request_begins_while_responses_are_unread(server: Server, peer: Peer) -> None:
    peer.protocol.pause_writing()
    assert peer.send(GET * 2) == b""
    assert server.requests == []
    peer.protocol.resume_writing()
    server.loop.turn()
    assert peer.transport.take() == response() * 2


def test_a_response_that_fills_the_buffer_holds_the_next_request_back(server: Server, peer: Peer) -> None:
    async def fill(incoming: Incoming) -> None:
        peer.protocol.pause_writing()
        respond(incoming)

    server.behaviour = fill
    sent = peer.send(GET * 3)
    for handled in (1, 2, 3):
        assert (sent, len(server.requests)) == (response(), handled)
        peer.protocol.resume_writing()
        server.loop.turn()
        sent = peer.transport.take()


def test_requests_after_one_that_closes_the_connection_are_dropped(server: Server, peer: Peer) -> None:
    server.listener.closing = True
    assert peer.send(GET * 3) == response(close=True)
    assert (len(server.requests), peer.transport.closed) == (1, True)


def test_they_are_dropped_even_if_garbage_follows_them(server: Server, peer: Peer) -> None:
    server.listener.closing = True
    assert peer.send(GET * 2 + b"GARBAGE\r\n\r\n") == response(close=True)
    assert (len(server.requests), peer.transport.eof) == (1, True)


@pytest.mark.parametrize("first", [request(b"GET / HTTP/1.1", b"Connection: close"), request(b"GET / HTTP/1.0")])
def test_data_after_a_request_that_closes_is_discarded(server: Server, peer: Peer, first: bytes) -> None:
    """RFC 9112, 9.6. No leniency of the parser is set, so it reports such data, and the close can wait for the sender."""
    assert peer.send(first + GET) == response(close=True)
    assert (len(server.requests), server.unparsed) == (1, [])
    assert peer.transport.eof  # the sender may still be sending
    assert peer.send(GET) == b""


@pytest.mark.parametrize("cut", [0, 7, 61, 90, 143])
def test_no_more_requests_are_parsed_than_wait_for_their_turn(server: Server, peer: Peer, cut: int) -> None:
    gate = Signal()

    async def wait(incoming: Incoming) -> None:
        await gate
        respond(incoming)

    server.behaviour = wait
    many = b"".join(request(b"GET /%d HTTP/1.1" % number) for number in range(500))
    peer.send(*filter(None, [many[:cut], many[cut:]]))
    most = 0
    for handled in range(1, 501):
        assert len(server.requests) == handled
        most = max(most, len(peer.protocol.pipeline))
        assert handled == 500 or not peer.transport.reading
        gate.set()
        server.loop.turn()
    assert most <= 2 * SLICE // len(GET)
    assert [incoming.head.target for incoming in server.requests] == [b"/%d" % number for number in range(500)]
    assert peer.transport.take() == response() * 500
    assert (peer.transport.reading, server.listener.unparsed) == (True, 0)


def test_requests_are_parsed_as_their_responses_are_read(server: Server, peer: Peer) -> None:
    peer.protocol.pause_writing()
    bodies = [bytes([number]) * number for number in range(200)]
    chunk = b"%x\r\n%b\r\n0\r\n\r\n"
    raw = [CHUNKED + chunk % (len(body), body) if body else GET for body in bodies]
    assert peer.send(b"".join(raw)) == b""
    assert server.listener.unparsed > 0
    peer.protocol.resume_writing()
    server.loop.turn()
    assert peer.transport.take() == b"".join(map(response, bodies))


def test_data_that_arrives_although_reading_is_paused_is_kept_in_order(server: Server, peer: Peer) -> None:
    peer.protocol.pause_writing()
    peer.send(GET * 60, POST, POST)
    peer.protocol.resume_writing()
    server.loop.turn()
    assert peer.transport.take() == response() * 60 + response(b"hello") * 2


def test_the_bytes_that_wait_unparsed_are_bounded_over_all_connections(server: Server) -> None:
    peers = []
    for _ in range(3):
        peers.append(server.connect())
        peers[-1].protocol.pause_writing()
        peers[-1].send(GET * (MAX_UNPARSED // 2 // len(GET)))
    assert server.listener.unparsed <= MAX_UNPARSED
    assert [peer.protocol.rest == b"" for peer in peers] == [False, False, True]
    peers[2].protocol.resume_writing()
    server.loop.turn()
    assert peers[2].transport.take().startswith(response())
    assert peers[2].transport.eof, "its last response closes the connection"
    for peer in peers:
        peer.leave()
    assert server.listener.unparsed == 0


def test_a_body_that_is_cut_off_by_that_bound_is_rejected(server: Server, peer: Peer) -> None:
    server.listener.unparsed = MAX_UNPARSED
    peer.protocol.pause_writing()
    large = request(b"POST / HTTP/1.1", b"Content-Length: 9000", body=b"\r\n\r\n" * 2250)
    peer.send(GET + large + GET)
    peer.protocol.resume_writing()
    server.loop.turn()
    assert peer.transport.take() == response() + response(status=b"400 Bad Request", close=True)
    assert reasons(server.faults) == [Reason.OVERLOADED]


def test_a_response_that_closes_can_be_read_although_requests_wait_unparsed(server: Server, peer: Peer) -> None:
    server.listener.closing = True
    assert peer.send(GET * 100) == response(close=True)
    assert (len(server.requests), peer.transport.eof, server.listener.unparsed) == (1, True, 0)


# Upgrades


UPGRADE = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")


@pytest.mark.parametrize(
    ("framed", "body"),
    [
        (request(b"GET / HTTP/1.1", *UPGRADE), b""),
        (request(b"GET / HTTP/1.1", b"Connection: upgrade", b"Upgrade: websocket"), b""),
        (request(b"POST / HTTP/1.1", *UPGRADE, b"Content-Length: 0"), b""),
        (request(b"POST / HTTP/1.1", *UPGRADE, b"Content-Length: 28", body=GET), GET),
        (
            request(b"POST / HTTP/1.1", *UPGRADE, b"Transfer-Encoding: chunked", body=b"1c\r\n%b\r\n0\r\n\r\n" % GET),
            GET,
        ),
    ],
)
def test_an_upgrade_is_ignored(framed: bytes, body: bytes) -> None:
    """RFC 9110, 7.8. Its body must not be read as the next request."""
    for cut in (0, len(framed) // 2, framed.index(b"\r\n\r\n") + 4, framed.index(b"\r\n\r\n") + 2):
        server = Server()
        peer = server.connect()
        raw = framed + POST + framed + framed
        expected = response(body) + response(b"hello") + response(body) * 2
        assert peer.send(*filter(None, [raw[:cut], raw[cut:]])) == expected
        assert peer.send(GET) == response()


def test_an_upgrade_that_closes(server: Server, peer: Peer) -> None:
    raw = request(b"POST / HTTP/1.1", b"Connection: close, upgrade", b"Upgrade: x", b"Content-Length: 2", body=b"{}")
    assert peer.send(raw + GET) == response(b"{}", close=True)
    assert len(server.requests) == 1


def test_the_body_of_an_upgrade_has_the_same_limits(server: Server, peer: Peer) -> None:
    head = request(b"POST / HTTP/1.1", *UPGRADE, b"Transfer-Encoding: chunked")
    peer.send(head + b"1;" + b"e" * 4 * MAX_HEAD, b"\r\nx\r\n")
    assert [fault.detail for fault in server.faults] == ["the framing of the chunks is larger than what they carry"]
    peer = server.connect()
    peer.send(head + b"1\r\nx\r\n0\r\nX-Late: 1\r\n\r\n")
    assert server.faults[-1].detail == "trailer fields after the body"


# Faults


@pytest.mark.parametrize(
    ("raw", "reason", "detail"),
    [
        (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", Reason.MALFORMED_REQUEST, "CONNECT"),
        (b"GET / RTSP/1.0\r\nHost: a\r\n\r\n", Reason.MALFORMED_REQUEST, "request line"),
        (request(b"GET / HTTP/2.0"), Reason.MALFORMED_REQUEST, "HTTP version"),
        (request(b"GET / HTTP/1.1", b"Host: b"), Reason.MALFORMED_REQUEST, "Host"),
        (request(b"GET /%b HTTP/1.1" % (b"a" * MAX_TARGET)), Reason.HEADERS_TOO_LARGE, "target"),
        (request(b"GET / HTTP/1.1", *[b"X: y"] * MAX_FIELDS), Reason.HEADERS_TOO_LARGE, "fields"),
        (request(b"GET / HTTP/1.1", b"X: " + b"y" * MAX_HEAD), Reason.HEADERS_TOO_LARGE, "head is larger"),
        (request(b"GET / HTTP/1.1", b"X:" + b" " * MAX_HEAD + b"y"), Reason.HEADERS_TOO_LARGE, "head is larger"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_head_is_a_fault_of_the_request(
    server: Server, peer: Peer, raw: bytes, reason: Reason, detail: str
) -> None:
    assert peer.send(raw) == response(status=b"400 Bad Request", close=True)
    (fault,) = server.faults
    assert fault.reason is reason
    assert detail in fault.detail
    assert peer.send(GET) == b""
    assert (len(server.requests), server.unparsed) == (1, [])


@pytest.mark.parametrize("after", [b"\x00\x00\r\n\r\n", GET, b"G" * 100], ids=["garbage", "request", "half a head"])
def test_the_first_fault_counts_whatever_follows_it(server: Server, peer: Peer, after: bytes) -> None:
    peer.send(request(b"GET / HTTP/1.1", b"Connection: close", *[b"X: y"] * MAX_FIELDS) + after)
    assert reasons(server.faults) == [Reason.HEADERS_TOO_LARGE]


def test_the_largest_head_that_is_allowed(server: Server, peer: Peer) -> None:
    rest = len(request(b"GET / HTTP/1.1", b"X: "))
    assert peer.send(request(b"GET / HTTP/1.1", b"X: " + b"y" * (MAX_HEAD - rest))) == response()


def test_a_head_that_never_ends_is_rejected_when_it_is_too_large(server: Server, peer: Peer) -> None:
    assert peer.send(b"GET / HTTP/1.1\r\n") == b""
    sent = peer.send(*[b"X: " + b"y" * 1021] * (MAX_HEAD // 1024 + 2))
    assert sent == UNPARSED
    assert [(who, fault.reason) for who, fault in server.unparsed] == [("192.0.2.1", Reason.HEADERS_TOO_LARGE)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b":\r\n", Reason.MALFORMED_REQUEST),
        (b"a:\r\n", Reason.HEADERS_TOO_LARGE),
        (b"a:b\r\n", Reason.HEADERS_TOO_LARGE),
    ],
)
def test_no_more_fields_are_parsed_than_are_allowed(server: Server, peer: Peer, line: bytes, reason: Reason) -> None:
    calls = 0
    on_header = peer.protocol.on_header

    class Counting:
        def on_header(self, name: bytes, value: bytes) -> None:
            nonlocal calls
            calls += 1
            on_header(name, value)

        def __getattr__(self, name: str) -> Any:
            return getattr(peer.protocol, name)

    peer.protocol.parser = httptools.HttpRequestParser(Counting())
    peer.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + line * 60_000)
    assert calls <= MAX_FIELDS + 1
    assert reasons(server.faults or [fault for _, fault in server.unparsed]) == [reason]
    assert peer.transport.eof


def test_a_head_in_small_pieces_takes_as_much_memory_as_its_bytes(peer: Peer) -> None:
    peer.send(b"GET / HTTP/1.1\r\nX: ")
    tracemalloc.start()
    for _ in range(MAX_HEAD // 4):
        peer.protocol.data_received(bytes(bytearray(b"yz")))
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 4 * MAX_HEAD


def test_the_first_segment_of_a_head_counts(server: Server, peer: Peer) -> None:
    peer.send(b"GET / HTTP/1.1\r\nX: " + b"y" * MAX_HEAD)
    assert [fault.reason for _, fault in server.unparsed] == [Reason.HEADERS_TOO_LARGE]


def test_what_comes_before_a_head_in_its_segment_does_not_count(server: Server, peer: Peer) -> None:
    large = request(b"POST / HTTP/1.1", b"Content-Length: %d" % (2 * MAX_HEAD))
    body = bytes(2 * MAX_HEAD)
    for cut in (1, len(large) - 1, len(large), len(large) + 1):
        raw = large + body + GET
        assert peer.send(raw[:cut], raw[cut:-9], raw[-9:]) == response(body) + response()
    assert server.unparsed == []


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"\x16\x03\x01\x05\xa8\x01\x00\x05\xa4\x03\x03", "TLS"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/2"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 4 5\r\n", "proxy_protocol: true"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0", "proxy_protocol: true"),
    ],
)
def test_another_protocol_is_named(raw: bytes, named: str) -> None:
    for cut in (0, 6):
        server = Server()
        server.connect().send(*filter(None, [raw[:cut], raw[cut:]]))
        assert [named in fault.detail for _, fault in server.unparsed] == [True], cut


def test_another_protocol_is_not_named_in_the_middle_of_a_connection(server: Server, peer: Peer) -> None:
    peer.send(GET, b"\x16\x03\x01")
    assert ["TLS" in fault.detail for _, fault in server.unparsed] == [False]


def test_garbage_is_rejected_and_the_connection_closed(server: Server, peer: Peer) -> None:
    assert peer.send(b"\x16\x03\x01\x02\x00\x01") == UNPARSED
    assert (peer.transport.eof, peer.transport.closed) == (True, False)
    assert server.requests == []


def test_a_request_gets_its_response_before_the_garbage_after_it_closes_the_connection(
    server: Server, peer: Peer
) -> None:
    assert peer.send(POST + b"GARBAGE\r\n\r\n") == response(b"hello", close=True)
    assert (peer.transport.eof, server.unparsed) == (True, [])


def test_garbage_after_a_response_gets_a_response_of_its_own(server: Server, peer: Peer) -> None:
    assert peer.send(GET, b"GARBAGE\r\n\r\n") == response() + UNPARSED
    assert peer.transport.eof


def test_trailer_fields_are_rejected(server: Server, peer: Peer) -> None:
    trailer = b"X-Signature: forged\r\n"
    peer.send(CHUNKED + b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n")
    assert [fault.detail for fault in server.faults] == ["trailer fields after the body"]
    assert server.requests[0].head.values(b"x-signature") == ()


def test_an_error_in_the_body_is_a_fault_of_its_request(server: Server, peer: Peer) -> None:
    assert peer.send(CHUNKED + b"5\r\nhe", b"llo\r\nnot a size\r\n").startswith(b"HTTP/1.1 400")
    assert reasons(server.faults) == [Reason.MALFORMED_REQUEST]
    assert server.unparsed == []


def test_the_framing_of_chunks_may_cost_a_bounded_number_of_bytes(server: Server, peer: Peer) -> None:
    chunk = b"1;" + b"e" * 100 + b"\r\nx\r\n"
    few = CHUNK_OVERHEAD // len(chunk)
    assert peer.send(CHUNKED + chunk * few + b"0\r\n\r\n") == response(b"x" * few)
    large = bytes(READ_HIGH_WATER)  # one request's body allows nothing to the next one
    assert peer.send(CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(large), large)) == response(large)
    assert peer.send(CHUNKED + chunk * few * 2 + b"0\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert [fault.detail for fault in server.faults] == ["the framing of the chunks is larger than what they carry"]


def test_the_framing_of_chunks_is_bounded_before_the_body_ends(server: Server, peer: Peer) -> None:
    server.behaviour = never_respond
    peer.send(CHUNKED)
    sent = 0
    while not server.faults and sent < 1 << 20:
        peer.send(b"1;" + b"e" * 1000 + b"\r\nx\r\n")
        sent += 1008
    assert reasons(server.faults) == [Reason.MALFORMED_REQUEST]
    assert sent < 2 * (CHUNK_OVERHEAD + MAX_HEAD)


def test_honest_small_chunks_pass(peer: Peer) -> None:
    assert peer.send(CHUNKED + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n") == response(b"x" * 20_000)


def test_small_pieces_of_a_body_are_joined(server: Server, peer: Peer) -> None:
    pieces = []

    async def count(incoming: Incoming) -> None:
        while incoming.more_body:
            await incoming.news()
        pieces.append(len(incoming.pieces))
        respond(incoming, await read(incoming))

    server.behaviour = count
    body = b"".join(b"%04d" % number for number in range(3000))
    chunks = b"".join(b"4\r\n" + body[at : at + 4] + b"\r\n" for at in range(0, len(body), 4))
    assert peer.send(CHUNKED, chunks, b"0\r\n\r\n") == response(body)
    assert pieces[0] < 5


# Flow control


def test_reading_pauses_while_the_application_does_not_take_the_body(server: Server, peer: Peer) -> None:
    gate = Signal()

    async def wait(incoming: Incoming) -> None:
        await gate
        respond(incoming, b"%d" % len(await read(incoming)))

    server.behaviour = wait
    size = 2 * READ_HIGH_WATER + 1
    peer.send(request(b"POST / HTTP/1.1", b"Content-Length: %d" % size), bytes(READ_HIGH_WATER))
    assert peer.transport.is_reading()
    peer.send(b"x")
    assert not peer.transport.is_reading()
    gate.set()
    server.loop.turn()
    assert peer.transport.is_reading()
    assert peer.send(bytes(READ_HIGH_WATER)) == response(b"%d" % size)


# Early responses


def test_an_early_response_lingers_so_that_the_sender_can_read_it(server: Server, peer: Peer) -> None:
    server.behaviour = respond_at_once
    assert peer.send(POST[:-2]) == response(b"early", close=True)
    assert (peer.transport.eof, peer.transport.closed) == (True, False)
    assert server.open == 0  # a connection that is only being closed doesn't count
    assert peer.send(b"lo" + GET) == b""
    peer.wait(LINGER_SECONDS - 0.1)
    assert not peer.transport.closed
    peer.wait(LINGER_SECONDS + 0.2)  # it still sent within the first period
    assert peer.transport.aborted
    peer.leave()
    assert server.open == 0


def test_after_an_early_response_a_large_body_is_read_and_discarded(server: Server, peer: Peer) -> None:
    server.behaviour = respond_at_once
    part = bytes(READ_HIGH_WATER + 1)
    peer.send(request(b"POST / HTTP/1.1", b"Content-Length: %d" % (2 * len(part)), body=part))
    assert peer.transport.reading
    assert server.requests[0].pieces == []


def test_a_sender_that_never_stops_is_cut_off_after_a_while(server: Server, peer: Peer) -> None:
    server.behaviour = respond_at_once
    peer.send(POST[:-2])
    began = server.loop.now
    while not peer.transport.aborted:
        peer.send(b"x")
        peer.wait(1.0)
        assert server.loop.now < began + 2 * MOST_LINGER_SECONDS
    assert MOST_LINGER_SECONDS <= server.loop.now - began <= MOST_LINGER_SECONDS + LINGER_SECONDS + 1


def test_a_sender_that_sends_too_much_is_cut_off_at_once(server: Server, peer: Peer) -> None:
    server.behaviour = respond_at_once
    peer.send(POST[:-2])
    segment = bytes(1 << 20)
    for _ in range(LINGER_BYTES // len(segment)):
        peer.send(segment)
        peer.wait(DISCARD_SECONDS)
    assert not peer.transport.aborted
    peer.send(b"x")
    assert peer.transport.aborted


def test_bytes_that_nobody_wants_are_read_with_pauses(server: Server, peer: Peer) -> None:
    server.behaviour = respond_at_once
    peer.send(POST[:-2])
    reading = []
    for _ in range(6):
        peer.send(bytes(DISCARD_STEP // 2))
        reading.append(peer.transport.reading)
        peer.wait(DISCARD_SECONDS)
    assert reading == [True, False] * 3
    peer.send(bytes(DISCARD_STEP))
    peer.leave()
    peer.wait(DISCARD_SECONDS)
    assert not peer.transport.reading  # nothing is done to a transport that is gone


def test_no_more_connections_linger_than_are_allowed_open() -> None:
    server = Server(max_connections=2)
    server.behaviour = respond_at_once
    peers = []
    for _ in range(3):
        peers.append(server.connect())
        peers[-1].send(POST[:-2])
        peers[-1].wait(0.1)
    assert [peer.transport.aborted for peer in peers] == [True, False, False]


# Deadlines


def test_a_connection_that_sends_nothing_is_closed_without_a_response(server: Server, peer: Peer) -> None:
    peer.wait(HEAD_SECONDS - 0.1)
    assert not peer.transport.closed
    assert peer.wait(0.2) == b""
    assert (peer.transport.closed, server.unparsed) == (True, [])


def test_a_head_must_be_complete_in_time_however_it_drips(server: Server, peer: Peer) -> None:
    for number in range(9):
        assert peer.send(GET[number : number + 1]) == b""
        assert peer.wait(1.0) == b""
    assert peer.wait(1.1) == UNPARSED
    assert [fault.reason for _, fault in server.unparsed] == [Reason.HEADER_TIMEOUT]


def test_the_head_of_a_later_request_has_a_deadline_as_well(server: Server, peer: Peer) -> None:
    peer.send(GET)
    peer.wait(HEAD_SECONDS * 2)
    peer.send(GET[:9])
    assert peer.wait(HEAD_SECONDS - 0.1) == b""
    assert peer.wait(0.2) == UNPARSED


def test_a_body_must_be_complete_in_time_however_it_drips(server: Server, peer: Peer) -> None:
    peer.send(request(b"POST / HTTP/1.1", b"Content-Length: 99"))
    for _ in range(29):
        peer.send(b"x")
        assert peer.wait(1.0) == b""
    assert peer.wait(1.1).startswith(b"HTTP/1.1 400")
    assert reasons(server.faults) == [Reason.BODY_TIMEOUT]


def test_a_body_in_the_pipeline_has_its_full_time_from_its_turn_on(server: Server, peer: Peer) -> None:
    gate = Signal()

    async def wait(incoming: Incoming) -> None:
        if incoming.head.method == "GET":
            await gate
        respond(incoming, await read(incoming))

    server.behaviour = wait
    peer.send(GET + POST[:-2])
    peer.wait(2 * BODY_SECONDS)
    gate.set()
    server.loop.turn()
    peer.wait(BODY_SECONDS - 0.1)
    assert server.faults == []
    peer.wait(0.2)
    assert reasons(server.faults) == [Reason.BODY_TIMEOUT]


def test_no_deadline_runs_while_the_application_works(server: Server, peer: Peer) -> None:
    server.behaviour = never_respond
    peer.send(POST[:9], POST[9:-2], POST[-2:])
    assert peer.wait(1000.0) == b""
    assert (server.requests[0].fault, peer.transport.closed) == (None, False)


def test_a_sender_that_does_not_read_is_cut_off(server: Server, peer: Peer) -> None:
    peer.send(GET)
    peer.protocol.pause_writing()
    peer.wait(1.0)
    peer.protocol.resume_writing()
    peer.wait(WRITE_SECONDS)
    peer.protocol.pause_writing()
    peer.wait(WRITE_SECONDS - 0.1)
    assert not peer.transport.closed
    peer.wait(0.2)
    assert peer.transport.aborted


def test_a_response_that_is_unread_when_the_connection_closes_has_a_deadline(server: Server, peer: Peer) -> None:
    peer.transport.unsent = 1
    peer.send(request(b"GET / HTTP/1.1", b"Connection: close"))
    assert (peer.transport.closed, peer.transport.aborted) == (True, False)
    peer.wait(WRITE_SECONDS + 0.1)
    assert peer.transport.aborted


def test_an_unused_connection_is_closed_after_one_to_two_times_its_keep_alive_time(server: Server, peer: Peer) -> None:
    peer.wait(1.0)
    peer.send(GET)
    peer.wait(KEEP_ALIVE_SECONDS * 0.9)
    peer.send(GET)
    peer.wait(KEEP_ALIVE_SECONDS)
    assert not peer.transport.closed
    peer.wait(KEEP_ALIVE_SECONDS * 0.2)
    assert (peer.transport.closed, peer.transport.eof) == (True, False)


def test_a_connection_in_use_is_not_closed_by_the_keep_alive_time(server: Server, peer: Peer) -> None:
    peer.send(GET)
    server.behaviour = never_respond
    peer.send(POST)
    peer.wait(10 * KEEP_ALIVE_SECONDS)
    assert not peer.transport.closed


def test_empty_lines_do_not_keep_a_connection_open(peer: Peer) -> None:
    peer.send(GET)
    for _ in range(3):
        peer.wait(KEEP_ALIVE_SECONDS / 2)
        peer.send(b"\r\n")
    peer.wait(KEEP_ALIVE_SECONDS)
    assert peer.transport.closed


# The limit of connections


@pytest.fixture
def full() -> Server:
    return Server(max_connections=1)


def test_a_new_connection_replaces_a_slow_head(full: Server) -> None:
    slow = full.connect()
    slow.send(GET[:9])
    assert slow.wait(1.0) == b""
    assert full.connect().send(GET) == response()
    assert slow.transport.take() == UNPARSED
    assert [fault.reason for _, fault in full.unparsed] == [Reason.OVERLOADED]
    assert full.open == 1


def test_a_new_connection_replaces_a_slow_body(full: Server) -> None:
    slow = full.connect()
    slow.send(POST[:-2])
    slow.wait(1.0)
    assert full.connect().send(GET) == response()
    assert reasons(full.faults) == [Reason.OVERLOADED]
    assert slow.transport.take().startswith(b"HTTP/1.1 400")


def test_a_new_connection_replaces_an_unused_one(full: Server) -> None:
    unused = full.connect()
    unused.send(GET)
    unused.wait(1.0)
    assert full.connect().send(GET) == response()
    assert unused.transport.closed


@pytest.mark.parametrize("waiting", [GET, GET * 100, GET + POST[:9]], ids=["one", "many", "a head"])
def test_a_new_connection_replaces_one_whose_responses_are_unread(full: Server, waiting: bytes) -> None:
    async def fill(incoming: Incoming) -> None:
        respond(incoming)
        stalled.protocol.pause_writing()

    stalled = full.connect()
    full.behaviour = fill
    stalled.send(waiting)
    stalled.wait(1.0)
    full.behaviour = read_and_respond
    assert full.connect().send(GET) == response()
    assert stalled.transport.aborted
    stalled.leave()
    assert full.open == 1


def test_a_response_that_nobody_reads_makes_no_room_once_its_connection_is_not_counted(full: Server) -> None:
    early = full.connect()
    early.transport.unsent = 1
    early.protocol.pause_writing()
    full.behaviour = respond_at_once
    early.protocol.resume_writing()
    early.send(POST[:-2])
    early.protocol.pause_writing()
    full.behaviour = never_respond
    assert full.connect().send(POST) == b""
    early.wait(1.0)
    assert full.connect().transport.take() == UNPARSED
    assert full.open == 1


@pytest.mark.parametrize("slow", [GET[:9], POST[:-2]], ids=["head", "body"])
def test_a_connection_makes_room_only_once(full: Server, slow: bytes) -> None:
    first = full.connect()
    first.send(slow)
    first.wait(1.0)
    full.behaviour = never_respond
    assert full.connect().send(POST) == b""
    first.wait(1.0)
    assert full.connect().transport.take() == UNPARSED
    assert full.open == 1


def test_the_connection_that_has_waited_longest_is_replaced() -> None:
    server = Server(max_connections=2)
    first = server.connect()
    first.send(GET[:9])
    first.wait(1.0)
    second = server.connect()
    second.send(GET)
    second.wait(1.0)
    server.connect()
    assert (first.transport.eof, second.transport.closed) == (True, False)


def test_a_complete_request_is_never_replaced(full: Server) -> None:
    full.behaviour = never_respond
    busy = full.connect()
    busy.send(POST)
    busy.wait(100.0)
    rejected = full.connect()
    assert rejected.transport.take() == UNPARSED
    assert [fault.reason for _, fault in full.unparsed] == [Reason.OVERLOADED]
    assert (rejected.transport.eof, busy.transport.closed, full.open) == (True, False, 1)


def test_a_part_of_the_limit_is_reserved_for_each_process() -> None:
    cells, others = [0.0], [[0.0], [900.0]]
    count = ConnectionCount(cells, 0, others)
    count.add(16)  # a third of a quarter is reserved for the process that has none
    assert count.fits(1000)
    count.add(1)
    assert not count.fits(1000)
    others[0][0] = 2.0
    assert not count.fits(1000)
    others[1][0] = 10.0
    assert count.fits(1000)


def test_a_connection_that_has_just_begun_is_not_replaced(full: Server) -> None:
    new = full.connect()
    new.wait(STRANGER_SECONDS - 0.01)
    assert full.connect().transport.take() == UNPARSED
    assert not new.transport.closed


async def recognize(incoming: Incoming) -> None:
    incoming.recognize()
    await read_and_respond(incoming)


def test_a_stranger_does_not_keep_its_place_by_being_busy(full: Server) -> None:
    busy = full.connect()
    for _ in range(10):
        busy.wait(0.01)
        busy.send(GET)
    assert full.connect().send(GET) == response()
    assert busy.transport.closed
    busy.leave()
    assert full.open == 1


def test_a_connection_that_carried_something_genuine_keeps_its_place_for_a_moment(full: Server) -> None:
    full.behaviour = recognize
    known = full.connect()
    known.wait(1.0)
    known.send(GET)
    known.wait(PATIENCE_SECONDS - 0.01)
    rejected = full.connect()
    assert rejected.transport.take() == UNPARSED
    rejected.leave()
    assert not known.transport.closed
    known.wait(0.02)
    assert full.connect().send(GET) == response()
    assert known.transport.closed


def test_the_oldest_stranger_makes_room_before_a_slow_delivery_on_a_known_connection() -> None:
    server = Server(max_connections=3)
    server.behaviour = recognize
    known = server.connect()
    known.send(GET)
    server.behaviour = read_and_respond
    older, newer = server.connect(), server.connect()
    known.wait(1.0)
    known.send(POST[:-2])
    for stranger in (newer, older):
        stranger.send(GET)
    known.wait(0.5)
    for stranger in (newer, older):
        stranger.send(GET)
    server.connect()
    assert [each.transport.closed for each in (known, older, newer)] == [False, True, False]


def test_strangers_whose_requests_are_being_handled_are_passed_over_and_not_checked_again() -> None:
    count = 3 * STRANGERS_CHECKED
    server = Server(max_connections=count)
    server.behaviour = never_respond
    handled = [server.connect() for _ in range(count - 1)]
    for each in handled:
        each.send(POST)
    waiting = server.connect()
    waiting.wait(STRANGER_SECONDS + 0.01)
    assert [server.connect().transport.take() for _ in range(2)] == [UNPARSED] * 2
    assert server.connect().transport.take() == b""
    assert waiting.transport.take() == UNPARSED
    assert not any(each.transport.writes for each in handled)


# The PROXY header

PROXY = b"PROXY TCP4 203.0.113.9 192.0.2.9 1 2\r\n"


@pytest.fixture
def proxied(server: Server) -> Peer:
    server.listener.wants_proxy_header = lambda peer: peer == "192.0.2.1"
    return server.connect()


def test_a_proxy_header_names_the_peer(server: Server, proxied: Peer) -> None:
    raw = PROXY + GET + GET
    assert proxied.send(*(raw[at : at + 1] for at in range(len(raw)))) == response() * 2
    assert [incoming.head.peer for incoming in server.requests] == ["203.0.113.9"] * 2


def test_other_peers_send_no_proxy_header(server: Server, proxied: Peer) -> None:
    other = server.connect(peername=("192.0.2.7", 1))
    assert other.send(GET) == response()
    assert other.send(PROXY + GET) == UNPARSED


def test_a_connection_without_the_proxy_header_is_rejected(server: Server, proxied: Peer) -> None:
    assert proxied.send(GET) == UNPARSED
    ((who, fault),) = server.unparsed
    assert (who, fault.reason) == ("192.0.2.1", Reason.MALFORMED_REQUEST)


def test_the_proxy_header_counts_for_the_head_deadline(server: Server, proxied: Peer) -> None:
    proxied.send(PROXY[:-2])
    proxied.wait(HEAD_SECONDS + 0.1)
    assert (proxied.transport.closed, server.unparsed) == (True, [])


# The end of a connection


def test_a_sender_that_leaves_in_its_body_ends_the_request(server: Server, peer: Peer) -> None:
    peer.send(POST[:-2])
    peer.leave()
    assert reasons(server.faults) == [Reason.BODY_INCOMPLETE]
    assert peer.transport.take() == b""
    assert not peer.transport.aborted


def test_a_sender_that_leaves_after_its_body_cancels_the_request(server: Server, peer: Peer) -> None:
    server.behaviour = never_respond
    peer.send(POST)
    peer.leave(ConnectionResetError())
    assert server.ended == ["cancelled"]
    assert server.requests[0].disconnected


@pytest.mark.parametrize(("raw", "ended"), [(GET, "cancelled"), (POST[:-2], "done")])
def test_a_sender_that_leaves_while_its_response_waits_ends_the_wait(
    server: Server, peer: Peer, raw: bytes, ended: str
) -> None:
    async def stream(incoming: Incoming) -> None:
        incoming.start(200, b"", sized=False, hold=False)
        peer.protocol.pause_writing()
        await incoming.writable()

    server.behaviour = stream
    peer.send(raw)
    assert server.ended == []
    peer.leave()
    assert server.ended == [ended]


@pytest.mark.parametrize(
    "raw", [b"", GET[:9], GET, POST[:-2], POST + GET[:9], GET * 3, b"GARBAGE\r\n\r\n", CHUNKED + b"5\r\nhel"]
)
@pytest.mark.parametrize("behaviour", [read_and_respond, respond_at_once, never_respond])
def test_a_closed_connection_leaves_nothing(server: Server, behaviour: Behaviour, raw: bytes) -> None:
    server.behaviour = behaviour
    gc.collect()
    gc.disable()
    try:
        peer = server.connect()
        peer.send(raw)
        peer.leave()
        freed = weakref.ref(peer.transport)
        server.requests.clear()
        server.faults.clear()
        server.unparsed.clear()
        assert (server.open, server.connections, server.tasks) == (0, set(), set())
        assert not any(len(queue) for queue in server.deadlines.all)
        del peer
        assert freed() is None, "it would wait for the garbage collector"
    finally:
        gc.enable()


# Shutdown


def test_shutdown_closes_unused_connections(server: Server, peer: Peer) -> None:
    unused = server.connect()
    unused.send(GET)
    for each in (peer, unused):
        each.protocol.shutdown()
        assert (each.transport.closed, each.transport.aborted) == (True, False)


def test_shutdown_lets_a_request_in_flight_end(server: Server, peer: Peer) -> None:
    gate = Signal()

    async def wait(incoming: Incoming) -> None:
        await gate
        respond(incoming, b"done")

    server.behaviour = wait
    peer.send(POST)
    peer.protocol.shutdown()
    assert not peer.transport.closed
    gate.set()
    server.loop.turn()
    assert peer.transport.take() == response(b"done", close=True)
    assert peer.transport.closed


def test_shutdown_shortens_the_time_in_which_a_response_is_read(server: Server, peer: Peer) -> None:
    server.behaviour = respond_at_once
    peer.send(POST[:-2])
    peer.protocol.shutdown()
    began = server.loop.now
    while not peer.transport.aborted:
        peer.send(b"x")
        peer.wait(1.0)
        assert server.loop.now < began + MOST_LINGER_SECONDS
    assert server.loop.now - began <= 2 * LINGER_SECONDS


def test_while_the_listener_closes_responses_close_their_connections(server: Server, peer: Peer) -> None:
    peer.send(GET)
    server.listener.closing = True
    assert peer.send(GET) == response(close=True)
    assert peer.transport.closed
