"""A receiver that fails in every way: what the sender gets, that nothing is sent twice, that nothing is left over."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from craft import Craft
from receiver import Peer, Receiver, Script
from sidecar_process import Sidecar, Start
from waiting import WaitUntil

CONFIG = {
    "limits": {"body": "20MiB"},
    "timeouts": {"connect": "400ms", "response": "400ms", "total": "900ms", "idle": "2s"},
}


def failed(sidecar: Sidecar, raw: bytes, status: int, reason: str, *, route: str = "begini") -> dict[str, Any]:
    """Sends what the receiver will fail on; returns the answer and the log line."""
    mark = sidecar.mark()
    answer = sidecar.ask(raw)
    line = sidecar.delivery(mark)
    assert (answer.status, line["outcome"], line["reason"], line["status"]) == (status, "failed", reason, status), (
        answer,
        line,
    )
    assert answer.whole
    assert answer.body.startswith(b'{"detail":"')
    sidecar.counts_agree(route, reason)
    return line


def cut_off(sidecar: Sidecar, raw: bytes) -> dict[str, Any]:
    """Sends what is answered with a head, but not to its end: the sender must see a broken connection."""
    mark = sidecar.mark()
    with sidecar.connect() as client:
        answer = client.send(raw).answer()
        assert answer.status == 200
        assert not answer.whole, answer
    line = sidecar.delivery(mark)
    assert line["outcome"] == "failed"
    sidecar.counts_agree("begini", line["reason"])
    return line


def test_a_receiver_that_refuses_is_502(
    sidecar: Sidecar, receiver: Receiver, receivers: dict[str, Receiver], craft: type[Craft]
) -> None:
    began = time.monotonic()
    line = failed(sidecar, craft.begini(path=b"/webhooks/down"), 502, "upstream_unreachable", route="down")
    assert 0.1 < time.monotonic() - began < 2  # it was tried again for timeouts.connect
    assert line["upstream_status"] == 0
    sidecar.healthy()


def test_a_receiver_that_comes_up_within_the_connect_timeout_gets_the_delivery(
    start: Start, receiver: Receiver, new_receiver: Callable[..., Receiver], craft: type[Craft]
) -> None:
    late = new_receiver(listening=False)
    sidecar = start({"upstream": late.url, "timeouts": {"connect": "5s"}})
    with sidecar.connect() as client:
        client.send(craft.begini())
        time.sleep(0.3)
        late.listen()
        assert client.answer().status == 200
    assert len(late.requests) == 1
    sidecar.healthy()


def test_a_unix_socket_that_is_not_there_is_502(
    start: Start, receiver: Receiver, craft: type[Craft], tmp_path: Path
) -> None:
    sidecar = start({"upstream": f"unix:{tmp_path}/absent.sock", "timeouts": {"connect": "200ms"}})
    failed(sidecar, craft.begini(), 502, "upstream_unreachable")


def test_a_receiver_with_a_certificate_of_another_host_is_502_and_sees_no_request(
    start: Start,
    receiver: Receiver,
    new_receiver: Callable[..., Receiver],
    authority: tuple[Path, Callable[[str], ssl.SSLContext]],
    craft: type[Craft],
) -> None:
    stranger = new_receiver(tls=authority[1]("other.example"))
    sidecar = start({"upstream": stranger.url, "timeouts": {"connect": "300ms"}})
    line = failed(sidecar, craft.begini(), 502, "upstream_unreachable")
    assert "TLS" in line["detail"]
    assert stranger.bytes_seen == 0


def test_a_receiver_that_never_answers_is_504_and_loses_its_connection(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    gone = []

    def script(peer: Peer) -> None:
        peer.read_body()
        gone.append(peer.gone())
        peer.close()

    receiver.then(script)
    failed(sidecar, craft.begini(), 504, "upstream_timeout")
    sidecar.healthy()
    assert gone == [True]
    assert len(receiver.requests) == 2  # the one that hung, and the healthy one


def test_a_receiver_that_drips_its_head_is_504(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    def script(peer: Peer) -> None:
        peer.read_body()
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 100:
            peer.send(bytes([byte]))
            time.sleep(0.02)

    receiver.then(script)
    failed(sidecar, craft.begini(), 504, "upstream_timeout")
    sidecar.healthy()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("when", ["before the body", "after the body", "in the head"])
def test_a_receiver_that_leaves_without_an_answer_is_502_and_the_delivery_is_not_sent_again(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], how: str, when: str
) -> None:
    def script(peer: Peer) -> None:
        if when != "before the body":
            peer.read_body()
        if when == "in the head":
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        getattr(peer, how)()

    receiver.then(script)
    failed(sidecar, craft.begini(), 502, "upstream_broke")
    assert len(receiver.requests) == 1
    sidecar.healthy()


def test_a_receiver_that_leaves_without_an_answer_on_a_kept_connection_is_502_and_nothing_is_sent_again(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    def leave(peer: Peer) -> None:
        peer.read_body()
        peer.close()

    receiver.then(craft.ok, leave)
    assert sidecar.ask(craft.begini()).status == 200
    failed(sidecar, craft.begini(), 502, "upstream_broke")
    assert len(receiver.requests) == 2
    assert receiver.requests[0].connection == receiver.requests[1].connection


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize(
    "part",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this", id="short length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", id="no body at all"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", id="no last chunk"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", id="inside a chunk"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n", id="no end of trailers"
        ),
    ],
)
def test_an_answer_that_breaks_off_reaches_the_sender_as_broken(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], part: bytes, how: str
) -> None:
    def script(peer: Peer) -> None:
        peer.read_body()
        peer.send(part)
        time.sleep(0.05)
        getattr(peer, how)()

    receiver.then(script)
    assert cut_off(sidecar, craft.begini())["reason"] == "upstream_broke"
    assert len(receiver.requests) == 1
    sidecar.healthy()


def test_an_answer_without_length_that_is_reset_reaches_the_sender_as_broken(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    def script(peer: Peer) -> None:
        peer.read_body()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\npart")
        time.sleep(0.05)
        peer.reset()

    receiver.then(script)
    assert cut_off(sidecar, craft.begini())["reason"] == "upstream_broke"
    sidecar.healthy()


@pytest.mark.parametrize("head", [b"Content-Length: 1000", b"Transfer-Encoding: chunked"])
def test_a_dripping_answer_is_cut_at_the_total_timeout(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], head: bytes
) -> None:
    def script(peer: Peer) -> None:
        peer.read_body()
        peer.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n")
        for _ in range(200):
            peer.send(b"x" if b"Length" in head else b"1\r\nx\r\n")
            time.sleep(0.02)

    receiver.then(script)
    began = time.monotonic()
    assert cut_off(sidecar, craft.begini())["reason"] == "upstream_timeout"
    assert 0.7 < time.monotonic() - began < 2.5
    sidecar.healthy()


def test_chunks_that_are_no_chunks_break_the_answer_off(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    def script(peer: Peer) -> None:
        peer.read_body()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
        time.sleep(0.05)
        peer.send(b"zz\r\nnonsense\r\n")

    receiver.then(script)
    assert cut_off(sidecar, craft.begini())["reason"] == "upstream_broke"
    sidecar.healthy()


def test_trailer_fields_without_end_break_the_answer_off_and_take_no_memory(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    """The parser keeps a field until it is whole."""

    def script(peer: Peer) -> None:
        peer.read_body()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nX-Endless: ")
        for _ in range(500):
            peer.send(bytes(65536).replace(b"\0", b"a"))

    resident = sidecar.resident()
    receiver.then(script)
    assert "framing" in cut_off(sidecar, craft.begini())["detail"]
    assert sidecar.resident() - resident < 8 << 20
    sidecar.healthy()


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"garbage\r\n\r\n", id="garbage"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), id="TLS"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", id="SSH"),
        pytest.param(b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", id="HTTP/2.0"),
        pytest.param(b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok", id="HTTP/0.9"),
        pytest.param(b"HTTP/1.1 99 Low\r\nContent-Length: 2\r\n\r\nok", id="status 99"),
        pytest.param(b"HTTP/1.1 600 High\r\nContent-Length: 2\r\n\r\nok", id="status 600"),
        pytest.param(b"HTTP/1.1 0200 OK\r\nContent-Length: 2\r\n\r\nok", id="four digits"),
        pytest.param(b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\nok", id="no status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nBad Header: x\r\nContent-Length: 2\r\n\r\nok", id="blank in a name"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-A : x\r\nContent-Length: 2\r\n\r\nok", id="blank before the colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 2\r\n\r\nok", id="empty name"),
        pytest.param(b"HTTP/1.1 200 OK\r\nno colon\r\nContent-Length: 2\r\n\r\nok", id="no colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 2\r\n\r\nok", id="NUL"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-A: a\x01b\r\nContent-Length: 2\r\n\r\nok", id="control character"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-A: a\rX-B: b\r\nContent-Length: 2\r\n\r\nok", id="bare CR"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX-A: a\r\n folded\r\nContent-Length: 2\r\n\r\nok", id="folded"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", id="two lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", id="signed length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", id="listed length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok", id="overflowing length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            id="CL and TE",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", id="another coding"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", id="gzip without chunked"),
        pytest.param(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x81\x00", id="101"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 70_000 + b"\r\nContent-Length: 2\r\n\r\nok", id="oversize head"
        ),
        pytest.param(
            b"HTTP/1.1 100 Continue\r\nX-A: aaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n" * 2000, id="endless informational"
        ),
    ],
)
def test_what_is_not_an_answer_is_502(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil, garbage: bytes
) -> None:
    gone = []

    def script(peer: Peer) -> None:
        peer.read_body()
        peer.send(garbage)
        gone.append(peer.gone(1))
        peer.close()

    receiver.then(script)
    try:
        failed(sidecar, craft.begini(), 502, "upstream_broke")
    finally:
        wait_until(lambda: gone, "the end of the script")
    assert gone == [True], "the connection was kept"
    assert len(receiver.requests) == 1
    sidecar.healthy()


@pytest.mark.parametrize(
    ("sent", "named"),
    [
        pytest.param(b"\x15\x03\x01\x00\x02\x02\x16", "use https:// in upstream", id="a TLS alert"),
        pytest.param(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0d", "HTTP/2", id="HTTP/2 settings"),
    ],
)
def test_a_receiver_of_another_protocol_is_named_in_the_log(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], sent: bytes, named: str
) -> None:
    receiver.then(sent)
    mark = sidecar.mark()
    assert sidecar.ask(craft.begini()).status == 502
    assert named in sidecar.delivery(mark)["detail"]


def test_a_receiver_without_tls_behind_https_is_named_in_the_log(start: Start, craft: type[Craft]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def respond() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=respond, daemon=True).start()
        sidecar = start({"upstream": f"https://127.0.0.1:{listener.getsockname()[1]}"})
        mark = sidecar.mark()
        assert sidecar.ask(craft.begini()).status == 502
        assert "speaks no TLS" in sidecar.delivery(mark)["detail"]


@pytest.mark.parametrize(
    ("sent", "reused"),
    [
        pytest.param(b"HTTP/1.1 204 No Content\r\nX-A: b\r\nContent-Length: 0\r\n\r\n", True, id="0"),
        pytest.param(b"HTTP/1.1 204 No Content\r\ncontent-length: 7\r\nX-A: b\r\n\r\n", True, id="7"),
        pytest.param(b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\nX-A: b\r\n\r\nno", False, id="a body"),
    ],
)
def test_a_204_with_a_length_is_passed_on_without_it(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], sent: bytes, reused: bool
) -> None:
    receiver.then(sent)
    with sidecar.connect() as client:
        answer = client.send(craft.begini()).answer()
        assert (answer.status, answer.headers) == (204, [(b"X-A", b"b")])
        assert client.send(craft.begini()).answer().body == b"ok"
    assert (receiver.requests[0].connection == receiver.requests[1].connection) == reused


@pytest.mark.parametrize("together", [True, False], ids=["in one segment", "in two"])
@pytest.mark.parametrize(
    "surplus",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON", id="a second answer"),
        pytest.param(b"POISON POISON POISON", id="surplus bytes"),
        pytest.param(b"\r\n", id="an empty line"),
    ],
)
def test_what_stands_behind_an_answer_reaches_nobody(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], surplus: bytes, together: bool
) -> None:
    sent = threading.Event()

    def script(peer: Peer) -> None:
        peer.read_body()
        if together:
            peer.send(craft.ok + surplus)
        else:
            peer.send(craft.ok)
            time.sleep(0.05)
            peer.send(surplus)
        sent.set()

    receiver.then(script)
    with sidecar.connect() as client:
        answer = client.send(craft.begini()).answer()
        assert (answer.status, answer.body) == (200, b"ok")
        assert sent.wait(5)
        time.sleep(0.05)
        for _ in range(3):
            answer = client.send(craft.begini()).answer()
            assert (answer.status, answer.body) == (200, b"ok")
        assert client.buffer == b""
    if surplus != b"\r\n":
        assert receiver.requests[0].connection not in {seen.connection for seen in receiver.requests[1:]}


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", b"HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\n"]
)
def test_a_body_where_none_may_be_reaches_nobody(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], head: bytes
) -> None:
    receiver.then(head + b"POISON")
    with sidecar.connect() as client:
        method = "HEAD" if b" 200 " in head else "GET"
        answer = client.send(craft.request(b"/healthz", method=method.encode())).answer(method)
        assert answer.body == b""
        time.sleep(0.05)
        for _ in range(2):
            answer = client.send(craft.begini()).answer()
            assert (answer.status, answer.body) == (200, b"ok")
    assert receiver.requests[0].connection not in {seen.connection for seen in receiver.requests[1:]}


@pytest.mark.parametrize("status", [200, 413])
def test_an_answer_before_the_body_was_read_reaches_the_sender(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], status: int
) -> None:
    def script(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 %d Early\r\nConnection: close\r\nContent-Length: 5\r\n\r\nearly" % status)
        time.sleep(0.1)
        peer.close()

    receiver.then(script)
    answer = sidecar.ask(craft.begini(craft.body_mark * 100_000))
    assert (answer.status, answer.body) == (status, b"early")
    sidecar.healthy()


def test_after_an_early_answer_the_connection_is_not_used_while_the_body_is_still_on_its_way(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    def script(peer: Peer) -> None:
        peer.send(craft.ok)
        time.sleep(0.2)
        peer.read_body()

    receiver.then(script)
    assert sidecar.ask(craft.begini(craft.body_mark * 1_000_000)).body == b"ok"
    assert sidecar.ask(craft.begini()).body == b"ok"
    assert receiver.requests[0].connection != receiver.requests[1].connection


@pytest.mark.parametrize("pause", [0.0, 0.05, 0.4])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_kept_connection_that_the_receiver_closed_costs_no_delivery(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], pause: float, how: str
) -> None:
    receiver.then(craft.ok)
    assert sidecar.ask(craft.begini()).status == 200
    number = receiver.requests[0].connection
    peer = next(peer for peer in receiver.peers if peer.number == number)
    getattr(peer, how)()
    time.sleep(pause + 0.03)
    assert sidecar.ask(craft.begini()).status == 200
    assert len(receiver.requests) == 2
    assert receiver.requests[1].connection != number


def test_an_unused_connection_is_closed_after_the_idle_time(
    start: Start, receiver: Receiver, new_receiver: Callable[..., Receiver], craft: type[Craft]
) -> None:
    other = new_receiver()
    sidecar = start({"upstream": other.url, "timeouts": {"idle": "200ms"}})
    assert sidecar.ask(craft.begini()).status == 200
    began = time.monotonic()
    while other.open_peers:
        assert time.monotonic() - began < 3, "it was never closed"
        time.sleep(0.01)


def test_many_deliveries_at_once_to_a_failing_receiver_leave_nothing_over(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    def hang(peer: Peer) -> None:
        peer.read_body()
        peer.gone()
        peer.close()

    scripts: list[Script] = [hang, lambda peer: peer.reset(), b"garbage\r\n\r\n", craft.ok]
    receiver.then(*scripts * 10)
    clients = [sidecar.connect() for _ in range(40)]
    for client in clients:
        client.send(craft.begini())
    statuses = sorted(client.answer().status for client in clients)
    for client in clients:
        client.close()
    assert statuses == [200] * 10 + [502] * 20 + [504] * 10
    assert len(receiver.requests) == 40
    sidecar.healthy()
