"""Senders that are slow, rude, broken or hostile: each is answered or cut off, nothing of it reaches the receiver."""

import contextlib
import os
import threading
import time

import pytest
from client import Response
from craft import Craft
from receiver import Peer, Receiver, Script, held
from sidecar_process import Sidecar, Start
from waiting import WaitUntil

CONFIG = {
    "limits": {"body": "1MiB", "buffer": "2MiB", "connections": 12, "header_timeout": "500ms", "body_timeout": "600ms"},
    "timeouts": {"response": "3s", "total": "6s"},
}
MEBIBYTE = 1 << 20


def refused_and_closed(
    sidecar: Sidecar, raw: bytes, status: int, reason: str, *, receiver: Receiver, route: str | None = ""
) -> Response:
    """Sends what must be refused; the answer says that the connection closes, and it does."""
    mark = sidecar.mark()
    with sidecar.connect() as client:
        answer = client.try_send(raw).answer()
        assert answer.values(b"connection") == [b"close"], answer
        assert client.rest() == b""
        assert not client.was_reset
    sidecar.was_refused(answer, status, reason, route=route, receiver=receiver, mark=mark)
    return answer


# Framing: what two parsers could read in two ways


def head(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


P, H = b"POST /webhooks/begini HTTP/1.1", b"Host: hooks.test"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(head(P, H, b"Host: other", b"Content-Length: 0"), id="two Hosts"),
        pytest.param(head(P, b"Content-Length: 0"), id="no Host"),
        pytest.param(head(P, b"Host: a b", b"Content-Length: 0"), id="blank in Host"),
        pytest.param(head(P, b"Host: user@hooks.test", b"Content-Length: 0"), id="userinfo in Host"),
        pytest.param(head(P, b"Host: hooks.test/x", b"Content-Length: 0"), id="path in Host"),
        pytest.param(head(P, b"Host: hooks.test,other", b"Content-Length: 0"), id="list in Host"),
        pytest.param(head(P, H, b"Content-Length: 3", b"Transfer-Encoding: chunked") + b"0\r\n\r\n", id="CL and TE"),
        pytest.param(head(P, H, b"Transfer-Encoding: chunked", b"Content-Length: 3") + b"0\r\n\r\n", id="TE and CL"),
        pytest.param(head(P, H, b"Content-Length: 3", b"Content-Length: 3") + b"abc", id="CL twice"),
        pytest.param(head(P, H, b"Content-Length: 3", b"Content-Length: 0") + b"abc", id="two CLs"),
        pytest.param(head(P, H, b"Content-Length: 3, 3") + b"abc", id="CL list"),
        pytest.param(head(P, H, b"Content-Length: +3") + b"abc", id="CL with a sign"),
        pytest.param(head(P, H, b"Content-Length: -1"), id="negative CL"),
        pytest.param(head(P, H, b"Content-Length: 0x3") + b"abc", id="hexadecimal CL"),
        pytest.param(head(P, H, b"Content-Length: 3 3") + b"abc", id="CL with a blank"),
        pytest.param(head(P, H, b"Content-Length:"), id="empty CL"),
        pytest.param(head(P, H, b"Content-Length: 1e1"), id="CL with an exponent"),
        pytest.param(head(P, H, b"Content-Length: \xb2"), id="CL superscript"),
        pytest.param(head(P, H, b"Content-Length: 99999999999999999999"), id="overflowing CL"),
        pytest.param(head(P, H, b"Content_Length: 3"), id="Content_Length"),
        pytest.param(head(P, H, b"Transfer_Encoding: chunked", b"Content-Length: 0"), id="Transfer_Encoding"),
        pytest.param(head(P, H, b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n", id="TE gzip, chunked"),
        pytest.param(head(P, H, b"Transfer-Encoding: ,chunked") + b"0\r\n\r\n", id="TE ,chunked"),
        pytest.param(head(P, H, b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n", id="TE chunked twice"),
        pytest.param(head(P, H, b"Transfer-Encoding: identity"), id="TE identity"),
        pytest.param(head(P, H, b"Transfer-Encoding: xchunked") + b"0\r\n\r\n", id="TE xchunked"),
        pytest.param(head(P, H, b"Transfer-Encoding:\x0bchunked") + b"0\r\n\r\n", id="TE vertical tab"),
        pytest.param(
            head(P, H, b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity") + b"0\r\n\r\n", id="two TEs"
        ),
        pytest.param(head(P[:-1] + b"0", H, b"Transfer-Encoding: chunked") + b"0\r\n\r\n", id="TE in HTTP/1.0"),
        pytest.param(head(P, H, b"Content-Length : 3") + b"abc", id="blank before the colon"),
        pytest.param(head(P, H, b" Content-Length: 3") + b"abc", id="folded line"),
        pytest.param(head(P, H, b"X-A: a\r\n folded", b"Content-Length: 0"), id="obs-fold"),
        pytest.param(head(P, H, b"X-A: a\0", b"Content-Length: 0"), id="NUL in a value"),
        pytest.param(head(P, H, b"X-A: a\x07b", b"Content-Length: 0"), id="control character in a value"),
        pytest.param(head(P, H, b"X\0A: a", b"Content-Length: 0"), id="NUL in a name"),
        pytest.param(head(P, H, b"X-\xc3\xa9: a", b"Content-Length: 0"), id="name above ASCII"),
        pytest.param(head(P, H, b": a", b"Content-Length: 0"), id="empty name"),
        pytest.param(head(P, H, b"no colon", b"Content-Length: 0"), id="no colon"),
        pytest.param(b"POST /webhooks/begini HTTP/1.1\nHost: hooks.test\nContent-Length: 0\n\n", id="bare LF"),
        pytest.param(P + b"\r\nHost: hooks.test\rContent-Length: 0\r\n\r\n", id="bare CR"),
        pytest.param(head(P + b" ", H, b"Content-Length: 0"), id="blank behind the version"),
        pytest.param(head(b"POST /webhooks/begini", H, b"Content-Length: 0"), id="HTTP/0.9"),
        pytest.param(head(b"POST /webhooks/begini HTTP/2.0", H, b"Content-Length: 0"), id="HTTP/2.0"),
        pytest.param(head(b"POST /webhooks/begini HTTP/1.2", H, b"Content-Length: 0"), id="HTTP/1.2"),
        pytest.param(head(b"POST /webhooks/begini HTTP/0.9", H, b"Content-Length: 0"), id="HTTP/0.9 spelled out"),
        pytest.param(head(b"POST /webhooks/begini http/1.1", H, b"Content-Length: 0"), id="http/1.1"),
        pytest.param(head(b"POST /webhooks/begini RTSP/1.0", H, b"Content-Length: 0"), id="RTSP"),
        pytest.param(head(b"POST /webhooks/begini RTSP/1.1", H, b"Content-Length: 0"), id="RTSP/1.1"),
        pytest.param(
            head(b"POST /webhooks/begini RTSP/1.0", H, b"Content-Length: 11") + b" HTTP/1.0\r\n",
            id="RTSP, HTTP in the body",
        ),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2 preface"),
        pytest.param(
            b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n" + head(P, H, b"Content-Length: 0"), id="PROXY protocol"
        ),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), id="TLS"),
        pytest.param(b"\0" * 100, id="NULs"),
        pytest.param(head(b"post /webhooks/begini HTTP/1.1", H, b"Content-Length: 0"), id="lower-case method"),
        pytest.param(head(b"POST\t/webhooks/begini HTTP/1.1", H, b"Content-Length: 0"), id="tab behind the method"),
        pytest.param(
            head(b"POST http://hooks.test/webhooks/begini HTTP/1.1", H, b"Content-Length: 0"), id="absolute-form"
        ),
        pytest.param(
            head(b"POST //hooks.test@evil/webhooks/begini# HTTP/1.1", H, b"Content-Length: 0"),
            id="fragment and authority",
        ),
        pytest.param(head(b"POST /webhooks/begini#x HTTP/1.1", H, b"Content-Length: 0"), id="fragment"),
        pytest.param(
            head(b"POST /webhooks/begini?a#x HTTP/1.1", H, b"Content-Length: 0"), id="fragment behind a query"
        ),
        pytest.param(head(b"POST /webhooks/b\xc3\xa9gini HTTP/1.1", H, b"Content-Length: 0"), id="target above ASCII"),
        pytest.param(head(b"POST /webhooks/begini\x7f HTTP/1.1", H, b"Content-Length: 0"), id="DEL in the target"),
        pytest.param(head(b"POST webhooks/begini HTTP/1.1", H, b"Content-Length: 0"), id="relative target"),
        pytest.param(head(b"POST * HTTP/1.1", H, b"Content-Length: 0"), id="asterisk-form"),
        pytest.param(head(b"CONNECT hooks.test:443 HTTP/1.1", H), id="CONNECT"),
        pytest.param(
            head(b"CONNECT /webhooks/begini HTTP/1.1", H, b"Content-Length: 3") + b"abc", id="CONNECT with a path"
        ),
    ],
)
def test_a_malformed_request_is_400_and_the_connection_closes(sidecar: Sidecar, receiver: Receiver, raw: bytes) -> None:
    answer = refused_and_closed(sidecar, raw, 400, "malformed_request", receiver=receiver)
    assert answer.body == b'{"detail":"Bad Request"}'


def test_an_upgrade_cannot_smuggle_its_body_as_the_next_request(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    inner = craft.begini()
    raw = craft.begini(inner, headers=[(b"Connection", b"Upgrade"), (b"Upgrade", b"h2c")])
    with sidecar.connect() as client:
        cut = raw.index(b"\r\n\r\n") + 4
        client.send(raw[:cut])
        time.sleep(0.05)
        client.send(raw[cut:])
        assert client.answer().status == 200
        assert client.send(craft.begini(b"next")).answer().status == 200
    assert [seen.body for seen in receiver.requests] == [inner, b"next"]
    assert receiver.requests[0].values(b"upgrade") == []


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param(b"0x5\r\nhello\r\n0\r\n\r\n", id="0x"),
        pytest.param(b"+5\r\nhello\r\n0\r\n\r\n", id="sign"),
        pytest.param(b"-5\r\nhello\r\n0\r\n\r\n", id="negative"),
        pytest.param(b"5_0\r\nhello\r\n0\r\n\r\n", id="underscore"),
        pytest.param(b"\r\nhello\r\n0\r\n\r\n", id="no size"),
        pytest.param(b"5\nhello\n0\n\n", id="bare LF"),
        pytest.param(b"5\r\nhello0\r\n\r\n", id="no end of chunk"),
        pytest.param(b"5\r\nhelloXX0\r\n\r\n", id="another end of chunk"),
        pytest.param(b"5 \r\nhello\r\n0\r\n\r\n", id="blank behind the size"),
        pytest.param(b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n", id="overflow"),
        pytest.param(b"5;a\rb\r\nhello\r\n0\r\n\r\n", id="CR in an extension"),
        pytest.param(b"5;a\nb\r\nhello\r\n0\r\n\r\n", id="LF in an extension"),
        pytest.param(b"5\r\nhello\r\n0\r\nX-Signature: x\r\n\r\n", id="trailer"),
        pytest.param(b"5\r\nhello\r\n0\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n", id="address in a trailer"),
        pytest.param(b"1;" + b"x" * 600_000 + b"\r\nh\r\n4\r\nello\r\n0\r\n\r\n", id="endless extension"),
        pytest.param(
            b"".join(b"1;%b\r\nx\r\n" % (b"e" * 200) for _ in range(4000)) + b"0\r\n\r\n", id="more framing than body"
        ),
    ],
)
def test_a_malformed_chunked_body_is_400(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], chunks: bytes
) -> None:
    fields = [(b"X-Signature", craft.mac("BEGINI_API_KEY", b"hello")), (b"Transfer-Encoding", b"chunked")]
    raw = craft.request(headers=fields) + chunks
    refused_and_closed(sidecar, raw, 400, "malformed_request", receiver=receiver, route=None)


def test_a_signature_in_the_trailer_only_is_refused(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    made = craft.mac("BEGINI_API_KEY", b"hello")
    raw = (
        craft.request(headers=[(b"Transfer-Encoding", b"chunked")])
        + b"5\r\nhello\r\n0\r\nX-Signature: "
        + made
        + b"\r\n\r\n"
    )
    with sidecar.connect() as client:
        assert client.send(raw).answer().status in (400, 403)
    assert receiver.bytes_seen == 0


# Sizes


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(head(P, H, b"X-Big: " + b"a" * 70_000, b"Content-Length: 0"), id="one large field"),
        pytest.param(
            head(P, H, *[b"X-%d: %b" % (n, b"a" * 1000) for n in range(100)], b"Content-Length: 0"), id="many fields"
        ),
        pytest.param(head(P, H, *[b"X-%d: a" % n for n in range(250)], b"Content-Length: 0"), id="too many fields"),
        pytest.param(P + b"\r\n" + H + b"\r\nX-Endless: " + b"a" * 400_000, id="endless field"),
        pytest.param(head(P, H, b"X-Blank:" + b" " * 70_000 + b"a", b"Content-Length: 0"), id="blanks"),
    ],
)
def test_a_giant_head_is_431(sidecar: Sidecar, receiver: Receiver, raw: bytes) -> None:
    refused_and_closed(sidecar, raw, 431, "headers_too_large", receiver=receiver)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(
            head(b"POST /webhooks/begini?" + b"q" * 20_000 + b" HTTP/1.1", H, b"Content-Length: 0"), id="long"
        ),
        pytest.param(b"POST /" + b"a" * 400_000, id="endless"),
    ],
)
def test_a_long_target_is_414(sidecar: Sidecar, receiver: Receiver, raw: bytes) -> None:
    answer = refused_and_closed(sidecar, raw, 414, "headers_too_large", receiver=receiver)
    assert answer.body == b'{"detail":"URI Too Long"}'


@pytest.mark.parametrize("size", [60_000, 15_000])
def test_a_head_below_the_limit_is_taken(sidecar: Sidecar, receiver: Receiver, craft: type[Craft], size: int) -> None:
    if size > 16_000:
        raw = craft.begini(headers=[(b"X-Big", b"a" * size)])
    else:
        raw = craft.begini(path=b"/webhooks/begini?" + b"q" * size)
    assert sidecar.ask(raw).status == 200


def test_a_body_announced_larger_than_the_limit_is_413_before_it_is_sent(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.request(headers=[(b"X-Signature", b"0" * 128), (b"Content-Length", b"%d" % (MEBIBYTE + 1))])
    refused_and_closed(sidecar, raw, 413, "body_too_large", receiver=receiver, route="begini")
    sidecar.idle()


def test_a_sender_that_goes_on_sending_can_still_read_its_413(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.request(b"/webhooks/small", [(b"X-Signature", b"0" * 128)], bytes(8 * MEBIBYTE))
    refused_and_closed(sidecar, raw, 413, "body_too_large", receiver=receiver, route="small")


def test_a_chunked_body_that_grows_over_the_limit_is_413(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.request(headers=[(b"X-Signature", b"0" * 128), (b"Transfer-Encoding", b"chunked")])
    raw += craft.chunked(bytes(MEBIBYTE + 1), 65536).removesuffix(b"0\r\n\r\n")
    refused_and_closed(sidecar, raw, 413, "body_too_large", receiver=receiver, route="begini")
    sidecar.idle()


def test_a_body_of_exactly_the_limit_is_taken(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    assert sidecar.ask(craft.begini(bytes(MEBIBYTE))).status == 200
    body = bytes(1000)
    assert sidecar.ask(craft.begini(body, path=b"/webhooks/small")).status == 200
    sidecar.refused(
        craft.begini(body + b"x", path=b"/webhooks/small"), 413, "body_too_large", route="small", receiver=receiver
    )


def test_announced_bodies_take_nothing_from_the_common_buffer(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    sidecar = start({"limits": {"body": "1MiB", "buffer": "2MiB", "body_timeout": "20s"}})
    raw = craft.request(headers=[(b"X-Signature", b"0" * 128), (b"Content-Length", b"%d" % MEBIBYTE)])
    holders = [sidecar.connect().send(raw + b"x") for _ in range(9)]
    wait_until(lambda: sidecar.metric("buffered_bytes") == 9, "the first bytes")
    for body in (b"small", bytes(MEBIBYTE)):
        assert sidecar.ask(craft.begini(body)).status == 200
    assert sidecar.metric("buffered_bytes") == 9
    for holder in holders:
        holder.leave()
    sidecar.healthy()


def test_when_the_common_buffer_runs_out_the_slowest_body_makes_room(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    sidecar = start({"limits": {"body": "1MiB", "buffer": "2MiB", "body_timeout": "20s"}})
    raw = craft.request(headers=[(b"X-Signature", b"0" * 128), (b"Transfer-Encoding", b"chunked")])
    stalled = [sidecar.connect().send(raw + b"ffff8\r\n" + bytes(size)) for size in (700_000, 600_000, 790_000)]
    wait_until(lambda: sidecar.metric("buffered_bytes") == 2_090_000, "the budget being used")
    time.sleep(0.4)
    mark = sidecar.mark()
    assert sidecar.ask(craft.begini(bytes(300_000))).status == 200
    answer = stalled[1].answer()
    assert (answer.status, answer.values(b"retry-after")) == (503, [b"1"])
    assert sidecar.delivery(mark, reason="overloaded")["status"] == 503
    wait_until(lambda: sidecar.metric("buffered_bytes") == 1_490_000, "what was evicted being free")
    assert [seen.body for seen in receiver.requests] == [bytes(300_000)]
    for holder in stalled:
        holder.leave()
    sidecar.healthy()


def test_connections_over_the_limit_are_503_and_closed(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    wait_until(lambda: _open_connections(sidecar) <= 1, "the end of earlier connections")
    release = threading.Event()

    receiver.then(*[held(release, craft.ok)] * 12)
    crowd = [sidecar.connect().send(craft.begini()) for _ in range(12)]
    receiver.wait(12)
    mark, seen = sidecar.mark(), receiver.bytes_seen
    with sidecar.connect() as client:
        answer = client.answer()
        assert (answer.values(b"retry-after"), answer.values(b"connection")) == ([b"1"], [b"close"])
        assert client.rest() == b""
    sidecar.was_refused(answer, 503, "overloaded", route="", receiver=receiver, mark=mark, bytes_before=seen)
    release.set()
    assert [client.answer().status for client in crowd] == [200] * 12  # who was there before is served
    for client in crowd:
        client.close()
    time.sleep(0.05)
    sidecar.healthy()


def test_when_connections_run_out_the_slowest_senders_make_room_and_whole_requests_do_not(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = start({"limits": {"connections": 12, "header_timeout": "9s", "body_timeout": "9s"}})
    release = threading.Event()

    receiver.then(held(release, craft.ok))
    whole, kept, body, *heads = (sidecar.connect() for _ in range(12))
    whole.send(craft.begini())
    receiver.wait()
    assert kept.send(craft.begini()).answer().status == 200
    body.send(craft.begini()[:-1])
    for client in heads:
        client.send(b"POST /")
    time.sleep(0.3)
    mark = sidecar.mark()
    assert [sidecar.ask(craft.begini()).status for _ in range(3)] == [200, 200, 200]
    crowd = [sidecar.connect() for _ in range(11)]
    time.sleep(0.1)
    assert kept.rest() == b""
    for client in (body, *heads):
        answer = client.answer()
        assert (answer.status, answer.values(b"retry-after")) == (503, [b"1"])
        assert client.rest() == b""
    assert sidecar.delivery(mark, 1, route="begini", reason="overloaded")["status"] == 503
    release.set()
    assert whole.answer().status == 200
    for client in (whole, kept, body, *heads, *crowd):
        client.close()
    time.sleep(0.05)
    sidecar.healthy()


def _open_connections(sidecar: Sidecar) -> int:
    """Established connections of the data listener, by the kernel's own list."""
    port = b":%04X" % int(sidecar.address.rsplit(":", 1)[1])
    with open("/proc/net/tcp", "rb") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return sum(row[1].endswith(port) and row[3] in (b"01", b"08") for row in rows)


# Time


def test_a_slow_head_is_408(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    raw = craft.begini()
    mark, began = sidecar.mark(), time.monotonic()
    with sidecar.connect() as client:
        for byte in raw[:60]:
            client.try_send(bytes([byte]))
            time.sleep(0.02)
        answer = client.answer()
        assert answer.values(b"connection") == [b"close"]
        client.rest()
    assert 0.4 < time.monotonic() - began < 5
    sidecar.was_refused(answer, 408, "header_timeout", route="", receiver=receiver, mark=mark)


def test_a_slow_head_on_a_kept_connection_is_408(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    with sidecar.connect() as client:
        assert client.send(craft.begini()).answer().status == 200
        receiver.forget()
        mark = sidecar.mark()
        answer = client.send(b"POST /webhooks/be").answer()
        assert client.rest() == b""
    line = sidecar.delivery(mark, reason="header_timeout")
    assert (answer.status, line["route"], receiver.bytes_seen) == (408, "", 0)


def test_a_connection_that_says_nothing_is_closed_without_a_word(sidecar: Sidecar, receiver: Receiver) -> None:
    mark = sidecar.mark()
    with sidecar.connect() as client:
        began = time.monotonic()
        assert client.rest() == b""
        assert 0.3 < time.monotonic() - began < 3
    time.sleep(0.05)
    assert not [line for line in sidecar.lines[mark:] if line.get("event") == "delivery"]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_slow_body_is_408_however_steadily_it_drips(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], framing: str
) -> None:
    field = (b"Content-Length", b"1000") if framing == "length" else (b"Transfer-Encoding", b"chunked")
    mark = sidecar.mark()
    with sidecar.connect() as client:
        client.send(craft.request(headers=[(b"X-Signature", b"0" * 128), field]))
        for _ in range(40):
            client.try_send(b"x" if framing == "length" else b"1\r\nx\r\n")
            time.sleep(0.02)
        answer = client.answer()
        assert answer.values(b"connection") == [b"close"]
    sidecar.was_refused(answer, 408, "body_timeout", receiver=receiver, mark=mark)
    sidecar.idle()


def test_a_second_body_is_not_timed_while_the_first_request_is_being_answered(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    """Nothing is read from the sender meanwhile, so its time can't run."""

    def slow(peer: Peer) -> None:
        peer.read_body()
        time.sleep(1.6)
        peer.send(craft.ok)

    receiver.then(slow)
    raw = craft.begini()
    with sidecar.connect() as client:
        client.send(raw + raw[:-1])
        assert client.answer().status == 200
        client.send(raw[-1:])
        assert client.answer().status == 200


def test_a_second_body_is_timed_from_the_end_of_the_first_answer(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.begini()
    with sidecar.connect() as client:
        client.send(raw + raw[:-1])
        assert client.answer().status == 200
        began = time.monotonic()
        assert client.answer().status == 408
        assert 0.5 < time.monotonic() - began < 3


def test_a_slow_second_head_leaves_the_first_request_its_answer(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    def script(peer: Peer) -> None:
        peer.read_body()
        time.sleep(1)
        peer.send(craft.ok)

    receiver.then(script)
    with sidecar.connect() as client:
        client.send(craft.begini() + b"POST /webhooks/be")  # the head's time is over before the receiver answers
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"ok")
        assert client.rest() == b""


# Leaving


@pytest.mark.parametrize("how", ["close", "leave"])
@pytest.mark.parametrize("sent", [0, 20], ids=["before the body", "in the body"])
def test_a_sender_that_leaves_in_the_body_is_body_incomplete(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], how: str, sent: int
) -> None:
    raw = craft.begini()
    mark = sidecar.mark()
    client = sidecar.connect()
    client.send(raw[: len(raw) - len(craft.json_body) + sent])
    time.sleep(0.05)
    getattr(client, how)()
    line = sidecar.delivery(mark)
    assert (line["outcome"], line["reason"], line["request_bytes"]) == ("rejected", "body_incomplete", sent)
    assert receiver.bytes_seen == 0
    sidecar.counts_agree("begini", "body_incomplete")
    sidecar.healthy()


def test_a_sender_that_leaves_in_the_head_leaves_nothing_over(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    client = sidecar.connect()
    client.send(craft.begini()[:40])
    client.leave()
    sidecar.healthy()


@pytest.mark.parametrize("how", ["close", "leave"])
def test_a_sender_that_leaves_while_the_receiver_thinks_takes_the_connection_along(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], how: str
) -> None:
    gone = []

    def script(peer: Peer) -> None:
        peer.read_body()
        gone.append(peer.gone())
        peer.close()

    receiver.then(script)
    mark = sidecar.mark()
    client = sidecar.connect()
    client.send(craft.begini())
    receiver.wait()
    time.sleep(0.05)
    getattr(client, how)()
    line = sidecar.delivery(mark)
    assert (line["outcome"], line["reason"]) == ("failed", "client_disconnected")
    sidecar.counts_agree("begini", "client_disconnected")
    sidecar.healthy()
    assert gone == [True]


def test_a_sender_that_leaves_with_a_second_request_behind_the_first_leaves_nothing_over(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    def script(peer: Peer) -> None:
        peer.read_body()
        time.sleep(0.2)
        peer.send(craft.ok)

    receiver.then(script, script)
    client = sidecar.connect()
    client.send(craft.begini() + craft.begini())
    receiver.wait()
    client.leave()  # unseen until the first is answered: reading pauses while a second request waits
    sidecar.healthy()
    assert len(receiver.requests) <= 3


def test_a_sender_that_leaves_in_the_middle_of_a_large_answer_frees_everything(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    def script(peer: Peer) -> None:
        peer.read_body()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                peer.send(bytes(65536))

    receiver.then(script)
    mark = sidecar.mark()
    client = sidecar.connect()
    client.send(craft.begini()).head()
    client.leave()
    line = sidecar.delivery(mark)
    assert (line["outcome"], line["reason"]) == ("failed", "client_disconnected")
    sidecar.healthy()


# More than one request on a connection


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"garbage\r\n\r\n", id="garbage"),
        pytest.param(b"\0\1\2\3", id="binary"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", id="a malformed request"),
        pytest.param(
            b"POST /webhooks/begini HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", id="a malformed length"
        ),
        pytest.param(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", id="CONNECT"),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_valid_requests_followed_by_garbage_still_get_their_answers(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], garbage: bytes, count: int
) -> None:
    with sidecar.connect() as client:
        client.socket.settimeout(3)
        client.send(craft.begini() * count + garbage)
        for _ in range(count):
            answer = client.answer()
            assert (answer.status, answer.body) == (200, b"ok")
        last = client.answer_if_any()
        assert last is None or last.status == 400
        assert client.rest() == b""  # and it is closed, not left open
    assert len(receiver.requests) == count


def test_pipelined_requests_are_answered_in_order(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    def numbered(number: int, pause: float) -> Script:
        def script(peer: Peer) -> None:
            peer.read_body()
            time.sleep(pause)
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)

        return script

    receiver.then(*[numbered(number, 0.05 if number == 1 else 0) for number in range(1, 6)])
    bodies = [b'{"number":%d}' % number for number in range(1, 6)]
    with sidecar.connect() as client:
        client.send(b"".join(craft.begini(body) for body in bodies))
        assert [client.answer().body for _ in bodies] == [b"1", b"2", b"3", b"4", b"5"]
    assert [seen.body for seen in receiver.requests] == bodies


def test_a_refused_request_in_a_pipeline_does_not_move_the_answers(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    bad = craft.begini(secret="ACME_SECRET")
    with sidecar.connect() as client:
        client.send(craft.begini() + bad + craft.begini())
        assert [client.answer().status for _ in range(3)] == [200, 403, 200]
    assert len(receiver.requests) == 2


def test_empty_lines_between_requests_are_skipped(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    with sidecar.connect() as client:
        client.send(b"\r\n" + craft.begini() + b"\r\n\r\n" + craft.begini())
        assert [client.answer().status for _ in range(2)] == [200, 200]


def test_a_sender_that_never_stops_pipelining_takes_no_memory(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    """Each answer let reading go on, so that the queue of requests grew faster than it was worked off."""
    sidecar = start({"limits": {"header_timeout": "9s"}})  # however busy the machine is
    resident = sidecar.resident()
    block = craft.request(b"/nowhere", method=b"GET") * 4000
    with sidecar.connect() as client:
        client.socket.setblocking(False)
        at, end = 0, time.monotonic() + 1.5
        while time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                at = (at + client.socket.send(block[at:])) % len(block)
            with contextlib.suppress(BlockingIOError):
                client.socket.recv(1 << 16)
        client.leave()
    assert sidecar.resident() - resident < 16 * MEBIBYTE
    sidecar.healthy()


def test_a_request_behind_an_early_refusal_is_never_taken_from_the_refused_body(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    inner = craft.begini()
    raw = craft.request(b"/webhooks/small", [(b"X-Signature", b"0" * 128), (b"Content-Length", b"5000")])
    with sidecar.connect() as client:
        assert client.send(raw).answer().status == 413
        client.try_send(inner)
        assert client.rest() == b""
    assert receiver.bytes_seen == 0


def test_pipelined_large_bodies_stay_within_the_buffer(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    body = os.urandom(900_000)
    with sidecar.connect() as client:
        client.send(craft.begini(body) * 4)
        assert [client.answer().status for _ in range(4)] == [200] * 4
    assert all(seen.body == body for seen in receiver.requests)
    sidecar.idle()
