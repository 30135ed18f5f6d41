"""The admin listener has the data listener's limits: nobody without a token can fill its memory or hold up deliveries."""

import re
import socket

import pytest
from craft import Craft
from receiver import Receiver
from sidecar_process import Sidecar, Start
from waiting import WaitUntil

GET = b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\n"


def connect(sidecar: Sidecar) -> socket.socket:
    host, port = sidecar.admin_address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), 10)


def everything(client: socket.socket) -> bytes:
    """What arrives until the other end closes; a reset ends it as well."""
    seen = b""
    try:
        while data := client.recv(1 << 16):
            seen += data
    except ConnectionError:
        pass
    return seen


@pytest.mark.parametrize(
    ("begin", "piece", "status"),
    [
        pytest.param(GET + b"Cookie: ", b"b" * 65536, b"431", id="one endless field"),
        pytest.param(GET, b"A: b\r\n" * 8192, b"431", id="endless fields"),
        pytest.param(b"GET /", b"q" * 65536, b"414", id="an endless target"),
        pytest.param(
            b"POST /-/reload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999999\r\n\r\n",
            b"x" * 65536,
            b"413",
            id="an endless body",
        ),
        pytest.param(
            b"POST /-/delivery-test HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"1;%b\r\nx\r\n" % (b"e" * 500) * 100,
            b"400",
            id="endless chunk extensions",
        ),
    ],
)
def test_what_has_no_end_is_rejected_and_takes_no_memory(
    start: Start, receiver: Receiver, craft: type[Craft], begin: bytes, piece: bytes, status: bytes
) -> None:
    sidecar = start()
    before = sidecar.resident()
    with connect(sidecar) as client:
        client.sendall(begin)
        try:
            for _ in range(1200):  # 75 MiB; the rest of what is rejected is read for a moment and thrown away
                client.sendall(piece)
        except OSError:
            pass
        assert sidecar.resident() - before < 16 * 1024 * 1024
        answer = everything(client)
    assert not answer or answer.startswith(b"HTTP/1.1 " + status)
    with connect(sidecar) as client:  # the answer arrives where the sender stops to read it
        client.sendall(begin)
        try:
            for _ in range(4):
                client.sendall(piece)
        except OSError:
            pass
        assert everything(client).startswith(b"HTTP/1.1 " + status)
    assert sidecar.ask(craft.begini()).status == 200


def test_unfinished_heads_make_room_for_probes_and_end_in_time(
    start: Start, receiver: Receiver, craft: type[Craft], wait_until: WaitUntil
) -> None:
    # Six hundred heads and a busy machine may take longer than the 400 ms in which the receiver must be reached otherwise.
    sidecar = start({"timeouts": {"connect": "20s", "response": "20s", "total": "40s"}})
    before = sidecar.resident()

    before_descriptors = sidecar.descriptors()
    clients = []
    for _ in range(600):
        clients.append(connect(sidecar))
        clients[-1].sendall(GET + b"Accept: " + b"c" * 50_000)
    # A connection makes room when it has waited for a quarter of a second, and a busy machine accepts the last ones late.
    wait_until(lambda: sidecar.admin("/livez")[0] == 200, "room for a probe")
    for path in ("/livez", "/readyz", "/metrics"):
        assert sidecar.admin(path)[0] == 200
    assert sidecar.ask(craft.begini()).status == 200
    assert sidecar.resident() - before < 48 * 1024 * 1024

    wait_until(lambda: sidecar.descriptors() < before_descriptors + 10, "the end of all unfinished heads", 25)
    for client in clients:
        client.close()


def test_pipelined_requests_that_nobody_reads_take_no_memory(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = start()
    before = sidecar.resident()
    clients = [connect(sidecar) for _ in range(8)]
    for client in clients:
        client.settimeout(0.3)
        try:
            for _ in range(20):
                client.sendall((b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") * 1000)
        except TimeoutError:
            pass  # it is no longer read from
    assert sidecar.admin("/readyz")[0] == 200
    assert sidecar.ask(craft.begini()).status == 200
    assert sidecar.resident() - before < 100 * 1024 * 1024
    for client in clients:
        client.close()


def test_pipelined_requests_are_answered_in_order(sidecar: Sidecar) -> None:
    with connect(sidecar) as client:
        client.sendall(
            GET + b"\r\n" + b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" + GET + b"Connection: close\r\n\r\n"
        )
        statuses = re.findall(rb"HTTP/1\.1 (\d+)", everything(client))
    assert statuses == [b"200", b"404", b"200"]


def test_a_client_that_leaves_does_not_cut_off_a_reload(start: Start, receiver: Receiver, craft: type[Craft]) -> None:
    sidecar = start()
    with connect(sidecar) as client:
        client.sendall(b"POST /-/reload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")
    assert sidecar.line(event="config_loaded", count=2)["cause"] == "POST /-/reload"
