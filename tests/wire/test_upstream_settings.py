"""`upstream:` as a mapping, on the wire: TLS of all kinds before a real nginx, the Host, times and connections of a route."""

import contextlib
import datetime
import hmac
import itertools
import ssl
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import leak_watch
import pytest
import real_receivers
import trustme
from craft import Craft
from needs import needs
from ports import free_port
from receiver import Peer, Receiver
from sidecar_process import Config, Sidecar, Start
from waiting import until

#: The key files of these tests begin with it, so that what leaks is found.
NAME = "receiver.internal"


class Authority:
    """A private certificate authority, and the files of those it vouches for."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.ca = trustme.CA()
        self.file = directory / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.file))
        self.directory = directory

    def issue(self, name: str, file: str = "", *, expired: bool = False) -> tuple[Path, Path]:
        """Certificate and key."""
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        began = yesterday - datetime.timedelta(days=9) if expired else None
        made = self.ca.issue_cert(name, common_name=name, not_before=began, not_after=yesterday if expired else None)
        cert, key = self.directory / f"{file or name}.crt", self.directory / f"{file or name}.key"
        cert.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        key.write_bytes(made.private_key_pem.bytes())
        return cert, key


@pytest.fixture
def private(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "private")


#: Starts nginx with TLS and gives its port; `client_ca` makes it ask for a certificate.
StartNginx = Callable[..., int]


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[StartNginx]:
    program = needs("nginx")
    with contextlib.ExitStack() as stack:

        def begin(certificate: tuple[Path, Path], client_ca: Path | None = None, more: str = "") -> int:
            port = free_port()
            directory = tmp_path / f"nginx-{port}"
            directory.mkdir()
            lines = f"ssl_certificate {certificate[0]}; ssl_certificate_key {certificate[1]}; {more}"
            if client_ca is not None:
                lines += f" ssl_client_certificate {client_ca}; ssl_verify_client on;"
            file = real_receivers.nginx_file(directory, port, tls=True, more=lines)
            stack.enter_context(real_receivers.run([program, "-p", str(directory), "-c", str(file)], port))
            return port

        yield begin


def route(upstream: Any, **more: Any) -> Config:
    """The one route of these tests."""
    base = {"name": "begini", "path": "/webhooks/begini", "verify": "begini", "secrets": [{"env": "BEGINI_API_KEY"}]}
    return {"timeouts": {"connect": "2s"}, "routes": [base | {"upstream": upstream} | more]}


def client(body: bytes) -> str:
    """The common name in the certificate that nginx saw."""
    return real_receivers.seen(body)["client"].removeprefix("CN=").partition(",")[0]


def failed(sidecar: Sidecar, craft: type[Craft], status: int, reason: str) -> str:
    """A delivery that must fail; returns the detail in the log."""
    mark = sidecar.mark()
    assert sidecar.ask(craft.begini()).status == status
    line = sidecar.delivery(mark, reason=reason)
    assert line["outcome"] == "failed"
    detail: str = line["detail"]
    return detail


def test_a_receiver_of_a_private_authority_gets_its_own_name_host_and_our_certificate(
    start: Start, nginx: StartNginx, private: Authority, craft: type[Craft]
) -> None:
    port = nginx(private.issue(NAME), private.file)
    cert, key = private.issue("sidecar.internal")
    tls = {"ca": str(private.file), "client_cert": str(cert), "client_key": str(key), "server_name": NAME}
    running = start(route({"url": f"https://127.0.0.1:{port}", "host": NAME, "tls": tls}))
    answer = running.ask(craft.begini())
    assert answer.status == 200
    seen = real_receivers.seen(answer.body)
    assert (seen["host"], seen["sni"], client(answer.body), seen["verify"]) == (
        NAME,
        NAME,
        "sidecar.internal",
        "SUCCESS",
    )
    _, shown = running.admin("/-/config")
    assert b"PRIVATE KEY" not in shown


@pytest.mark.parametrize("kind", ["node", "java"])
def test_other_receivers_get_their_name_and_our_certificate_and_nothing_without_it(
    start: Start, private: Authority, craft: type[Craft], tmp_path: Path, kind: str
) -> None:
    wanted = real_receivers.ServerTls(*private.issue(NAME), private.file)
    cert, key = private.issue("sidecar.internal")
    tls = {"ca": str(private.file), "server_name": NAME}
    ours = tls | {"client_cert": str(cert), "client_key": str(key)}
    with real_receivers.running(kind, tmp_path, "unused", wanted) as port:
        url = f"https://127.0.0.1:{port}"
        running = start(route({"url": url, "host": NAME, "tls": ours}))
        for _ in range(2):  # on one connection
            answer = running.ask(craft.begini())
            assert answer.status == 200
            seen = real_receivers.seen(answer.body)
            assert (seen["host"], seen["sni"]) == (NAME, NAME)
            assert "CN=sidecar.internal" in seen["client"]
        anonymous = start(route({"url": url, "tls": tls}))
        mark = anonymous.mark()
        assert anonymous.ask(craft.begini()).status == 502
        assert "certificate" in anonymous.delivery(mark)["detail"].lower()


def test_without_the_authority_the_certificate_or_the_name_nothing_is_forwarded(
    start: Start, nginx: StartNginx, private: Authority, craft: type[Craft], tmp_path: Path
) -> None:
    port = nginx(private.issue(NAME), private.file)
    stranger = Authority(tmp_path / "stranger")
    cert, key = private.issue("sidecar.internal")
    presented = {"client_cert": str(cert), "client_key": str(key), "server_name": NAME}
    url = f"https://127.0.0.1:{port}"
    other = start(route({"url": url, "tls": presented | {"ca": str(stranger.file)}}))
    assert "unable to get local issuer certificate" in failed(other, craft, 502, "upstream_unreachable")
    public = start(route({"url": url, "tls": presented}))  # the system's authorities don't know a private one
    assert "certificate" in failed(public, craft, 502, "upstream_unreachable")
    wrong_name = presented | {"ca": str(private.file), "server_name": "another.internal"}
    misnamed = start(route({"url": url, "tls": wrong_name}))
    assert "another.internal" in failed(misnamed, craft, 502, "upstream_unreachable")
    anonymous = start(route({"url": url, "tls": {"ca": str(private.file), "server_name": NAME}}))
    answer = anonymous.ask(craft.begini())
    assert answer.status == 400  # nginx' own answer to a request without the certificate; it forwards nothing
    assert b"No required SSL certificate was sent" in answer.body


def test_an_expired_certificate_of_the_receiver_is_named_and_one_of_ours_is_warned_of(
    start: Start, nginx: StartNginx, private: Authority, craft: type[Craft]
) -> None:
    port = nginx(private.issue(NAME, expired=True))
    cert, key = private.issue("sidecar.internal", expired=True)
    tls = {"ca": str(private.file), "server_name": NAME}
    running = start(route({"url": f"https://127.0.0.1:{port}", "tls": tls}))
    assert "certificate has expired" in failed(running, craft, 502, "upstream_unreachable")
    ours = nginx(private.issue(NAME, "again"), private.file)
    tls |= {"client_cert": str(cert), "client_key": str(key)}
    running = start(route({"url": f"https://127.0.0.1:{ours}", "tls": tls}))
    assert "expired on" in running.line(event="config_warning")["detail"]
    answer = running.ask(craft.begini())
    assert answer.status == 400
    assert b"SSL certificate error" in answer.body


def test_a_receiver_that_ends_tls_for_want_of_a_certificate_is_named_as_such(
    start: Start, private: Authority, craft: type[Craft], new_receiver: Callable[..., Receiver]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*private.issue(NAME))
    context.load_verify_locations(private.file)
    context.verify_mode = ssl.CERT_REQUIRED
    strict = new_receiver(tls=context)
    tls = {"ca": str(private.file), "server_name": NAME}
    running = start(route({"url": strict.url, "tls": tls}))
    mark = running.mark()
    assert running.ask(craft.begini()).status == 502
    line = running.delivery(mark)
    assert line["reason"] in ("upstream_broke", "upstream_unreachable")
    assert "certificate" in line["detail"].lower()
    assert strict.requests == []


@contextlib.contextmanager
def load(sidecar: Sidecar, craft: type[Craft]) -> Generator[list[int], None, None]:
    """Deliveries from three senders; gives the statuses."""
    statuses: list[int] = []
    over = threading.Event()

    def send() -> None:
        with sidecar.connect() as client:
            while not over.wait(0.005):
                statuses.append(client.send(craft.begini()).answer().status)

    senders = [threading.Thread(target=send) for _ in range(3)]
    for sender in senders:
        sender.start()
    try:
        yield statuses
    finally:
        over.set()
        for sender in senders:
            sender.join(20)


@pytest.mark.parametrize("workers", [1, 2])
def test_each_file_is_replaced_under_load_and_no_delivery_is_lost(
    start: Start, nginx: StartNginx, private: Authority, craft: type[Craft], workers: int
) -> None:
    port = nginx(private.issue(NAME), private.file)
    cert, key = private.issue("first", "client")
    both = private.directory / "bundle.pem"
    both.write_bytes(private.file.read_bytes())
    tls = {"ca": str(both), "client_cert": str(cert), "client_key": str(key), "server_name": NAME}
    config = route({"url": f"https://127.0.0.1:{port}", "tls": tls}) | {"workers": workers}
    running = start(config)

    def client_seen() -> str:
        return client(running.ask(craft.begini()).body)

    assert client_seen() == "first"
    with load(running, craft) as statuses:
        mark = running.mark()
        private.issue("second", "client")  # certificate and key, one after the other
        running.line(mark, event="config_loaded")
        mark = running.mark()
        both.write_bytes(private.file.read_bytes() + trustme.CA().cert_pem.bytes())
        running.line(mark, event="config_loaded")
        mark = running.mark()
        key.write_text("half a key")
        kept = running.line(mark, event="config_reload_failed")
        assert "has no private key in PEM" in kept["detail"]
        mark = running.mark()
        private.issue("third", "client")
        running.line(mark, event="config_loaded")
        more = len(statuses) + 100
        running_since = time.monotonic()
        while len(statuses) < more:
            assert time.monotonic() < running_since + 20
            time.sleep(0.05)
    assert set(statuses) == {200}
    assert client_seen() == "third"


def server_context(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(NAME))
    return context


@pytest.mark.parametrize("workers", [1, 2])
def test_the_receivers_authority_is_replaced_under_load_and_no_delivery_is_lost(
    start: Start,
    private: Authority,
    craft: type[Craft],
    tmp_path: Path,
    new_receiver: Callable[..., Receiver],
    workers: int,
) -> None:
    other = Authority(tmp_path / "other")
    presented = [server_context(private)]
    listening = server_context(private)
    # Another context for each connection: one whose files are loaded again has for a moment a certificate without its key.
    listening.sni_callback = lambda connection, name, context: setattr(connection, "context", presented[-1])
    rotating = new_receiver(tls=listening)
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(private.file.read_bytes())
    tls = {"ca": str(trusted), "server_name": NAME}
    running = start(route({"url": rotating.url, "tls": tls}) | {"workers": workers})
    with load(running, craft) as statuses:

        def some_more() -> None:
            more = len(statuses) + 50
            until(lambda: len(statuses) >= more, "more deliveries", 20)

        some_more()
        for trust, certificate in (
            (private.file.read_bytes() + other.file.read_bytes(), other),
            (other.file.read_bytes(), other),
        ):
            mark = running.mark()
            trusted.write_bytes(trust)
            running.line(mark, event="config_loaded")
            presented.append(server_context(certificate))  # for connections from now on
            some_more()
    assert set(statuses) == {200}
    presented.append(server_context(private))  # whose authority is not trusted any more
    for peer in rotating.open_peers:
        peer.close()
    time.sleep(0.5)  # an unused connection that ended is noticed
    failed(running, craft, 502, "upstream_unreachable")


def test_credentials_and_the_secret_that_signs_are_replaced_under_load_and_no_delivery_is_lost(
    start: Start, receiver: Receiver, craft: type[Craft], tmp_path: Path
) -> None:
    token, secret = tmp_path / "token", tmp_path / "secret"
    token.write_text("CANARY-SECRET-first-token")
    secret.write_text("CANARY-SECRET-first-signing-secret")
    more = {
        "headers": {"set": {"Authorization": {"file": str(token), "prefix": "Bearer "}}},
        "sign": {"scheme": "github", "secret": {"file": str(secret)}},
    }
    running = start(route(receiver.url, **more))
    with load(running, craft) as statuses:

        def some_more() -> None:
            more = len(statuses) + 50
            until(lambda: len(statuses) >= more, "more deliveries", 20)

        for file, second in ((token, "CANARY-SECRET-second-token"), (secret, "CANARY-SECRET-second-signing-secret")):
            some_more()
            mark = running.mark()
            new = file.with_suffix(".new")
            new.write_text(second)
            new.rename(file)
            running.line(mark, event="config_loaded")
        some_more()
    assert set(statuses) == {200}
    seen = [(each.values(b"authorization"), each.values(b"x-hub-signature-256")) for each in receiver.requests]
    made = [
        b"sha256=" + hmac.new(b"CANARY-SECRET-%b-signing-secret" % word, craft.json_body, "sha256").hexdigest().encode()
        for word in (b"first", b"second")
    ]
    for signature in made:
        leak_watch.signature(signature.removeprefix(b"sha256="))
    bearers = [b"Bearer CANARY-SECRET-%b-token" % word for word in (b"first", b"second")]
    assert seen[0] == ([bearers[0]], [made[0]])
    assert seen[-1] == ([bearers[1]], [made[1]])
    assert {value for values, _ in seen for value in values} == set(bearers)
    assert {value for _, values in seen for value in values} == set(made)


def test_the_host_is_the_senders_unless_the_route_says_otherwise(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    theirs = start(route({"url": receiver.url}))
    assert theirs.ask(craft.begini()).status == 200
    ours = start(route({"url": receiver.url, "host": "receiver.internal:8443"}))
    smuggled = [(b"X-Forwarded-Host", b"elsewhere"), (b"Connection", b"host")]
    assert ours.ask(craft.begini(headers=smuggled)).status == 200
    old = craft.begini(version=b"HTTP/1.0", host=None)
    assert ours.ask(old).status == 200
    first, second, third = receiver.requests
    assert first.values(b"host") == [b"hooks.test"]
    assert second.values(b"host") == third.values(b"host") == [b"receiver.internal:8443"]
    assert second.values(b"x-forwarded-host") == [b"hooks.test"]


@pytest.mark.parametrize("kind", ["nginx", "node", "php", "java"])
def test_real_receivers_see_the_host_of_the_route(start: Start, craft: type[Craft], tmp_path: Path, kind: str) -> None:
    with real_receivers.running(kind, tmp_path, "unused") as port:
        running = start(route({"url": f"http://127.0.0.1:{port}", "host": NAME}))
        for _ in range(2):  # on one connection
            answer = running.ask(craft.begini())
            assert answer.status == 200
            assert real_receivers.seen(answer.body)["host"] == NAME


def test_a_route_waits_for_a_receiver_that_restarts_as_long_as_it_says_and_another_does_not(
    start: Start, craft: type[Craft], new_receiver: Callable[..., Receiver]
) -> None:
    restarting = new_receiver(listening=False)
    patient = route(restarting.url, timeouts={"connect": "9s", "total": "10s"})
    hasty = patient["routes"][0] | {"name": "hasty", "path": "/hasty", "timeouts": {"connect": "200ms"}}
    running = start({"routes": [patient["routes"][0], hasty]})
    began = time.monotonic()
    assert running.ask(craft.begini(path=b"/hasty")).status == 502
    assert time.monotonic() - began < 2
    with running.connect() as client:
        client.send(craft.begini())
        time.sleep(1)
        restarting.listen()
        assert client.answer().status == 200


def test_the_limits_on_the_response_are_the_routes_own(start: Start, receiver: Receiver, craft: type[Craft]) -> None:
    def late(peer: Peer) -> None:
        peer.read_body()
        time.sleep(0.7)
        peer.send(craft.ok)

    slow = route(receiver.url, timeouts={"response": "300ms"})["routes"][0]
    patient = slow | {"name": "patient", "path": "/patient", "timeouts": {"response": "5s"}}
    running = start({"routes": [slow, patient]})
    receiver.then(late, late)
    assert running.ask(craft.begini()).status == 504
    assert running.ask(craft.begini(path=b"/patient")).status == 200


def test_no_more_deliveries_than_connections_are_at_the_receiver_and_the_others_wait_in_line(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def slowly(peer: Peer) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        peer.read_body()
        time.sleep(0.1)
        with lock:
            at_once -= 1
        peer.send(craft.ok)

    receiver.then(*itertools.repeat(slowly, 12))
    running = start(route({"url": receiver.url, "connections": 2}))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(running.connect()) for _ in range(12)]
        for client in clients:
            client.send(craft.begini())
        assert [client.answer().status for client in clients] == [200] * 12
    assert most == 2


def test_a_delivery_that_waits_too_long_for_a_connection_fails_and_a_sender_that_leaves_frees_its_place(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    held = threading.Event()

    def hold(peer: Peer) -> None:
        peer.read_body()
        held.wait(10)
        peer.send(craft.ok)

    receiver.then(hold)
    running = start(route({"url": receiver.url, "connections": 1}, timeouts={"connect": "500ms"}))
    with running.connect() as first, running.connect() as leaver:
        first.send(craft.begini())
        receiver.wait()
        leaver.send(craft.begini())
        time.sleep(0.1)
        leaver.close()
        detail = failed(running, craft, 502, "upstream_unreachable")
        assert "all 1 connections" in detail
        held.set()
        assert first.answer().status == 200
    running.healthy()
    assert len(receiver.requests) == 2
