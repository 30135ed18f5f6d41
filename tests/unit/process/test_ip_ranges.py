"""Fetching lists of networks, from a real server on loopback: what is taken, what is not, and what is kept."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
import trustme

from sidecar.config.ranges import RangesError, load_ranges
from sidecar.process import ip_ranges as published
from sidecar.process.ip_ranges import RETRY_SECONDS, PublishedRanges

DAY = 86_400.0
NOW = 1_800_000_000.0
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n203.0.113.0/24\n"


class Server:
    """Answers each connection with the bytes it has at the moment, after one request."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.answer = GOOD
        self.hangs = False
        self.requests: list[bytes] = []
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}/list.txt"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(raw, server_side=True) as connection:
                    self.requests.append(connection.recv(65536))
                    connection.sendall(self.answer)
                    if self.hangs:
                        connection.recv(1)
            except OSError:
                pass

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    made = Server(context)
    yield made
    made.stop()


def fetch(lists: PublishedRanges, server: Server, name: str = "stripe") -> bool:
    return asyncio.run(lists.fetch(name, server.url, DAY))


def test_a_list_is_fetched_and_used(server: Server) -> None:
    lists = PublishedRanges(lambda: NOW)
    assert lists.age("stripe") == NOW - load_ranges("stripe").date
    assert fetch(lists, server)
    assert lists.networks["stripe"].cidrs == ("203.0.113.0/24",)
    assert lists.age("stripe") == 0
    assert not fetch(lists, server)  # the same again
    assert server.requests[0].startswith(b"GET /list.txt HTTP/1.1\r\n")
    assert b"identity" in server.requests[0]


def test_what_differs_from_the_snapshot_in_order_only_is_no_change(server: Server) -> None:
    text = "\n".join(reversed(load_ranges("stripe").networks.cidrs)).encode()
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
    assert not fetch(PublishedRanges(lambda: NOW), server)


@pytest.mark.parametrize(
    "answer",
    [
        GOOD.replace(b"200 OK", b"404 Not Found"),
        GOOD.replace(b"200 OK", b"206 Partial Content"),
        b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n0.0.0.0/0",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n203.0.113.0/24\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"203.0.113.1\n" * 400_000,
        b"garbage\r\n\r\n",
        b"",
    ],
)
def test_what_can_not_be_used_leaves_the_last_good_list(server: Server, answer: bytes) -> None:
    now = NOW
    lists = PublishedRanges(lambda: now)
    fetch(lists, server)
    now += DAY
    server.answer = answer
    with pytest.raises(RangesError) as error:
        fetch(lists, server)
    assert str(error.value)
    assert ip_address("203.0.113.9") in lists.networks["stripe"]
    assert lists.failures == {"stripe": 1}
    assert lists.state(["stripe", "github"]) == [("stripe", DAY, 1), ("github", now - load_ranges("github").date, 0)]


def test_a_server_that_says_nothing_is_waited_for_no_longer_than_that(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "SILENCE_SECONDS", 0.2)
    server.answer, server.hangs = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n203", True
    with pytest.raises(RangesError, match="ReadTimeout"):
        fetch(PublishedRanges(lambda: NOW), server)


def test_a_server_that_drips_is_waited_for_no_longer_than_the_whole_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published, "FETCH_SECONDS", 0.0)
    with pytest.raises(RangesError, match="took longer"):
        fetch(PublishedRanges(lambda: NOW), server)


def test_a_server_whose_certificate_nobody_vouches_for_is_not_believed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(RangesError, match="ConnectError"):
        fetch(PublishedRanges(lambda: NOW), server)
    assert not server.requests


def test_a_list_is_due_at_first_then_after_the_refresh_or_sooner_after_a_failure(server: Server) -> None:
    now = NOW
    lists = PublishedRanges(lambda: now)
    assert lists.due(["stripe", "github"]) == ["stripe", "github"]
    fetch(lists, server)
    assert lists.due(["stripe", "github"]) == ["github"]
    now += DAY
    assert lists.due(["stripe"]) == ["stripe"]
    server.answer = b""
    with pytest.raises(RangesError):
        fetch(lists, server)
    assert lists.due(["stripe"]) == []
    now += RETRY_SECONDS
    assert lists.due(["stripe"]) == ["stripe"]
