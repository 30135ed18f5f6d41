"""Stores that stay when a server fails: a cluster, and a primary that sentinels watch. Of Redis and of Valkey, all real."""

import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import leak_watch
import pytest
import trustme
from craft import Craft
from receiver import Peer, Receiver
from sidecar_process import Config, Sidecar, Start
from stores import SERVICE, ClusterStore, SentinelStore, SingleStore, Store, fail_over, running
from waiting import until

PASSWORD, SENTINEL_PASSWORD = "CANARY-SECRET-fleet-7702", "CANARY-SECRET-fleet-sentinel-1e"
leak_watch.marker(PASSWORD.encode(), SENTINEL_PASSWORD.encode())
DELIVERED = b'{"detail":"Already delivered"}'
PREFIX = "webhook-sidecar:replay:"
numbers = itertools.count()

MakeBody = Callable[[], bytes]


@pytest.fixture
def body(craft: type[Craft]) -> MakeBody:
    return lambda: b'{"mark":"%b","fleet":%d}' % (craft.body_mark, next(numbers))


def using(store: Any, **more: Any) -> Config:
    route = {"name": "begini", "path": "/webhooks/begini", "verify": "begini", "replay": "10m"}
    secrets = [{"id": "current", "env": "BEGINI_API_KEY"}]
    return {"replay_store": getattr(store, "url", store), "routes": [route | {"secrets": secrets}]} | more


def up(sidecar: Sidecar) -> float:
    return sidecar.metric("replay_store_up")


def all_up(*sidecars: Sidecar) -> None:
    until(lambda: all(up(each) == 1 for each in sidecars), "the store being used again", 30)


def settled(sidecar: Sidecar, raw: bytes) -> None:
    """Waits until a delivery is no longer rejected for want of the store: sentinels end connections after a failover, too."""
    until(lambda: sidecar.ask(raw).status != 503, "the store being asked again")


STORES = [(SingleStore, "valkey")] + [
    (each, kind) for each in (SentinelStore, ClusterStore) for kind in ("redis", "valkey")
]


@pytest.fixture(scope="module", params=STORES, ids=lambda param: f"{param[0].__name__} of {param[1]}")
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    make, kind = request.param
    with running(lambda: make(kind, tmp_path_factory.mktemp("store"))) as made:
        yield made


@pytest.fixture(scope="module")
def replicas(start_for_module: Start, store: Store) -> tuple[Sidecar, Sidecar]:
    return start_for_module(using(store)), start_for_module(using(store))


@pytest.fixture
def pair(replicas: tuple[Sidecar, Sidecar], receiver: Receiver) -> tuple[Sidecar, Sidecar]:
    del receiver
    all_up(*replicas)
    for sidecar in replicas:
        sidecar.settled()
    return replicas


def keys(store: Store) -> dict[int, list[str]]:
    """Without those of probes, by the port of the primary that has them."""
    return {
        each.port: [key for key in each.call("KEYS", f"{PREFIX}*") if "probe" not in key]
        for each in store.servers
        if each.is_primary
    }


# What replicas know of each other


def test_what_one_has_forwarded_the_other_does_not_forward_wherever_its_key_is(
    pair: tuple[Sidecar, Sidecar], store: Store, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    one, other = pair
    deliveries = [craft.begini(body()) for _ in range(24)]
    with one.connect() as client:
        for raw in deliveries:
            assert client.send(raw).answer().body == b"ok"
    with other.connect() as client:
        for raw in deliveries:
            assert client.send(raw).answer().body == DELIVERED
    assert len(receiver.requests) == len(deliveries)
    held = keys(store)
    assert sum(map(len, held.values())) >= len(deliveries)
    assert all(held.values())  # each primary has some of them
    assert up(one) == up(other) == 1


def test_what_failed_at_one_is_forwarded_by_the_other(
    pair: tuple[Sidecar, Sidecar], receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    one, other = pair
    raw = craft.begini(body())
    receiver.then(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", lambda peer: peer.close())
    assert [one.ask(raw).status, other.ask(raw).status] == [503, 502]
    assert one.ask(raw).body == b"ok"
    assert other.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED


def test_of_copies_that_come_to_both_at_once_one_is_forwarded(
    pair: tuple[Sidecar, Sidecar], receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    for raw in [craft.begini(body()) for _ in range(5)]:
        before = len(receiver.requests)
        clients = [sidecar.connect() for sidecar in pair * 4]
        for client in clients:
            client.send(raw)
        bodies = Counter(client.answer().body for client in clients)
        for client in clients:
            client.close()
        assert bodies[b"ok"] == 1, bodies
        assert len(receiver.requests) == before + 1


# A server fails


def test_when_a_primary_fails_nothing_passes_until_another_one_is_there_and_nothing_passes_twice(
    pair: tuple[Sidecar, Sidecar], store: Store, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    if isinstance(store, SingleStore):
        return  # tests/wire/test_replay_store.py: nobody takes its place
    marked = [craft.begini(body()) for _ in range(12)]
    for number, raw in enumerate(marked):
        assert pair[number % 2].ask(raw).body == b"ok"
    held = next(each for some in keys(store).values() for each in some)
    forwarded = len(receiver.requests)
    ended, unforwarded = threading.Event(), list[bytes]()

    def send_new_ones() -> None:
        """Each is forwarded and answered 200, or neither."""
        with pair[0].connect() as client:
            while not ended.is_set():
                raw = craft.begini(body())
                if client.send(raw).answer().status == 503:
                    unforwarded.append(raw)
                time.sleep(0.01)

    sender = threading.Thread(target=send_new_ones)
    sender.start()
    fail_over(store, held)
    all_up(*pair)
    ended.set()
    sender.join()
    pair[0].settled()
    assert unforwarded
    new = len(receiver.requests) - forwarded
    for number, raw in enumerate(marked):
        assert pair[number % 2].refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED
        assert pair[1 - number % 2].refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED
    assert len(receiver.requests) == forwarded + new
    for raw in unforwarded:
        assert pair[1].ask(raw).body == b"ok"
    assert len(receiver.requests) == forwarded + new + len(unforwarded)


@pytest.fixture(params=[SentinelStore, ClusterStore])
def own_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """One that no other test uses."""
    with running(lambda: request.param("redis", tmp_path)) as made:
        yield made


def test_a_new_primary_that_lacks_what_was_marked_and_claimed_last_gets_it_before_it_is_used(
    start: Start, own_store: Store, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    """Replicas are written to later than the primary: these lost everything. Both sidecars must repeat what they marked."""
    one, other = start(using(own_store, timeouts={"response": "50s", "total": "60s"})), start(using(own_store))
    all_up(one, other)
    marked, claimed = craft.begini(body()), craft.begini(body())
    assert one.ask(marked).body == b"ok"
    (key,) = [each for some in keys(own_store).values() for each in some]
    go = threading.Event()

    def late(peer: Peer) -> None:
        peer.read_body()
        assert go.wait(40)
        peer.send(craft.ok)

    receiver.then(late)
    with one.connect() as client:
        client.send(claimed)
        receiver.wait(2)
        for each in own_store.servers:
            if not each.is_primary:
                each.call("CONFIG", "SET", "replica-read-only", "no")
                each.call("FLUSHALL")
        fail_over(own_store, key)
        all_up(one, other)
        settled(other, marked)
        assert other.refused(marked, 200, "replayed", receiver=receiver).body == DELIVERED
        settled(other, claimed)
        assert other.refused(claimed, 409, "replayed", receiver=receiver).status == 409
        go.set()
        assert client.answer().body == b"ok"
    assert other.refused(claimed, 200, "replayed", receiver=receiver).body == DELIVERED
    assert len(receiver.requests) == 2


def test_a_primary_that_sentinels_replaced_while_it_runs_is_no_longer_asked(
    start: Start, tmp_path: Path, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    """It takes writes for seconds until the sentinels make it a replica, and loses them then."""
    with running(lambda: SentinelStore("redis", tmp_path)) as store:
        one, other = start(using(store)), start(using(store))
        all_up(one, other)
        old = store.primary("")
        assert store.sentinels[0].call("SENTINEL", "FAILOVER", SERVICE) == "OK"
        raw, forwarded = craft.begini(body()), 0
        end = time.monotonic() + 6
        while time.monotonic() < end:
            for sidecar in (one, other):
                forwarded += sidecar.ask(raw).body == b"ok"
            time.sleep(0.05)
        all_up(one, other)
        assert store.sentinels[0].call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)[1] != str(old.port)
        assert forwarded == 1
        assert one.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED
    assert len(receiver.requests) == 1


def test_slots_that_move_between_primaries_of_a_cluster_reject_nothing_and_let_nothing_pass_twice(
    start: Start, tmp_path: Path, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    with running(lambda: ClusterStore("redis", tmp_path)) as store:
        one, other = start(using(store)), start(using(store))
        all_up(one, other)
        raw = craft.begini(body())
        assert one.ask(raw).body == b"ok"
        ((source, (key,)),) = [each for each in keys(store).items() if each[1]]
        origin = next(each for each in store.servers if each.port == source)
        target = next(each for each in store.servers if each.is_primary and each is not origin)
        slot = origin.call("CLUSTER", "KEYSLOT", key)
        target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", origin.call("CLUSTER", "MYID"))
        origin.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.call("CLUSTER", "MYID"))
        assert other.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED  # the key is still there
        origin.call("MIGRATE", "127.0.0.1", target.port, key, 0, 2000)
        assert other.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED  # ASK
        for each in (target, origin):
            each.call("CLUSTER", "SETSLOT", slot, "NODE", target.call("CLUSTER", "MYID"))
        assert other.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED  # MOVED
        assert one.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED
        assert len(receiver.requests) == 1
        for sidecar in (one, other):
            assert not [line for line in sidecar.lines if line.get("event") == "replay_store_lost"]


# Passwords, TLS, wrong addresses


def test_sentinels_and_servers_have_passwords_of_their_own(
    start: Start, tmp_path: Path, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    made = SentinelStore("redis", tmp_path, replicas=1, password=PASSWORD, sentinel_password=SENTINEL_PASSWORD)
    with running(lambda: made) as store:
        whole = {"url": store.url, "password": {"env": "STORE"}, "sentinel_password": {"env": "SENTINELS"}}
        sidecar = start(using(whole), env={"STORE": PASSWORD, "SENTINELS": SENTINEL_PASSWORD})
        raw = craft.begini(body())
        assert sidecar.ask(raw).body == b"ok"
        assert sidecar.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED
        wrong = start(using(whole), env={"STORE": PASSWORD, "SENTINELS": "CANARY-SECRET-fleet-wrong"})
        until(lambda: up(wrong) == 0, "the sentinels rejecting the password")
        assert wrong.line(event="replay_store_lost")["detail"].startswith("UnknownPrimaryError: no sentinel knows")
        assert b"CANARY-SECRET" not in wrong.admin("/-/config")[1]


def test_a_cluster_over_tls_with_a_user_that_has_the_rights_of_the_page(
    start: Start, tmp_path: Path, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    tls = [
        *("--tls-cert-file", str(tmp_path / "cert.pem"), "--tls-key-file", str(tmp_path / "key.pem")),
        *("--tls-ca-cert-file", str(tmp_path / "ca.pem"), "--tls-auth-clients", "no"),
    ]
    page = (Path(__file__).parents[2] / "docs" / "replay.md").read_text()
    (rights,) = re.findall(r"^ACL SETUSER sidecar (.*)$", page, re.MULTILINE)
    ca = {"ssl_ca_certs": str(tmp_path / "ca.pem")}
    with running(lambda: ClusterStore("redis", tmp_path, tls=tls, **ca)) as store:
        for each in store.servers:
            assert each.call("ACL", "SETUSER", "sidecar", *rights.replace("PASSWORD", PASSWORD).split()) == "OK"
        url = store.url.replace("://", "://sidecar@")
        secret = {"url": url, "password": {"env": "STORE"}}
        sidecar = start(using(secret), env={"STORE": PASSWORD}, ca_file=tmp_path / "ca.pem")
        raw = craft.begini(body())
        receiver.then(lambda peer: peer.close())
        assert sidecar.ask(raw).status == 502
        assert sidecar.ask(raw).body == b"ok"
        assert sidecar.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED
        assert not [line for line in sidecar.lines if line.get("event") == "replay_store_lost"]
        key = next(each for some in keys(store).values() for each in some)
        fail_over(store, key)
        all_up(sidecar)
        assert sidecar.refused(raw, 200, "replayed", receiver=receiver).body == DELIVERED
        stranger = start(using(secret), env={"STORE": PASSWORD})
        until(lambda: up(stranger) == 0, "the certificate being rejected")
        assert "CERTIFICATE_VERIFY_FAILED" in stranger.line(event="replay_store_lost")["detail"]


@pytest.mark.parametrize(
    ("spelling", "said"),
    [
        ("redis+cluster://127.0.0.1:{single}", "NoClusterError: the server is not part of a cluster"),
        ("redis+sentinel://127.0.0.1:{single}/mymaster", "UnknownPrimaryError: no sentinel knows the primary"),
        ("redis://127.0.0.1:{cluster}", "write redis+cluster:// in `replay_store`"),
    ],
)
def test_a_wrong_kind_of_store_is_named(
    start: Start, tmp_path: Path, receiver: Receiver, craft: type[Craft], body: MakeBody, spelling: str, said: str
) -> None:
    with (
        running(lambda: SingleStore("redis", tmp_path)) as single,
        running(lambda: ClusterStore("redis", tmp_path)) as many,
    ):
        url = spelling.format(single=single.servers[0].port, cluster=many.servers[0].port)
        sidecar = start(using(url))
        until(lambda: up(sidecar) == 0, "the store being rejected")
        assert said in sidecar.line(event="replay_store_lost")["detail"]
        sidecar.refused(craft.begini(body()), 503, "replay_store_unavailable", receiver=receiver)


def test_what_several_deliveries_ask_at_once_shares_requests(
    start: Start, tmp_path: Path, receiver: Receiver, craft: type[Craft], body: MakeBody
) -> None:
    """Of a cluster each step is a command, and the commands of a node go to it together."""
    with running(lambda: ClusterStore("redis", tmp_path)) as store:
        sidecar = start(using(store))
        all_up(sidecar)

        def count(word: str) -> int:
            lines = "".join(each.call("INFO", "stats") for each in store.servers if each.is_primary).splitlines()
            return sum(int(line.split(":")[1]) for line in lines if line.startswith(word))

        clients = [sidecar.connect() for _ in range(100)]
        before = count("total_reads_processed")
        for client in clients:
            client.send(craft.begini(body()))
        assert {client.answer().body for client in clients} == {b"ok"}
        for client in clients:
            client.close()
        assert len(receiver.requests) == 100
        # 200 steps alone would be 200 reads of the servers; some more are probes, replication and ours.
        assert count("total_reads_processed") - before < 150
