"""Routes whose keys the provider publishes, on the wire: a real process, a real key server over https, and everything that may go
wrong between them.

The tokens are made here, with keys of the test's own. The key server counts what it is asked for.
"""

import base64
import json
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from client import Client
from craft import JSON_BODY, Craft
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from key_server import KeyServer
from receiver import Receiver
from sidecar_process import Config, Sidecar, Start
from waiting import WaitUntil

ISSUER = "https://issuer.example.com"
AUDIENCE = "https://hooks.example.com"
#: pytest's `record_property`: figures for who runs it with --junit-xml.
Note = Callable[[str, object], None]
LIST = "/jwks"
OTHER = "/other/jwks"
UNAVAILABLE = b'{"detail":"Service Unavailable"}'
REFUSAL = b'{"detail":"Validation Failure"}'


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """A key of a provider."""

    def __init__(self, kid: str) -> None:
        self.kid = kid
        self.private = ec.generate_private_key(ec.SECP256R1())

    @property
    def jwk(self) -> dict[str, str]:
        numbers = self.private.public_key().public_numbers()
        x, y = numbers.x.to_bytes(32), numbers.y.to_bytes(32)
        return {"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.kid, "x": text(x), "y": text(y)}

    @property
    def pem(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def token(self, kid: str = "", **claims: Any) -> bytes:
        now = int(time.time())
        values = {"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 600} | claims
        head = {"alg": "ES256", "typ": "JWT", "kid": kid or self.kid}
        signed = f"{text(json.dumps(head).encode())}.{text(json.dumps(values).encode())}"
        r, s = utils.decode_dss_signature(self.private.sign(signed.encode(), ec.ECDSA(SHA256())))
        signature = text(r.to_bytes(32) + s.to_bytes(32)).encode()
        Craft.sent(signature)
        return signed.encode() + b"." + signature


def with_kid(token: bytes, kid: str) -> bytes:
    """The token with another key's id, and so with a signature that is wrong."""
    head = text(json.dumps({"alg": "ES256", "typ": "JWT", "kid": kid}).encode())
    return head.encode() + b"." + token.partition(b".")[2]


def jwks(*keys: Key) -> bytes:
    return json.dumps({"keys": [key.jwk for key in keys]}).encode()


A, B, FORGER = Key("a"), Key("b"), Key("a")


def delivery(token: bytes, path: bytes = b"/webhooks/token", body: bytes = JSON_BODY) -> bytes:
    return Craft.request(path, [(b"Authorization", b"Bearer " + token)], body)


def route(name: str, keys: Config, **more: Any) -> Config:
    return {
        "name": name,
        "path": f"/webhooks/{name}",
        "verify": {
            "signature": {"kind": "jwt", "header": "Authorization", "prefix": "Bearer ", "algorithms": ["ES256"]},
            "keys": keys,
            "claims": {"iss": ISSUER, "aud": AUDIENCE},
            "expiry": "required",
            "binds_body": False,
        },
    } | more


BEGINI = {
    "name": "begini",
    "path": "/webhooks/begini",
    "verify": "begini",
    "secrets": [{"id": "current", "env": "BEGINI_API_KEY"}],
}


def configuration(server: KeyServer, *routes: Config, **more: Any) -> Config:
    return {
        "keys": {"mirrors": {f"{ISSUER}/": f"{server.url}/"}, "ca": str(server.ca_file)},
        "routes": [*routes, BEGINI],
    } | more


TOKEN = route("token", {"jwks": f"{ISSUER}{LIST}"})
SHADOW = route("shadow", {"jwks": f"{ISSUER}{LIST}"}, mode="shadow")
BY_ID = route("byid", {"each": f"{ISSUER}/key/{{id}}", "id": "[a-z0-9-]{1,20}", "form": "pem"})
DISCOVERY = route("discovery", {"discovery": f"{ISSUER}/.well-known/openid-configuration"})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KeyServer]:
    made = KeyServer(tmp_path)
    made.serve(LIST, jwks(A))
    yield made
    made.stop()


def accepted(sidecar: Sidecar, receiver: Receiver, raw: bytes) -> None:
    receiver.forget()
    answer = sidecar.ask(raw)
    assert (answer.status, answer.body) == (200, b"ok"), answer
    assert [seen.body for seen in receiver.requests] == [JSON_BODY]


class Flood:
    """Deliveries at a rate, each on one of a few connections, until `stop`; with their statuses and times."""

    def __init__(self, sidecar: Sidecar, make: Callable[[int], bytes], *, rate: float, connections: int = 8) -> None:
        self.statuses: list[int] = []
        self.seconds: list[float] = []
        self._address, self._make = sidecar.address, make
        self._stopped = threading.Event()
        self._numbers = iter(range(10**9))
        self._pause = connections / rate
        sidecar.unsettled = True
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(connections)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        due = time.monotonic()
        with Client(self._address) as client:
            while not self._stopped.is_set():
                raw = self._make(next(self._numbers))
                began = time.monotonic()
                self.statuses.append(client.send(raw).answer().status)
                self.seconds.append(time.monotonic() - began)
                due += self._pause
                time.sleep(max(due - time.monotonic(), 0))

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(10)

    def was_slowed(self, control: "Flood") -> bool:
        """Whether half of the responses took 50 ms or more; on a machine too busy for that, thrice what the control's took."""
        return statistics.median(self.seconds) >= max(0.05, 3 * statistics.median(control.seconds))


def fetches(sidecar: Sidecar, source: str, result: str) -> float:
    return sidecar.metric("key_fetches_total", source=source, result=result)


def has_logged(sidecar: Sidecar, event: str) -> bool:
    """To be asked often: it costs the sidecar nothing."""
    return any(line.get("event") == event for line in list(sidecar.lines))


WORKERS = pytest.mark.parametrize("workers", [1, 2])


# -- the ordinary way --


@WORKERS
def test_a_delivery_is_verified_with_the_key_that_the_provider_publishes(
    start: Start, receiver: Receiver, server: KeyServer, workers: int
) -> None:
    sidecar = start(configuration(server, TOKEN, workers=workers))
    assert server.requests(LIST) == 1
    for _ in range(8):  # each worker gets some
        accepted(sidecar, receiver, delivery(A.token()))
    sidecar.refused(delivery(FORGER.token()), 403, "signature_mismatch", receiver=receiver, route="token")
    assert server.requests(LIST) == 1
    assert fetches(sidecar, "token", "ok") == 1
    assert fetches(sidecar, "token", "timeout") == 0
    assert 0 <= sidecar.metric("keys_age_seconds", source="token") < 60
    status, page = sidecar.admin("/", headers={"Accept": "text/html"})
    assert (status, b"Published keys" in page, f"{ISSUER}{LIST}".encode() in page) == (200, True, True)
    (shown,) = json.loads(sidecar.admin("/")[1])["keys"]
    assert (shown["source"], shown["usable"], shown["keys"], shown["result"]) == ("token", True, 1, "ok")
    assert time.time() - 60 < shown["fetched"] <= time.time() < shown["next_fetch"]


def test_an_openid_configuration_leads_to_the_keys(start: Start, receiver: Receiver, server: KeyServer) -> None:
    server.serve("/.well-known/openid-configuration", json.dumps({"jwks_uri": f"{ISSUER}{LIST}"}).encode())
    sidecar = start(configuration(server, DISCOVERY))
    accepted(sidecar, receiver, delivery(A.token(), b"/webhooks/discovery"))
    assert (server.requests(LIST), server.requests("/.well-known/openid-configuration")) == (1, 1)


@WORKERS
def test_a_rotation_is_noticed_by_the_first_delivery_with_the_new_key(
    start: Start, receiver: Receiver, server: KeyServer, workers: int
) -> None:
    sidecar = start(configuration(server, TOKEN, workers=workers))
    accepted(sidecar, receiver, delivery(A.token()))
    server.serve(LIST, jwks(B), delay=0.2)
    mark = sidecar.mark()
    receiver.forget()
    answers = []
    clients = [Client(sidecar.address) for _ in range(20)]
    sidecar.unsettled = True
    began = time.monotonic()
    for client in clients:
        client.send(delivery(B.token()))
    for client in clients:
        answers.append(client.answer().status)
        client.close()
    took = time.monotonic() - began
    assert answers == [200] * 20
    assert 0.2 <= took < 3
    assert len(receiver.requests) == 20
    assert server.requests(LIST) == 2
    line = sidecar.line(mark, event="keys_rotated")
    assert (line["source"], line["appeared"], line["vanished"]) == ("token", "b", "a")
    sidecar.settled()
    # The key that is gone is revoked, in every worker.
    for _ in range(6):
        sidecar.refused(delivery(A.token()), 403, "key_unknown", receiver=receiver, route="token")
    assert server.requests(LIST) == 2


# -- strangers --


@WORKERS
def test_a_thousand_unknown_keys_a_second_neither_fetch_more_nor_slow_others(
    start: Start, receiver: Receiver, server: KeyServer, workers: int, record_property: Note
) -> None:
    sidecar = start(configuration(server, TOKEN, workers=workers))
    accepted(sidecar, receiver, delivery(A.token()))
    genuine, hmac = delivery(A.token()), Craft.begini()
    forgery = FORGER.token()
    forged = [delivery(with_kid(forgery, f"stranger-{number}")) for number in range(500)]

    def beside_others(make: Callable[[int], bytes], seconds: float) -> tuple[Flood, list[Flood]]:
        strangers = Flood(sidecar, make, rate=1000, connections=16)
        others = [Flood(sidecar, lambda _, raw=raw: raw, rate=50, connections=2) for raw in (genuine, hmac)]  # type: ignore[misc]
        time.sleep(seconds)
        for flood in (strangers, *others):
            flood.stop()
        return strangers, others

    forger = delivery(forgery)
    forgers, beside_a_known_key = beside_others(lambda _: forger, 1.5)
    sidecar.settled()
    mark = sidecar.mark()
    cpu, began, receiver_saw = sidecar.cpu(), time.monotonic(), len(receiver.requests)
    strangers, others = beside_others(lambda number: forged[number % 500], 4)
    took, cpu = time.monotonic() - began, sidecar.cpu() - cpu
    assert set(strangers.statuses) == {403}
    # In 4 s; on a machine too busy for that, half as many a second as in the 1.5 s with a known key.
    assert len(strangers.statuses) > min(1500, len(forgers.statuses) / 1.5 * 4 / 2)
    assert server.requests(LIST) == 2  # at the start, and once for all of them
    for flood, control in zip(others, beside_a_known_key, strict=True):
        assert set(flood.statuses) == {200}
        assert not flood.was_slowed(control)
    assert len(receiver.requests) - receiver_saw == sum(len(flood.statuses) for flood in others)
    sidecar.settled()
    rate = len(strangers.statuses) / took
    record_property("unknown_keys_a_second", round(rate))
    record_property("cores_of_the_main_process", round(cpu / took, 2))
    for name in ("token", "begini"):
        for when, lines in (("beside_a_known_key", sidecar.lines[:mark]), ("meanwhile", sidecar.lines[mark:])):
            times = [
                line["duration_ms"] for line in lines if line.get("route") == name and line["outcome"] == "accepted"
            ]
            p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
            record_property(f"{name}_ms_{when}", f"p50 {p50:.2f}, p99 {p99:.2f}")


@WORKERS
def test_a_flood_of_ids_has_few_fetched_and_pushes_out_no_key_that_is_used(
    start: Start, receiver: Receiver, server: KeyServer, workers: int
) -> None:
    server.serve("/key/a", A.pem)
    for number in range(200):
        server.serve(f"/key/stranger-{number}", FORGER.pem)
    sidecar = start(configuration(server, BY_ID, workers=workers))
    path = b"/webhooks/byid"
    assert sum(server.counts.values()) == 0
    for _ in range(4):
        accepted(sidecar, receiver, delivery(A.token(), path))
    assert server.requests("/key/a") == 1
    forgery = A.token()
    forged = [delivery(with_kid(forgery, f"stranger-{number}"), path) for number in range(200)]
    strangers = Flood(sidecar, lambda number: forged[number % 200], rate=500, connections=16)
    time.sleep(3)
    strangers.stop()
    # Those that were fetched don't verify; nobody knows about the others.
    assert set(strangers.statuses) == {403, 503}
    assert sum(server.counts.values()) == 30
    for _ in range(4):
        accepted(sidecar, receiver, delivery(A.token(), path))
    assert server.requests("/key/a") == 1
    sidecar.refused(delivery(A.token(kid="../jwks"), path), 403, "key_unknown", receiver=receiver, route="byid")
    assert sum(server.counts.values()) == 30


def test_an_id_that_the_provider_does_not_know_is_asked_for_once(
    start: Start, receiver: Receiver, server: KeyServer
) -> None:
    sidecar = start(configuration(server, BY_ID))
    for _ in range(5):
        sidecar.refused(
            delivery(A.token(kid="none"), b"/webhooks/byid"), 403, "key_unknown", receiver=receiver, route="byid"
        )
    assert server.requests("/key/none") == 1
    assert fetches(sidecar, "byid", "absent") == 1


def test_all_rejections_look_the_same_to_the_sender(start: Start, receiver: Receiver, server: KeyServer) -> None:
    sidecar = start(configuration(server, TOKEN))
    unknown = sidecar.refused(delivery(A.token(kid="x")), 403, "key_unknown", receiver=receiver, route="token")
    forged = sidecar.refused(delivery(FORGER.token()), 403, "signature_mismatch", receiver=receiver, route="token")
    wrong = sidecar.refused(delivery(A.token(aud="x")), 403, "claim_mismatch", receiver=receiver, route="token")
    assert unknown.raw == forged.raw == wrong.raw
    assert unknown.body == REFUSAL


# -- key servers that don't do what they should --


@WORKERS
def test_without_a_key_server_from_the_start_only_its_routes_get_503_and_they_heal_by_themselves(
    start: Start,
    receiver: Receiver,
    server: KeyServer,
    workers: int,
    wait_until: WaitUntil,
    record_property: Note,
) -> None:
    server.stop()
    began = time.monotonic()
    sidecar = start(configuration(server, TOKEN, SHADOW, workers=workers))
    assert time.monotonic() - began < 12
    assert sidecar.admin("/readyz") == (200, b"ok\n")
    for _ in range(4):
        answer = sidecar.refused(delivery(A.token()), 503, "key_unavailable", receiver=receiver, route="token")
        assert answer.values(b"retry-after") == [b"5"]
        assert answer.body == UNAVAILABLE
    sidecar.refused(delivery(FORGER.token(kid="x")), 503, "key_unavailable", receiver=receiver, route="token")
    accepted(sidecar, receiver, Craft.begini())
    accepted(sidecar, receiver, delivery(A.token(), b"/webhooks/shadow"))
    assert sidecar.metric("shadow_rejections_total", route="shadow", reason="key_unavailable") == 1
    assert sidecar.metric("keys_age_seconds", source="token") == float("inf")
    line = sidecar.line(event="keys_failed", source="token")
    assert (line["result"], line["kept"]) == ("unreachable", "nothing: deliveries get 503")
    _, page = sidecar.admin("/", headers={"Accept": "text/html"})
    assert b"Deliveries that need the keys of shadow, token get 503" in page
    assert b"never" in page
    server.restart()
    began = time.monotonic()
    wait_until(lambda: has_logged(sidecar, "keys_fetched") and fetches(sidecar, "token", "ok") == 1, "the keys", 40)
    record_property("healed_after_seconds", round(time.monotonic() - began, 1))
    # A worker gets them after the process that fetched them, and any worker may take the next connection.
    wait_until(lambda: all(sidecar.ask(delivery(A.token())).status == 200 for _ in range(6)), "the keys in all workers")
    accepted(sidecar, receiver, delivery(A.token()))


@WORKERS
def test_without_a_key_server_later_nothing_changes(
    start: Start, receiver: Receiver, server: KeyServer, workers: int
) -> None:
    sidecar = start(configuration(server, TOKEN, workers=workers))
    server.stop()
    accepted(sidecar, receiver, delivery(A.token()))
    # A key that isn't known may be new: nobody can tell.
    for _ in range(3):
        sidecar.refused(delivery(B.token()), 503, "key_unavailable", receiver=receiver, route="token")
    sidecar.refused(delivery(FORGER.token()), 403, "signature_mismatch", receiver=receiver, route="token")
    for _ in range(6):
        accepted(sidecar, receiver, delivery(A.token()))
    assert fetches(sidecar, "token", "unreachable") == 1
    assert sidecar.line(event="keys_failed")["kept"].startswith("the last good keys, for 86")


LIES: dict[str, tuple[str, Config]] = {
    "a redirect": ("status", {"status": 302, "headers": {"Location": f"{ISSUER}{OTHER}"}}),
    "an error": ("status", {"status": 500, "content": jwks(FORGER)}),
    "a page for people": ("unusable", {"content": b"<html>sign in</html>"}),
    "no keys": ("unusable", {"content": b'{"keys": []}'}),
    "an endless body": ("too_large", {"endless": True}),
    "garbage": ("unreachable", {"raw": b"\0" * 1000}),
    "half of it": ("unreachable", {"raw": b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_key_server_that_lies_changes_nothing(start: Start, receiver: Receiver, server: KeyServer, lie: str) -> None:
    result, how = LIES[lie]
    sidecar = start(configuration(server, TOKEN))
    accepted(sidecar, receiver, delivery(A.token()))
    sidecar.refused(delivery(FORGER.token()), 403, "signature_mismatch", receiver=receiver, route="token")
    server.serve(LIST, **how)
    server.serve(OTHER, jwks(B))
    memory = sidecar.resident()
    sidecar.refused(delivery(B.token()), 503, "key_unavailable", receiver=receiver, route="token")
    assert fetches(sidecar, "token", result) == 1
    assert server.requests(OTHER) == 0
    accepted(sidecar, receiver, delivery(A.token()))
    sidecar.refused(delivery(FORGER.token()), 403, "signature_mismatch", receiver=receiver, route="token")
    assert sidecar.resident() - memory < 16 * 1024 * 1024


@pytest.mark.parametrize("how", [{"hangs": True}, {"content": jwks(A, B), "drips": 0.2}], ids=["hangs", "drips"])
def test_a_key_server_that_hangs_holds_up_a_delivery_for_three_seconds_and_no_other(
    start: Start,
    receiver: Receiver,
    server: KeyServer,
    how: Config,
    wait_until: WaitUntil,
    record_property: Note,
) -> None:
    sidecar = start(configuration(server, TOKEN, limits={"connections": 1000}))
    server.serve(LIST, **how)
    new, genuine = delivery(B.token()), delivery(A.token())
    control = Flood(sidecar, lambda _: genuine, rate=50, connections=2)
    time.sleep(1)
    control.stop()
    waiting = [Client(sidecar.address) for _ in range(100)]
    sidecar.unsettled = True
    began = time.monotonic()
    for client in waiting:
        client.send(new)
    others = Flood(sidecar, lambda _: genuine, rate=50, connections=2)
    time.sleep(2)
    others.stop()
    assert set(others.statuses) == {200}
    assert not others.was_slowed(control)
    seconds = []
    for client in waiting:
        assert client.answer().status == 503
        seconds.append(time.monotonic() - began)
        client.close()
    assert max(seconds) < 4.5
    sidecar.settled()
    sidecar.refused(Craft.begini(secret="other"), 403, "signature_mismatch", receiver=receiver)
    accepted(sidecar, receiver, delivery(A.token()))
    assert fetches(sidecar, "token", "timeout") == 0  # nothing waited for the fetch
    wait_until(
        lambda: has_logged(sidecar, "keys_failed") and fetches(sidecar, "token", "timeout") == 1,
        "the end of the fetch",
        12,
    )
    assert server.requests(LIST) == 2
    # Sixty-four waited, the others were told at once.
    lines = [line for line in sidecar.lines if line.get("reason") == "key_unavailable"]
    waited = [line for line in lines if line["duration_ms"] > 2500]
    assert (len(lines), len(waited)) == (100, 64)
    record_property("longest_wait_ms", max(line["duration_ms"] for line in lines))


def test_a_key_server_that_hangs_from_the_start_delays_readiness_by_ten_seconds_at_most(
    start: Start, receiver: Receiver, server: KeyServer, wait_until: WaitUntil
) -> None:
    server.serve(LIST, hangs=True)
    sidecar = start(configuration(server, TOKEN), wait=False)
    wait_until(lambda: server.requests(LIST) == 1, "the fetch")
    sidecar.wait_serving()
    assert 8 < time.monotonic() - server.last[LIST] < 13
    assert sidecar.admin("/readyz") == (200, b"ok\n")
    accepted(sidecar, receiver, Craft.begini())


def test_a_stop_during_the_start_ends_in_order(start: Start, server: KeyServer, wait_until: WaitUntil) -> None:
    server.serve(LIST, hangs=True)
    sidecar = start(configuration(server, TOKEN), wait=False)
    wait_until(lambda: server.requests(LIST) == 1, "the fetch")
    began = time.monotonic()
    sidecar.process.terminate()
    assert sidecar.exit_status() == 0
    assert time.monotonic() - began < 5


# -- reload, workers --


@WORKERS
def test_a_reload_keeps_documents_and_fetches_new_ones(
    start: Start, receiver: Receiver, server: KeyServer, workers: int
) -> None:
    server.serve(OTHER, jwks(B))
    changes = configuration(server, TOKEN, workers=workers)
    sidecar = start(changes)
    sidecar.write(sidecar.config | configuration(server, TOKEN, route("new", {"jwks": f"{ISSUER}{OTHER}"})))
    assert sidecar.admin("/-/reload", method="POST")[0] == 200
    for _ in range(4):
        accepted(sidecar, receiver, delivery(B.token(), b"/webhooks/new"))
        accepted(sidecar, receiver, delivery(A.token()))
    assert (server.requests(LIST), server.requests(OTHER)) == (1, 1)
    sidecar.write(sidecar.config | configuration(server))
    assert sidecar.admin("/-/reload", method="POST")[0] == 200
    assert json.loads(sidecar.admin("/")[1])["keys"] == []


def test_a_worker_that_is_restarted_has_the_keys_at_once(
    start: Start, receiver: Receiver, server: KeyServer, wait_until: WaitUntil
) -> None:
    sidecar = start(configuration(server, TOKEN, workers=2))
    server.stop()
    children = Path(f"/proc/{sidecar.process.pid}/task/{sidecar.process.pid}/children")
    for pid in children.read_text().split():
        os.kill(int(pid), signal.SIGKILL)
    wait_until(lambda: sidecar.metric("worker_exits_total") == 2 and sidecar.metric("workers") == 2, "two new workers")
    for _ in range(8):
        accepted(sidecar, receiver, delivery(A.token()))


def test_a_program_without_published_keys_loads_nothing_for_them(start: Start, server: KeyServer) -> None:
    sidecar = start({"routes": [BEGINI]})
    maps = Path(f"/proc/{sidecar.process.pid}/maps").read_text()
    assert "cryptography" not in maps
    assert server.counts == {}
    _, metrics = sidecar.admin("/metrics")
    assert b"webhook_sidecar_keys_age_seconds{" not in metrics
