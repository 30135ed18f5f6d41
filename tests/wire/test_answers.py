"""How the receiver's response comes back: streamed, unchanged, framed for the client's HTTP version."""

import os
import threading
import time

import pytest
from craft import Craft
from receiver import Peer, Receiver
from sidecar_process import Sidecar

CONFIG = {"timeouts": {"response": "3s", "total": "30s"}}
MEBIBYTE = 1 << 20


def test_status_headers_and_body_come_back_as_they_are(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    body = bytes(range(256))
    receiver.then(
        b"HTTP/1.1 202 Accepted\r\nDate: Tue, 24 Nov 2026 00:00:00 GMT\r\nServer: app/1.0\r\nSet-Cookie: a=1; Path=/\r\n"
        b"Content-Encoding: gzip\r\nSet-Cookie: b=2\r\nX-Obs: caf\xe9\r\nX-Empty: \r\nContent-Length: 256\r\n\r\n"
        + body
    )
    mark = sidecar.mark()
    answer = sidecar.ask(craft.begini())
    assert answer.status == 202
    assert [(name.lower(), value) for name, value in answer.headers] == [
        (b"date", b"Tue, 24 Nov 2026 00:00:00 GMT"),
        (b"server", b"app/1.0"),
        (b"set-cookie", b"a=1; Path=/"),
        (b"content-encoding", b"gzip"),
        (b"set-cookie", b"b=2"),
        (b"x-obs", b"caf\xe9"),
        (b"x-empty", b""),
        (b"content-length", b"256"),
    ]
    assert answer.body == body
    assert sidecar.delivery(mark)["answer_bytes"] == 256


@pytest.mark.parametrize("status", [200, 201, 299, 302, 400, 401, 403, 404, 410, 429, 500, 502, 503, 504, 599])
def test_every_status_of_the_receiver_passes_with_its_body(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], status: int
) -> None:
    receiver.then(b"HTTP/1.1 %d Whatever\r\nContent-Length: 5\r\nRetry-After: 7\r\n\r\nsorry" % status)
    mark, family = sidecar.mark(), f"{status // 100}xx"
    before = sidecar.metric("upstream_responses_total", route="begini", code=family)
    answer = sidecar.ask(craft.begini())
    assert (answer.status, answer.body, answer.values(b"retry-after")) == (status, b"sorry", [b"7"])
    line = sidecar.delivery(mark)
    assert (line["outcome"], line["reason"], line["status"], line["upstream_status"]) == (
        "accepted",
        "",
        status,
        status,
    )
    assert sidecar.metric("upstream_responses_total", route="begini", code=family) == before + 1


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_an_answer_is_streamed_and_not_collected(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], framing: str
) -> None:
    go_on = threading.Event()
    heads = {"length": b"Content-Length: 10", "chunked": b"Transfer-Encoding: chunked", "close": b"Connection: close"}

    def piece(data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if framing == "chunked" else data

    def script(peer: Peer) -> None:
        peer.read_body()
        peer.send(b"HTTP/1.1 200 OK\r\n" + heads[framing] + b"\r\n\r\n")
        peer.send(piece(b"first"))
        assert go_on.wait(10)
        peer.send(piece(b"again") + (b"0\r\n\r\n" if framing == "chunked" else b""))
        if framing == "close":
            peer.close()

    receiver.then(script)
    with sidecar.connect() as client:
        client.send(craft.begini())
        head = client.head()
        assert head.startswith(b"HTTP/1.1 200")
        while b"first" not in client.buffer:
            assert client.more()  # the receiver hasn't sent the second piece
        assert b"again" not in client.buffer
        go_on.set()
        client.buffer = head + client.buffer
        answer = client.answer()
    assert (answer.body, answer.whole) == (b"firstagain", True)


def test_the_head_of_an_answer_comes_before_its_first_piece(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    go_on = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_body()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        assert go_on.wait(10)
        peer.send(b"ok")

    receiver.then(script)
    with sidecar.connect() as client:
        head = client.send(craft.begini()).head()
        go_on.set()
        client.buffer = head + client.buffer
        assert client.answer().body == b"ok"


def test_a_chunked_answer_arrives_whole_and_the_connection_is_used_again(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    body = os.urandom(100_000)
    receiver.then(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + craft.chunked(body, 777))
    with sidecar.connect() as client:
        answer = client.send(craft.begini()).answer()
        assert (answer.body, answer.whole) == (body, True)
        assert client.send(craft.begini()).answer().body == b"ok"
    assert receiver.requests[0].connection == receiver.requests[1].connection


def test_trailers_of_the_answer_are_dropped(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    receiver.then(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Trailer: 1\r\n\r\n")
    answer = sidecar.ask(craft.begini())
    assert (answer.body, answer.whole, answer.values(b"x-trailer")) == (b"ok", True, [])


def test_an_answer_that_ends_with_its_connection_arrives_whole(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    def script(peer: Peer) -> None:
        peer.read_body()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        peer.close()

    receiver.then(script)
    with sidecar.connect() as client:
        answer = client.send(craft.begini()).answer()
        assert (answer.body, answer.whole) == (b"until the end", True)
        assert client.send(craft.begini()).answer().status == 200


def test_an_answer_of_http_1_0_is_understood(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    def script(peer: Peer) -> None:
        peer.read_body()
        peer.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold but good")
        peer.close()

    receiver.then(script)
    answer = sidecar.ask(craft.begini())
    assert (answer.body, answer.whole) == (b"old but good", True)


def test_an_empty_chunked_answer_is_whole(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    receiver.then(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    answer = sidecar.ask(craft.begini())
    assert (answer.body, answer.whole) == (b"", True)


def test_the_answer_to_head_has_the_headers_and_no_body(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    receiver.then(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-A: 1\r\n\r\n")
    with sidecar.connect() as client:
        answer = client.send(craft.request(b"/healthz", method=b"HEAD")).answer("HEAD")
        assert (answer.status, answer.values(b"content-length"), answer.values(b"x-a")) == (200, [b"1000"], [b"1"])
        answer = client.send(craft.request(b"/healthz", method=b"GET")).answer("GET")
        assert (answer.status, answer.body) == (200, b"ok")


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_body_ends_at_its_head(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], status: int
) -> None:
    receiver.then(b"HTTP/1.1 %d No\r\nETag: x\r\n\r\n" % status)
    with sidecar.connect() as client:
        answer = client.send(craft.begini()).answer()
        assert (answer.status, answer.values(b"etag"), answer.values(b"transfer-encoding")) == (status, [b"x"], [])
        assert client.send(craft.begini()).answer().body == b"ok"


def test_informational_answers_before_the_final_one_are_not_handed_on(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    receiver.then(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"
    )
    answer = sidecar.ask(craft.begini())
    assert (answer.status, answer.body, answer.informational, answer.values(b"link")) == (201, b"ok", [], [])


def test_an_informational_answer_long_before_the_final_one_works_too(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    def script(peer: Peer) -> None:
        peer.read_body()
        peer.send(b"HTTP/1.1 102 Processing\r\n\r\n")
        time.sleep(0.1)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    receiver.then(script)
    answer = sidecar.ask(craft.begini())
    assert (answer.status, answer.body) == (200, b"ok")


@pytest.mark.parametrize(
    "byte_by_byte", [b"HTTP/1.1 200 OK\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
def test_an_answer_may_come_byte_by_byte(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], byte_by_byte: bytes
) -> None:
    def script(peer: Peer) -> None:
        peer.read_body()
        for byte in byte_by_byte:
            peer.send(bytes([byte]))

    receiver.then(script)
    answer = sidecar.ask(craft.begini())
    assert (answer.body, answer.whole, answer.values(b"x-a")) == (b"abc", True, [b"1"])


@pytest.mark.parametrize("coding", [b"Transfer-Encoding: chunked", b"X-Nothing: 1"])
def test_a_sender_of_http_1_0_never_gets_chunks(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], coding: bytes
) -> None:
    def script(peer: Peer) -> None:
        peer.read_body()
        body = craft.chunked(b"some text", 4) if b"chunked" in coding else b"some text"
        peer.send(b"HTTP/1.1 200 OK\r\n" + coding + b"\r\n\r\n" + body)
        if b"chunked" not in coding:
            peer.close()

    receiver.then(script)
    with sidecar.connect() as client:
        answer = client.send(craft.begini(version=b"HTTP/1.0", headers=[(b"Connection", b"keep-alive")])).answer()
        assert answer.values(b"transfer-encoding") == []
        assert (answer.body, answer.whole) == (b"some text", True)


def test_a_large_answer_to_a_slow_reader_is_not_held_in_memory(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    size, sent = 20 * MEBIBYTE, []

    def script(peer: Peer) -> None:
        peer.read_body()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        block = bytes(range(256)) * 256
        for _ in range(size // len(block)):
            peer.send(block)
            sent.append(len(block))

    receiver.then(script)
    sidecar.ask(craft.begini(path=b"/webhooks/socket"))
    before = sidecar.resident()
    with sidecar.connect() as client:
        client.send(craft.begini())
        head = client.head()
        assert b"%d" % size in head
        time.sleep(0.4)  # nobody reads
        assert sum(sent) < 16 * MEBIBYTE, "the sidecar took all of it though nobody read"
        assert sidecar.resident() - before < 6 << 20
        got = len(client.buffer)
        client.buffer = b""
        while got < size:
            assert client.more()
            got += len(client.buffer)
            client.buffer = b""
        assert got == size
    assert sidecar.resident() - before < 8 << 20
    sidecar.healthy()


def test_a_connection_is_kept_for_many_deliveries(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    with sidecar.connect() as client:
        for _ in range(20):
            assert client.send(craft.begini()).answer().body == b"ok"
    assert len({seen.connection for seen in receiver.requests}) == 1


def test_a_connection_is_closed_where_the_sender_asks_for_it(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    with sidecar.connect() as client:
        answer = client.send(craft.begini(headers=[(b"Connection", b"close")])).answer()
        assert answer.values(b"connection") == [b"close"]
        assert client.rest() == b""


def test_the_receivers_wish_to_close_is_its_own(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    receiver.then(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    with sidecar.connect() as client:
        answer = client.send(craft.begini()).answer()
        assert answer.values(b"connection") == []
        assert client.send(craft.begini()).answer().status == 200
    assert receiver.requests[0].connection != receiver.requests[1].connection


def test_cookies_of_one_answer_never_go_out_with_the_next_delivery(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    receiver.then(b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1\r\nContent-Length: 0\r\n\r\n")
    sidecar.ask(craft.begini())
    sidecar.ask(craft.begini())
    assert receiver.requests[1].values(b"cookie") == []


def test_an_answer_cannot_take_its_own_length_away(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    receiver.then(b"HTTP/1.1 200 OK\r\nConnection: Content-Length, Content-Type\r\nContent-Length: 2\r\n\r\nok")
    with sidecar.connect() as client:
        client.socket.settimeout(3)
        answer = client.send(craft.begini()).answer()
        assert (answer.body, answer.whole) == (b"ok", True)
        assert answer.values(b"content-length") or answer.values(b"transfer-encoding") or client.ended


def test_an_expectation_of_a_sender_of_http_1_0_is_ignored(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.begini(version=b"HTTP/1.0", headers=[(b"Expect", b"100-continue")])
    with sidecar.connect() as client:
        client.send(raw[:-10])
        time.sleep(0.05)
        answer = client.send(raw[-10:]).answer()
    assert (answer.status, answer.informational) == (200, [])
