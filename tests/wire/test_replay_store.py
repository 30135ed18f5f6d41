"""Replicas that share a Redis: what one has forwarded, none forwards again; and what happens while it can't be asked.

A real redis-server, Debian's; without disk, so that one which is started again has forgotten everything.
"""

import contextlib
import itertools
import re
import signal
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import leak_watch
import pytest
import trustme
from client import Client
from craft import Craft
from needs import needs
from ports import free_port
from receiver import Peer, Receiver
from sidecar_process import Config, Sidecar, Start
from waiting import WaitUntil

PASSWORD, NEW_PASSWORD = "CANARY-SECRET-store-5512", "CANARY-SECRET-store-new-0be1"
DELIVERED = b'{"detail":"Already delivered"}'
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
PREFIX = "webhook-sidecar:replay:"
numbers = itertools.count()

#: Makes another body at each call.
MakeBody = Callable[[], bytes]
#: Two sidecars with one store.
Pair = tuple[Sidecar, Sidecar]


class Redis:
    """A redis-server on a port of its own, with or without a password."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.socket = directory / "redis.sock"
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.arguments = [
            *("--bind", "127.0.0.1", "--port", str(self.port), "--unixsocket", str(self.socket)),
            *("--dir", str(directory), "--save", "", *arguments),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> bytes:
        self.process = subprocess.Popen([needs("redis-server"), *self.arguments], stdout=subprocess.DEVNULL)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                return self.answered("PING")
            time.sleep(0.01)
        raise AssertionError("the store did not start")

    def answered(self, *words: str, password: str | None = None) -> bytes:
        """What the store says to one command, raw; through its socket."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.socket))
            if password:
                connection.sendall(f"AUTH {password}\r\n".encode())
                assert connection.recv(100) == b"+OK\r\n"
            connection.sendall((" ".join(words) + "\r\n").encode())
            return connection.recv(100_000)

    def keys(self) -> list[str]:
        """Without those of the probes."""
        names = re.findall(rb"webhook-sidecar:replay:(?:probe:)?[0-9a-f]+", self.answered("KEYS", "*"))
        return [name.decode() for name in names if b"probe" not in name]

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self) -> None:
        """It takes connections and answers nothing."""
        self._send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._send_signal(signal.SIGCONT)

    def _send_signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)


@pytest.fixture(scope="module")
def new_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Redis]]:
    made: list[Redis] = []

    def make(*arguments: str) -> Redis:
        made.append(Redis(tmp_path_factory.mktemp("r"), *arguments))
        return made[-1]

    yield make
    for each in made:
        each.kill()


@pytest.fixture(scope="module")
def redis(new_redis: Callable[..., Redis]) -> Redis:
    """A running one that the tests share."""
    server = new_redis()
    server.start()
    return server


@pytest.fixture
def own_redis(new_redis: Callable[..., Redis]) -> Redis:
    """A running one that no other test uses."""
    server = new_redis()
    server.start()
    return server


def shared(redis: Redis | Config, **more: Any) -> Config:
    """What a sidecar with this store is configured with."""
    base = {"path": "/webhooks/begini", "verify": "begini", "secrets": [{"id": "current", "env": "BEGINI_API_KEY"}]}
    routes = [
        base | {"name": "begini", "replay": "10m"},
        base | {"name": "open", "path": "/webhooks/open", "replay": "10m", "replay_fail_open": True},
        base | {"name": "short", "path": "/webhooks/short", "replay": "1s"},
        base | {"name": "plain", "path": "/webhooks/plain"},
    ]
    return {"replay_store": redis if isinstance(redis, dict) else redis.url, "routes": routes} | more


@pytest.fixture(scope="module")
def replicas(start_for_module: Start, redis: Redis) -> Pair:
    return start_for_module(shared(redis)), start_for_module(shared(redis))


@pytest.fixture
def pair(replicas: Pair, receiver: Receiver) -> Pair:
    for sidecar in replicas:
        sidecar.settled()
    return replicas


@pytest.fixture
def body(craft: type[Craft]) -> MakeBody:
    return lambda: b'{"mark":"%b","store":%d}' % (craft.body_mark, next(numbers))


def up(sidecar: Sidecar) -> float:
    return sidecar.metric("replay_store_up")


def unavailable(sidecar: Sidecar, receiver: Receiver, raw: bytes, **options: Any) -> None:
    """Sends what is refused because nobody knows whether it was forwarded before."""
    answer = sidecar.refused(raw, 503, "replay_store_unavailable", receiver=receiver, **options)
    assert answer.values(b"retry-after") == [b"5"]
    assert answer.body == b'{"detail":"Service Unavailable"}'


def events(sidecar: Sidecar, name: str) -> list[dict[str, Any]]:
    return [line for line in sidecar.lines if line.get("event") == name]


# What replicas know of each other


def test_what_one_has_forwarded_the_other_answers_with_200_and_does_not_forward(
    pair: Pair, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    one, other = pair
    raw = craft.begini(body())
    assert one.ask(raw).body == b"ok"
    for sidecar in (other, one, other):
        assert sidecar.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED
    assert len(receiver.requests) == 1
    assert up(one) == up(other) == 1


def test_what_failed_at_one_is_forwarded_by_the_other(
    pair: Pair, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    one, other = pair
    raw = craft.begini(body())
    receiver.then(BUSY, lambda peer: peer.close())
    assert [one.ask(raw).status, other.ask(raw).status] == [503, 502]
    assert one.ask(raw).body == b"ok"
    assert len(receiver.requests) == 3
    assert other.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED


def under_way(sidecar: Sidecar, receiver: Receiver, raw: bytes, answer: bytes) -> tuple[Client, threading.Event]:
    """Sends what the receiver answers when told to: gives the client, and how to tell it."""
    go = threading.Event()

    def late(peer: Peer) -> None:
        peer.read_body()
        assert go.wait(9)
        peer.send(answer)

    receiver.then(late)
    client = sidecar.connect()
    client.send(raw)
    receiver.wait()
    return client, go


def test_what_is_under_way_at_one_makes_the_other_wait_and_then_say_409(
    pair: Pair, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    one, other = pair
    raw = craft.begini(body())
    client, go = under_way(one, receiver, raw, craft.ok)
    began = time.monotonic()
    answer = other.refused(raw, 409, "replayed", receiver=receiver)
    assert 1.5 < time.monotonic() - began < 4
    assert answer.values(b"retry-after") == [b"5"]
    go.set()
    assert client.answer().body == b"ok"
    client.close()
    assert other.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED


@pytest.mark.parametrize(("first", "copy"), [(b"HTTP/1.1 204 No Content\r\n\r\n", DELIVERED), (BUSY, b"ok")])
def test_a_copy_at_the_other_learns_how_it_ended_at_one(
    pair: Pair, receiver: Receiver, craft: type[Craft], body: MakeBody, first: bytes, copy: bytes
) -> None:
    one, other = pair
    raw = craft.begini(body())
    client, go = under_way(one, receiver, raw, first)
    with other.connect() as waiting:
        waiting.send(raw)
        time.sleep(0.1)
        assert len(receiver.requests) == 1
        go.set()
        assert waiting.answer().body == copy
    client.close()


def test_the_store_holds_hashes_that_expire_and_nothing_that_is_signed(
    pair: Pair, redis: Redis, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    redis.answered("FLUSHALL")
    content = body()
    raw = craft.begini(content, path=b"/webhooks/short")
    client, go = under_way(pair[0], receiver, raw, craft.ok)
    (name,) = redis.keys()
    assert 8_000 < int(redis.answered("PTTL", name)[1:]) <= 10_400  # connect 0.4 s, total 8 s, and 2 s
    go.set()
    client.answer()
    client.close()
    assert redis.keys() == [name]
    assert re.fullmatch(rf"{PREFIX}[0-9a-f]{{64}}", name)
    assert redis.answered("GET", name) == b"$4\r\ndone\r\n"
    assert craft.mac("BEGINI_API_KEY", content).decode()[:20] not in name
    assert 0 < int(redis.answered("PTTL", name)[1:]) <= 1000
    time.sleep(1.01)
    assert redis.keys() == []
    assert pair[1].ask(raw).body == b"ok"


def test_several_workers_share_it(
    start: Start, redis: Redis, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    sidecar = start(shared(redis, workers=2))
    raw = craft.begini(body())
    clients = [sidecar.connect() for _ in range(20)]
    for client in clients:
        client.send(raw)
    bodies = [client.answer().body for client in clients]
    assert bodies.count(b"ok") == 1
    assert set(bodies) <= {b"ok", DELIVERED, b'{"detail":"Delivery in progress"}'}  # the last on a slow machine
    for client in clients:
        client.close()
    assert len(receiver.requests) == 1
    assert up(sidecar) == 1


# While it can't be asked


def test_a_store_that_is_lost_lets_nothing_pass_and_is_used_again_when_it_is_back(
    start: Start,
    own_redis: Redis,
    receiver: Receiver,
    craft: type[Craft],
    body: MakeBody,
    wait_until: WaitUntil,
) -> None:
    sidecar = start(shared(own_redis))
    before = body()
    assert sidecar.ask(craft.begini(before)).body == b"ok"
    own_redis.kill()
    for _ in range(3):
        unavailable(sidecar, receiver, craft.begini(body()))
    unavailable(sidecar, receiver, craft.begini(before))
    assert up(sidecar) == 0
    assert [line["level"] for line in events(sidecar, "replay_store_lost")] == ["error"]
    assert sidecar.ask(craft.begini(body(), path=b"/webhooks/plain")).body == b"ok"
    assert sidecar.admin("/readyz")[0] == 200
    own_redis.start()
    wait_until(lambda: up(sidecar) == 1, "the store being used again")
    raw = craft.begini(body())
    assert sidecar.ask(raw).body == b"ok"
    assert sidecar.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED
    assert len(events(sidecar, "replay_store_back")) == 1


def test_with_replay_fail_open_deliveries_are_forwarded_and_counted(
    start: Start, own_redis: Redis, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    sidecar = start(shared(own_redis))
    raw = craft.begini(body(), path=b"/webhooks/open")
    assert sidecar.ask(raw).body == b"ok"
    own_redis.kill()
    mark = sidecar.mark()
    assert [sidecar.ask(raw).body for _ in range(2)] == [b"ok", b"ok"]
    line = sidecar.delivery(mark)
    assert (line["outcome"], line["reason"]) == ("accepted", "")
    assert line["detail"].startswith("forwarded unchecked: the replay store is unavailable")
    assert sidecar.metric("replay_unchecked_total", route="open") == 2
    unavailable(sidecar, receiver, craft.begini(body()))


def test_replay_fail_open_at_the_top_is_every_route_s(
    start: Start, new_redis: Callable[..., Redis], receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    sidecar = start(shared(new_redis(), replay_fail_open=True))
    assert sidecar.ask(craft.begini(body())).body == b"ok"
    assert sidecar.metric("replay_unchecked_total", route="begini") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_it_starts_without_its_store_and_refuses_until_it_is_there(
    start: Start,
    new_redis: Callable[..., Redis],
    receiver: Receiver,
    craft: type[Craft],
    body: MakeBody,
    wait_until: WaitUntil,
    workers: int,
) -> None:
    redis = new_redis()
    sidecar = start(shared(redis, workers=workers))
    wait_until(lambda: up(sidecar) == 0, "the store being missed without a delivery")
    assert sidecar.line(event="replay_store_lost")["detail"].startswith("ConnectionError: ")
    unavailable(sidecar, receiver, craft.begini(body()))
    redis.start()
    wait_until(lambda: up(sidecar) == 1, "the store being found")
    assert sidecar.ask(craft.begini(body())).body == b"ok"


def test_a_store_that_takes_too_long_is_none(
    start: Start,
    own_redis: Redis,
    receiver: Receiver,
    craft: type[Craft],
    body: MakeBody,
    wait_until: WaitUntil,
) -> None:
    sidecar = start(shared(own_redis))
    assert sidecar.ask(craft.begini(body())).body == b"ok"
    own_redis.pause()
    raw = craft.begini(body())
    began = time.monotonic()
    unavailable(sidecar, receiver, raw)
    first = time.monotonic() - began
    unavailable(sidecar, receiver, raw)
    assert first < 3.5
    assert time.monotonic() - began - first < 0.5  # nobody else waits for it
    own_redis.resume()
    wait_until(lambda: up(sidecar) == 1, "the store being used again")
    assert sidecar.ask(raw).body == b"ok"  # what was asked without an answer is no claim that stays


def test_a_copy_goes_on_if_the_first_sender_leaves_while_the_store_is_asked(
    start: Start, own_redis: Redis, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    sidecar = start(shared(own_redis))
    assert sidecar.ask(craft.begini(body())).body == b"ok"
    raw = craft.begini(body())
    own_redis.pause()
    with sidecar.connect() as first, sidecar.connect() as copy:
        first.send(raw)
        time.sleep(0.2)
        copy.send(raw)
        time.sleep(0.2)
        first.close()
        time.sleep(0.2)
        own_redis.resume()
        assert copy.answer().body == b"ok"
    assert len(receiver.requests) == 2
    assert sidecar.ask(raw).body == b'{"detail":"Already delivered"}'


@pytest.mark.parametrize("kept", [True, False])
def test_what_the_receiver_took_during_the_outage_is_written_to_the_store_after_it(
    start: Start, new_redis: Callable[..., Redis], receiver: Receiver, craft: type[Craft], body: MakeBody, kept: bool
) -> None:
    """Before any replica that missed the store forwards again, and whether the store kept what it knew or not."""
    redis = new_redis(*(("--appendonly", "yes", "--appendfsync", "always") if kept else ()))
    redis.start()
    one, other = start(shared(redis)), start(shared(redis))
    taken, failed = craft.begini(body()), craft.begini(body())
    clients = []
    for raw, answer in ((taken, craft.ok), (failed, BUSY)):
        receiver.forget()
        clients.append(under_way(one, receiver, raw, answer))
    redis.kill()
    for client, go in clients:
        go.set()
        assert client.answer() is not None
        client.close()
    unavailable(other, receiver, taken)
    before = len(receiver.requests)
    one.send_signal(signal.SIGSTOP)  # the other finds the store back first
    redis.start()
    threading.Timer(0.35, one.send_signal, [signal.SIGCONT]).start()
    while (known := other.ask(taken)).status == 503:
        time.sleep(0.01)
    assert known.body == DELIVERED
    assert other.ask(failed).body == b"ok"
    assert len(receiver.requests) == before + 1


def test_a_store_that_forgot_a_claim_does_not_let_the_same_process_forward_twice(
    pair: Pair, redis: Redis, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    raw = craft.begini(body())
    client, go = under_way(pair[0], receiver, raw, craft.ok)
    redis.answered("FLUSHALL")
    assert pair[0].refused(raw, 409, "replayed", receiver=receiver)
    go.set()
    assert client.answer().body == b"ok"
    client.close()


def test_a_sidecar_that_was_killed_leaves_its_claim_until_it_expires_and_then_the_delivery_is_forwarded_again(
    start: Start, redis: Redis, receiver: Receiver, craft: type[Craft], body: MakeBody, wait_until: WaitUntil
) -> None:
    """Nobody knows whether the receiver took it: copies get 409, and then one is forwarded."""
    times = {"timeouts": {"connect": "100ms", "response": "1s", "total": "1s"}}
    one, other = start(shared(redis, **times)), start(shared(redis, **times))
    raw = craft.begini(body())
    client, go = under_way(one, receiver, raw, craft.ok)
    began = time.monotonic()
    one.process.kill()
    one.exit_status()
    go.set()
    client.close()
    assert other.refused(raw, 409, "replayed", receiver=receiver).status == 409
    assert len(receiver.requests) == 1
    wait_until(lambda: other.ask(raw).body == b"ok", "the delivery being forwarded again")
    assert 2.5 < time.monotonic() - began < 6
    assert len(receiver.requests) == 2
    assert other.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED


# Passwords, addresses, reloads


def test_its_password_is_read_from_a_file_and_again_when_that_changes(
    start: Start,
    new_redis: Callable[..., Redis],
    receiver: Receiver,
    craft: type[Craft],
    body: MakeBody,
    wait_until: WaitUntil,
    tmp_path: Path,
) -> None:
    redis = new_redis("--requirepass", PASSWORD)
    redis.start()
    file = tmp_path / "password"
    file.write_text("CANARY-SECRET-store-wrong-9a\n")
    sidecar = start(shared({"url": redis.url, "password": {"file": str(file)}}))
    unavailable(sidecar, receiver, craft.begini(body()))
    lost = sidecar.line(event="replay_store_lost")
    assert lost["detail"].startswith("AuthenticationError: "), lost
    file.write_text(PASSWORD + "\n")
    wait_until(lambda: up(sidecar) == 1, "the right password being used")
    raw = craft.begini(body())
    assert sidecar.ask(raw).body == b"ok"
    # Connections that are there stay; those that are opened from now on need the new one.
    redis.answered("CONFIG", "SET", "requirepass", NEW_PASSWORD, password=PASSWORD)
    mark = sidecar.mark()
    file.write_text(NEW_PASSWORD + "\n")
    sidecar.line(mark, event="config_loaded")
    redis.answered("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes", password=NEW_PASSWORD)
    assert sidecar.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED
    status, shown = sidecar.admin("/-/config")
    assert status == 200
    assert b"CANARY-SECRET" not in shown


def test_a_user_with_the_rights_that_the_page_names_is_enough(
    start: Start, own_redis: Redis, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "replay.md").read_text()
    (rights,) = re.findall(r"^ACL SETUSER sidecar (.*)$", page, re.MULTILINE)
    assert own_redis.answered("ACL", "SETUSER", "sidecar", rights.replace("PASSWORD", PASSWORD)) == b"+OK\r\n"
    assert own_redis.answered("ACL", "SETUSER", "default", "off") == b"+OK\r\n"
    url = f"redis://sidecar@127.0.0.1:{own_redis.port}/3"
    sidecar = start(shared({"url": url, "password": {"env": "STORE"}}), env={"STORE": PASSWORD})
    raw = craft.begini(body())
    receiver.then(BUSY)
    assert sidecar.ask(raw).status == 503
    assert sidecar.ask(raw).body == b"ok"
    assert sidecar.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED
    assert not events(sidecar, "replay_store_lost")


@pytest.mark.parametrize("way", ["unix socket", "TLS", "TLS of a stranger"])
def test_it_is_reached_over_a_unix_socket_and_over_tls_with_a_certificate_that_is_right(
    start: Start,
    new_redis: Callable[..., Redis],
    receiver: Receiver,
    craft: type[Craft],
    body: MakeBody,
    tmp_path: Path,
    way: str,
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = (trustme.CA() if "stranger" in way else ca).issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    port = free_port()
    redis = new_redis(
        *("--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(tmp_path / "cert.pem"), "--tls-key-file", str(tmp_path / "key.pem")),
    )
    redis.start()
    url = f"unix:{redis.socket}" if way == "unix socket" else f"rediss://127.0.0.1:{port}/1"
    sidecar = start(shared({"url": url}), ca_file=tmp_path / "ca.pem")
    raw = craft.begini(body())
    if "stranger" in way:
        unavailable(sidecar, receiver, raw)
        assert "CERTIFICATE_VERIFY_FAILED" in sidecar.line(event="replay_store_lost")["detail"]
        return
    assert sidecar.ask(raw).body == b"ok"
    assert sidecar.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED


def test_another_store_needs_a_restart_and_says_so(
    pair: Pair, redis: Redis, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    sidecar = pair[0]
    sidecar.write(sidecar.config | {"replay_store": "memory"})
    status, said = sidecar.admin("/-/reload", method="POST")
    assert status == 400
    assert f"replay_store: can't change from {redis.url} to memory while running; restart to apply".encode() in said
    raw = craft.begini(body())
    assert sidecar.ask(raw).body == b"ok"
    assert pair[1].refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED


def test_a_memory_store_has_no_gauge(start: Start, receiver: Receiver) -> None:
    with pytest.raises(KeyError):
        up(start())


leak_watch.marker(PASSWORD.encode(), NEW_PASSWORD.encode())


@pytest.mark.parametrize("reply", [b"-ERR wrong: %b\r\n", b"-%b\r\n", b"+%b\r\n", b"-NOPERM %b\r\n", b"$2\r\n%b\r\n"])
def test_a_server_that_repeats_the_password_brings_it_into_no_log(
    start: Start, receiver: Receiver, craft: type[Craft], body: MakeBody, tmp_path: Path, reply: bytes
) -> None:
    """Redis 5 repeats what it was sent in its error, and a malicious server sends what it likes."""

    class Echo(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while sent := self.request.recv(4096):
                words = [word for word in sent.split(b"\r\n") if word and word[:1] not in b"*$"]
                self.request.sendall(reply % b" ".join(reversed(words)))

    (tmp_path / "password").write_text(PASSWORD)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"redis://127.0.0.1:{server.server_address[1]}/0"
        sidecar = start(shared({"url": url, "password": {"file": str(tmp_path / "password")}}))
        unavailable(sidecar, receiver, craft.begini(body()))
        lost = sidecar.line(event="replay_store_lost")
        assert lost["detail"].partition(": ")[2].startswith(("the ", "protocol error", "connection ")), lost
        assert PASSWORD not in b"".join(sidecar.stdout).decode()
        server.shutdown()
