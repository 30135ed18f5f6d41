"""Strangers who try to jam the door: their bytes may cost their own work, and no more than that. At both doors: a gateway passes
on what strangers send.

Each test has a limit that the attack exceeded many times before its fault was fixed.
"""

import contextlib
import itertools
import json
import socket
import threading
import time

import pytest
from client import Client
from craft import Craft
from receiver import Receiver
from sidecar_process import Config, Sidecar, Start
from waiting import PATIENCE, until

CONFIG: Config = {
    "limits": {"header_timeout": "20s", "body_timeout": "20s"},
    "authorize": {"listen": "127.0.0.1:0"},
}
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module", params=["deliveries", "questions"])
def process(request: pytest.FixtureRequest, start_for_module: Start) -> Sidecar:
    sidecar = start_for_module(CONFIG)
    return sidecar.be_asked() if request.param == "questions" else sidecar


def forwarded(sidecar: Sidecar, receiver: Receiver, count: int) -> bool:
    """Whether the receiver saw so many, which the authorize listener never forwards."""
    return len(receiver.requests) == (count if sidecar.event == "delivery" else 0)


def stalling(sidecar: Sidecar) -> Client:
    """A connection with a small window."""
    client = sidecar.connect()
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    return client


def head(*lines: bytes) -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n"


GET, HOST = b"GET /nowhere HTTP/1.1", b"Host: hooks.test"
MANY = b"".join(head(b"GET /%06x HTTP/1.1" % number, HOST) for number in range(5000))


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(head(GET, HOST, *[b"x-same: "] * 6000), 431, id="one name 6,000 times"),
        pytest.param(head(GET, HOST, *[b"b:" + b"c" * (n % 3) for n in range(50_000)]), 431, id="50,000 tiny fields"),
        pytest.param(head(b"GET " + b"/" * 16_000 + b" HTTP/1.1", HOST), 404, id="slashes"),
        pytest.param(head(b"GET " + b"/b;c" * 4000 + b" HTTP/1.1", HOST), 404, id="segments"),
    ],
)
def test_one_request_costs_little_before_it_is_rejected(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], raw: bytes, status: int
) -> None:
    before = sidecar.cpu()
    for _ in range(20):
        assert sidecar.ask(raw).status == status
    assert sidecar.cpu() - before < 0.5, "20 requests"
    assert sidecar.ask(craft.begini()).status == 200
    assert forwarded(sidecar, receiver, 1)


def test_options_of_a_connection_field_cost_little(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    names = [b"".join(letters) for letters in itertools.product([b"%c" % c for c in b"jklmnopqrstuvwxyz"], repeat=3)]
    raw = craft.begini(headers=[(b"Connection", b",".join(names)), (b"Jkl", b"kept")])
    before = sidecar.cpu()
    for _ in range(20):
        assert sidecar.ask(raw).status == 200
    assert sidecar.cpu() - before < 0.5
    assert forwarded(sidecar, receiver, 20)
    assert {tuple(seen.values(b"jkl")) for seen in receiver.requests} <= {(b"kept",)}


def test_requests_in_one_read_cost_no_more_than_one_after_another(sidecar: Sidecar, receiver: Receiver) -> None:
    before = sidecar.cpu()
    with sidecar.connect() as client:
        client.send(MANY[: len(MANY) // 2])  # what the kernel takes without anybody reading depends on the machine
        answers = [client.answer("GET").status for _ in range(2400)]
    assert set(answers) == {404}
    assert sidecar.cpu() - before < 3
    assert receiver.bytes_seen == 0


def test_pipelined_requests_take_no_memory_while_their_responses_are_unread(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar.ask(craft.begini())
    before = sidecar.resident()
    clients = [stalling(sidecar) for _ in range(20)]
    sent = 0
    for client in clients:
        client.socket.setblocking(False)
        for _ in range(20):
            try:
                sent += client.socket.send(MANY)
            except BlockingIOError:
                time.sleep(0.01)
    assert sent > 20 * MEBIBYTE // 8
    time.sleep(0.5)
    assert sidecar.resident() - before < 20 * MEBIBYTE + sent, f"{sent} bytes were sent"
    assert sidecar.ask(craft.begini()).status == 200
    for client in clients:
        client.close()
    sidecar.healthy()


def test_senders_that_do_not_read_lose_their_places_to_others(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    sidecar = start({"limits": {"connections": 6}})
    large = bytes(8 * MEBIBYTE)
    receiver.then(*[b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(large), large)] * 6)
    stalled = [stalling(sidecar).send(craft.begini()) for _ in range(6)]
    receiver.wait(6)

    def served() -> bool:
        with sidecar.connect() as client:
            return client.send(craft.begini()).answer().status == 200

    for _ in range(4):
        until(served, "a place for a sender that reads")
    for client in stalled:
        client.close()


def test_the_configuration_is_written_once_for_all_who_ask_again_and_again(start: Start, craft: type[Craft]) -> None:
    route = {"verify": "begini", "secrets": [{"id": "current", "env": "BEGINI_API_KEY"}]}
    sidecar = start({"routes": [route | {"path": f"/webhooks/{number}"} for number in range(300)]})
    status, first = sidecar.admin("/-/config")
    assert (status, len(json.loads(first)["routes"])) == (200, 300)
    before = sidecar.cpu()
    for _ in range(150):
        with contextlib.closing(sidecar.admin_connection()) as connection:
            connection.request("GET", "/-/config")
            assert connection.getresponse().read() == first
    assert sidecar.cpu() - before < 0.6, "150 times; each alone took 8 ms of the event loop"
    assert sidecar.ask(craft.begini(path=b"/webhooks/7")).status == 200


def test_connections_that_are_kept_busy_lose_their_places_to_others(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    """Each one asks for a path without a route, again and again, so none of them ever waits long."""
    sidecar = start({"limits": {"connections": 20}})
    full, stop = threading.Event(), threading.Event()
    refused = 0

    def keep_busy() -> None:
        nonlocal refused
        held: list[Client] = []
        last = False
        while not last:
            last = stop.wait(0.02)
            while not last and len(held) < 20:
                held.append(Client(sidecar.address))
            for client in list(held):
                try:
                    assert client.send(head(GET, HOST)).answer("GET").status == 404
                except (OSError, AssertionError):
                    refused += 1
                    client.close()
                    held.remove(client)
            if len(held) == 20:
                full.set()
        for client in held:
            client.close()

    stranger = threading.Thread(target=keep_busy)
    stranger.start()
    try:
        assert full.wait(PATIENCE)
        time.sleep(0.1)  # twice as long as a stranger keeps its place
        for number in range(40):
            with sidecar.connect() as client:
                assert client.send(craft.begini()).answer().status == 200, number
    finally:
        stop.set()
        stranger.join()
    assert len(receiver.requests) == 40
    assert refused > 0, "they never held all places"
