"""The store of published keys against a real key server on loopback, with clocks set by hand."""

import asyncio
import base64
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from key_server import KeyServer, run_beside_server

from sidecar.config.settings import Config, KeyClient, KeysSettings
from sidecar.process import key_documents, key_fetch, key_store
from sidecar.process.key_channel import KeyRelay, WorkerKeys, pack_source, unpack_source
from sidecar.process.key_fetch import FetchError, Result, inspect, lifetime_of, resolve_mirror
from sidecar.process.key_store import MAX_BY_ID, MAX_NEW_IDS, KeyStore
from sidecar.routing.routes import RouteTable
from sidecar.telemetry.log import Log, LogSettings
from sidecar.verify.published import Document, KeySource

URL = "https://keys.example.com"
LISTED = KeySource(f"{URL}/jwks", "acme")
DAY = 86_400.0


def jwk(kid: str) -> dict[str, str | None]:
    x = base64.urlsafe_b64encode(hashlib.sha256(kid.encode()).digest()).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid}


def jwks(*kids: str) -> bytes:
    return json.dumps({"keys": [jwk(kid) for kid in kids]}).encode()


def by_id(ident: str, name: str = "acme") -> KeySource:
    return KeySource(f"{URL}/key/{ident}", name, keep=7 * DAY, listed=False, id=ident, form="pem")


PEM = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"


@dataclass
class Settings:
    """What the store reads of a configuration."""

    key_sources: tuple[KeySource, ...]
    keys: KeysSettings
    key_authorities: str
    key_names: tuple[str, ...]
    key_clients: tuple[KeyClient, ...] = ()
    routes: RouteTable = field(default_factory=lambda: RouteTable([]))


class Setup:
    """A store inside a running loop."""

    def __init__(self, server: KeyServer) -> None:
        self.server = server
        self.wall, self.clock = 1_800_000_000.0, 1000.0
        self.lines: list[str] = []
        self.store = KeyStore(lambda: self.wall, lambda: self.clock)
        self.log = Log(LogSettings(), asyncio.get_running_loop(), self.lines.append)

    def settings(self, *sources: KeySource, names: tuple[str, ...] = ("acme", "other")) -> Config:
        mirrors = KeysSettings({f"{URL}/": f"{self.server.url}/"}, str(self.server.ca_file))
        return cast(Config, Settings(sources, mirrors, self.server.ca_file.read_text(), names))

    async def use(self, *sources: KeySource, names: tuple[str, ...] = ("acme", "other")) -> None:
        self.store.apply(self.settings(*sources, names=names), self.log)
        await self.fetched()

    async def fetched(self) -> None:
        """Waits for the fetches that have begun."""
        while tasks := [entry.task for entry in self.store.entries.values() if entry.task]:
            await asyncio.wait(tasks)

    async def later(self, seconds: float) -> None:
        self.wall += seconds
        self.clock += seconds
        self.store._check()
        await self.fetched()

    def events(self, name: str) -> list[dict[str, Any]]:
        self.log.flush()
        events = [json.loads(line) for text in self.lines for line in text.splitlines()]
        return [event for event in events if event["event"] == name]

    def metric(self, name: str, **labels: str) -> float:
        found = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for metric in self.store.collect()
            for sample in metric.samples
        }
        return found[f"webhook_sidecar_{name}", frozenset(labels.items())]

    def content(self, source: KeySource = LISTED) -> bytes | None:
        document = self.store.get(source)
        return document.content if document is not None else None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KeyServer]:
    made = KeyServer(tmp_path)
    made.serve("/jwks", jwks("a"))
    yield made
    made.stop()


Scenario = Callable[[Setup], Coroutine[Any, Any, None]]


def play(server: KeyServer, scenario: Scenario) -> None:
    async def run() -> None:
        await scenario(Setup(server))

    run_beside_server(run())


# -- listed documents --


def test_a_listed_document_is_fetched_at_the_start(server: KeyServer) -> None:
    async def scenario(it: Setup) -> None:
        it.store.apply(it.settings(LISTED), it.log)
        assert it.content() is None
        assert it.metric("keys_age_seconds", source="acme") == math.inf
        await it.store.wait_first()
        assert it.content() == jwks("a")
        assert it.metric("key_fetches_total", source="acme", result="ok") == 1
        it.wall += 7
        assert it.metric("keys_age_seconds", source="acme") == 7
        (view,) = it.store.view()
        assert (view.source, view.usable, view.keys, view.result) == ("acme", True, 1, "ok")
        assert (view.fetched, view.next_fetch) == (it.wall - 7, it.wall + 2880)
        assert b"GET /jwks HTTP/1.1\r\n" in server.heads[0]
        assert b"accept-encoding: identity" in server.heads[0]

    play(server, scenario)


@pytest.mark.parametrize(
    ("headers", "due"),
    [
        ({}, 2880),
        ({"Cache-Control": "public, max-age=6000, must-revalidate"}, 4800),
        ({"Cache-Control": "max-age=6000", "Age": "1000"}, 4000),
        ({"Cache-Control": "max-age=1"}, 240),
        ({"Cache-Control": "no-store"}, 2880),
        ({"Cache-Control": "max-age=99999999"}, 69120),
        ({"Cache-Control": "max-age=-5"}, 2880),
        ({"Cache-Control": "s-maxage=5, max-age = 6000"}, 4800),
        ({"Cache-Control": "max-age=6000", "Age": "99999999999999"}, 4800),
    ],
)
def test_it_is_fetched_again_at_four_fifths_of_its_lifetime(
    server: KeyServer, headers: dict[str, str], due: float
) -> None:
    server.serve("/jwks", jwks("a"), headers=headers)

    async def scenario(it: Setup) -> None:
        await it.use(LISTED)
        await it.later(due - 1)
        assert server.requests("/jwks") == 1
        await it.later(2)
        assert server.requests("/jwks") == 2

    play(server, scenario)


def test_a_new_good_document_replaces_the_old_one_and_the_log_says_what_changed(server: KeyServer) -> None:
    async def scenario(it: Setup) -> None:
        server.serve("/jwks", jwks("a", "b"))
        await it.use(LISTED)
        first = it.store.get(LISTED)
        await it.later(3000)
        assert it.store.get(LISTED) is first  # unchanged content: the verifier's parsed keys stay in use
        assert it.metric("keys_age_seconds", source="acme") == 0
        server.serve("/jwks", jwks("b", "c"))
        await it.later(3000)
        assert it.content() == jwks("b", "c")
        (event,) = it.events("keys_rotated")
        assert (event["source"], event["appeared"], event["vanished"]) == ("acme", "c", "a")

    play(server, scenario)


LIES: list[tuple[Result, dict[str, Any]]] = [
    (Result.STATUS, {"status": 500, "content": jwks("evil")}),
    (Result.STATUS, {"status": 404}),
    (Result.STATUS, {"status": 206, "content": jwks("evil")}),
    (Result.STATUS, {"status": 302, "headers": {"Location": f"{URL}/other"}}),
    (Result.STATUS, {"status": 301, "headers": {"Location": "http://127.0.0.1:1/"}, "content": jwks("evil")}),
    (Result.UNUSABLE, {"content": b"<html>sign in to the airport's network</html>"}),
    (Result.UNUSABLE, {"content": b""}),
    (Result.UNUSABLE, {"content": b'{"keys": []}'}),
    (Result.UNUSABLE, {"content": b'{"error": "no"}'}),
    (Result.UNUSABLE, {"content": b'{"keys": ["a", 1, null]}'}),
    (Result.UNUSABLE, {"content": b"[" * 100_000}),
    (Result.UNUSABLE, {"content": b'{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "evil"}]}'}),
    (Result.UNUSABLE, {"content": b'{"k1": "-----BEGIN CERTIFICATE-----"}'}),
    (Result.UNUSABLE, {"content": b'{"keys": [], "keys": [{"kid": "a"}]}'}),
    (Result.UNUSABLE, {"content": jwks(*map(str, range(101)))}),
    (Result.UNUSABLE, {"content": b"\x1f\x8b\x08\x00", "headers": {"Content-Encoding": "gzip"}}),
    (Result.TOO_LARGE, {"content": jwks("x" * 300_000)}),
    (Result.TOO_LARGE, {"endless": True}),
    (Result.UNREACHABLE, {"raw": b"garbage\r\n\r\n"}),
    (Result.UNREACHABLE, {"raw": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}"}),
    (Result.TIMEOUT, {"hangs": True}),
    (Result.TIMEOUT, {"content": jwks("evil"), "drips": 0.05}),
]


@pytest.mark.parametrize(("result", "lie"), LIES, ids=[f"{result}-{index}" for index, (result, _) in enumerate(LIES)])
def test_what_can_not_be_used_changes_nothing(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch, result: Result, lie: dict[str, Any]
) -> None:
    async def scenario(it: Setup) -> None:
        await it.use(LISTED)
        good = it.store.get(LISTED)
        server.serve("/jwks", **lie)
        server.serve("/other", jwks("evil"))
        with monkeypatch.context() as patch:
            patch.setattr(key_fetch, "FETCH_SECONDS", 0.5 if result is Result.TIMEOUT else 10.0)
            await it.later(3000)
        assert it.store.get(LISTED) is good
        assert server.requests("/other") == 0
        assert it.metric("key_fetches_total", source="acme", result=result.value) == 1
        (event,) = it.events("keys_failed")
        assert (event["source"], event["result"]) == ("acme", result.value)
        assert event["kept"] == "the last good keys, for 83400 s"
        assert "evil" not in str(event)
        server.serve("/jwks", jwks("b"))
        await it.later(31)
        assert it.content() == jwks("b")

    play(server, scenario)


def test_a_document_without_an_end_is_left_after_its_limit(server: KeyServer) -> None:
    server.serve("/jwks", endless=True)

    async def scenario(it: Setup) -> None:
        await it.use(LISTED)
        assert it.metric("key_fetches_total", source="acme", result="too_large") == 1
        await asyncio.sleep(0.3)
        sent = server.sent
        await asyncio.sleep(0.3)
        assert server.sent == sent < 16 * 1024 * 1024  # what the sockets hold

    play(server, scenario)


def test_a_server_whose_certificate_nobody_vouches_for_is_not_believed(server: KeyServer) -> None:
    async def scenario(it: Setup) -> None:
        settings = it.settings(LISTED)
        settings.key_authorities = ""  # type: ignore[misc]
        it.store.apply(settings, it.log)
        await it.fetched()
        assert it.content() is None
        assert it.metric("key_fetches_total", source="acme", result="tls") == 1
        assert not server.heads

    play(server, scenario)


def test_the_last_good_document_counts_until_keep_is_over_and_retries_slow_down(server: KeyServer) -> None:
    async def scenario(it: Setup) -> None:
        await it.use(LISTED)
        server.stop()
        tries = []
        for second in range(2000, 2000 + 2400, 5):
            await it.later(5 if second > 2000 else 2000)
            tries.append(it.metric("key_fetches_total", source="acme", result="unreachable"))
        begins = [2000 + 5 * at for at in range(1, len(tries)) if tries[at] != tries[at - 1]]
        assert [b - a for a, b in itertools.pairwise(begins)] == [30, 60, 120, 240, 300, 300, 300][: len(begins) - 1]
        assert it.content() == jwks("a")
        await it.later(DAY - 4500)
        assert it.content() == jwks("a")
        await it.later(120)
        assert it.content() is None
        assert it.metric("keys_age_seconds", source="acme") > DAY
        await it.later(301)
        assert it.events("keys_failed")[-1]["kept"] == "nothing: deliveries get 503"
        server.restart()
        await it.later(301)
        assert it.content() == jwks("a")
        assert len(it.events("keys_fetched")) == 2

    play(server, scenario)


def test_an_openid_configuration_leads_to_its_keys(server: KeyServer) -> None:
    source = KeySource(f"{URL}/.well-known/openid-configuration", "acme", form="discovery")
    server.serve("/.well-known/openid-configuration", json.dumps({"jwks_uri": f"{URL}/jwks"}).encode())

    async def scenario(it: Setup) -> None:
        it.store.apply(it.settings(source), it.log)
        await it.store.wait_first()
        linked = KeySource(f"{URL}/jwks", "acme")
        assert it.content(linked) == jwks("a")
        assert len(it.store.view()) == 2
        await it.use(source)  # a reload keeps both
        assert (server.requests("/jwks"), it.content(linked)) == (1, jwks("a"))
        # It moves: the new document takes the place of the old one.
        server.serve("/.well-known/openid-configuration", json.dumps({"jwks_uri": f"{URL}/keys"}).encode())
        server.serve("/keys", jwks("b"))
        await it.later(3000)
        assert it.content(linked) is None
        assert it.content(KeySource(f"{URL}/keys", "acme")) == jwks("b")
        # It names another host: not believed.
        server.serve("/.well-known/openid-configuration", b'{"jwks_uri": "https://evil.example/keys"}')
        await it.later(3000)
        assert it.content(KeySource(f"{URL}/keys", "acme")) == jwks("b")
        assert it.metric("key_fetches_total", source="acme", result="unusable") == 1

    play(server, scenario)


def test_a_reload_keeps_what_stays_and_drops_what_does_not(server: KeyServer) -> None:
    other = KeySource(f"{URL}/other", "other")
    server.serve("/other", jwks("o"))
    server.serve("/key/1", PEM)

    async def scenario(it: Setup) -> None:
        await it.use(LISTED, other)
        assert await it.store.refresh(by_id("1", "other"))
        await it.use(LISTED, other)
        assert it.content(by_id("1", "other")) == PEM
        await it.use(LISTED, names=("acme",))
        assert it.content() == jwks("a")
        assert it.content(other) is None
        assert it.content(by_id("1", "other")) is None
        assert server.requests("/jwks") == 1
        assert {view.source for view in it.store.view()} == {"acme"}
        with pytest.raises(KeyError):
            it.metric("keys_age_seconds", source="other")
        await it.use(LISTED, other)
        assert it.content(other) == jwks("o")

    play(server, scenario)


# -- unknown keys --


def test_an_unknown_key_causes_one_fetch_an_interval_however_many_ask(server: KeyServer) -> None:
    async def scenario(it: Setup) -> None:
        await it.use(LISTED)
        # A fetch that nobody asked for doesn't count: the first unknown key after it may be new.
        assert not it.store.is_current(LISTED)
        assert not any([await it.store.refresh(LISTED) for _ in range(1000)])
        assert server.requests("/jwks") == 2
        assert it.store.is_current(LISTED)
        it.clock += 61
        assert not it.store.is_current(LISTED)
        server.serve("/jwks", jwks("b"), delay=0.2)
        answers = await asyncio.gather(*(it.store.refresh(LISTED) for _ in range(1000)))
        assert server.requests("/jwks") == 3
        assert sum(answers) == key_documents.MAX_WAITING
        assert it.store.waiting == 0
        assert it.store.is_current(LISTED)

    play(server, scenario)


def test_a_delivery_waits_no_longer_than_it_may(server: KeyServer) -> None:
    async def scenario(it: Setup) -> None:
        server.serve("/jwks", hangs=True)
        it.store.apply(it.settings(LISTED), it.log)
        began = asyncio.get_running_loop().time()
        assert not await it.store.refresh(LISTED, 0.3)
        assert 0.25 < asyncio.get_running_loop().time() - began < 2
        assert not it.store.is_current(LISTED)
        assert not it.store.entries[LISTED].waiters
        for entry in it.store.entries.values():
            assert entry.task is not None
            entry.task.cancel()

    play(server, scenario)


def test_after_a_failed_fetch_nobody_knows_whether_a_key_exists(server: KeyServer) -> None:
    async def scenario(it: Setup) -> None:
        await it.use(LISTED)
        server.serve("/jwks", status=500)
        assert not await it.store.refresh(LISTED)
        assert not it.store.is_current(LISTED)
        due = it.store.entries[LISTED].due
        assert due == it.clock + 30
        it.clock += 20
        assert not await it.store.refresh(LISTED)
        assert server.requests("/jwks") == 2  # nor is it asked again at once
        await it.later(11)
        assert server.requests("/jwks") == 3
        due = it.store.entries[LISTED].due
        it.clock += 50
        assert not await it.store.refresh(LISTED)
        assert (server.requests("/jwks"), it.store.entries[LISTED].due) == (4, due)  # deliveries don't delay the next

    play(server, scenario)


def test_a_source_that_no_route_names_is_never_fetched(server: KeyServer) -> None:
    async def scenario(it: Setup) -> None:
        await it.use(LISTED)
        assert not await it.store.refresh(KeySource(f"{URL}/other", "acme"))
        assert server.requests("/other") == 0

    play(server, scenario)


# -- documents by id --


def test_a_document_by_id_is_fetched_when_a_delivery_names_it(server: KeyServer) -> None:
    server.serve("/key/1", PEM)

    async def scenario(it: Setup) -> None:
        await it.use()
        assert await it.store.refresh(by_id("1"))
        assert it.content(by_id("1")) == PEM
        # The provider says that there is no such key: known for ten minutes.
        assert await it.store.refresh(by_id("2"))
        assert it.content(by_id("2")) == b""
        assert it.store.is_current(by_id("2"))
        for _ in range(9):
            await it.later(60)
            assert not await it.store.refresh(by_id("2"))
        assert server.requests("/key/2") == 1
        await it.later(61)
        assert it.content(by_id("2")) is None
        server.serve("/key/2", PEM)
        assert await it.store.refresh(by_id("2"))
        # What may be a firewall's says nothing about the key, and is nobody's failure.
        server.serve("/key/4", status=403)
        assert not await it.store.refresh(by_id("4"))
        assert it.content(by_id("4")) is None
        assert not it.store.is_current(by_id("4"))
        # Nor does a failure.
        server.serve("/key/3", status=500)
        assert not await it.store.refresh(by_id("3"))
        assert it.content(by_id("3")) is None
        assert not it.store.is_current(by_id("3"))
        assert it.metric("key_fetches_total", source="acme", result="absent") == 2
        assert it.metric("key_fetches_total", source="acme", result="status") == 1
        await it.later(7 * DAY)
        assert it.content(by_id("1")) is None
        assert not it.store.entries

    play(server, scenario)


def test_a_post_and_its_headers_are_sent_and_not_shown(server: KeyServer) -> None:
    source = KeySource(
        f"{URL}/get", "acme", listed=False, id="1", post=b'{"id":"1"}', headers=(("x-secret", "CANARY"),), form="jwk"
    )
    server.serve("/get", b'{"key": {"kty": "EC"}}')

    async def scenario(it: Setup) -> None:
        await it.use()
        assert await it.store.refresh(source)
        assert server.heads[0].startswith(b"POST /get ")
        assert b"x-secret: CANARY" in server.heads[0]
        assert "CANARY" not in repr(source)

    play(server, scenario)


def test_strangers_can_have_few_new_ids_fetched_and_push_out_nothing_that_verified(server: KeyServer) -> None:
    for number in range(1000):
        server.serve(f"/key/{number}", PEM)

    async def scenario(it: Setup) -> None:
        await it.use()
        assert await it.store.refresh(by_id("0"))
        it.store.used(by_id("0"))
        await it.later(1)
        flood = [by_id(str(number)) for number in range(1, 1000)]
        await asyncio.gather(*(it.store.refresh(source) for source in flood))
        fetched = sum(server.counts.values())
        assert fetched == MAX_NEW_IDS
        assert 0 < it.store.pause(by_id("5")) <= 60
        assert not it.store.is_current(flood[-1])  # nobody knows
        for minute in range(1, 4):
            await it.later(61)
            for source in flood[200 * minute : 200 * minute + 200]:
                await it.store.refresh(source)
        assert sum(server.counts.values()) == 4 * MAX_NEW_IDS
        assert len(it.store.entries) == MAX_BY_ID
        assert it.content(by_id("0")) == PEM
        assert await it.store.refresh(by_id("0", "other"))  # another source has its own budget

    play(server, scenario)


def test_ids_without_a_key_are_remembered_in_bounded_number(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_store, "MAX_NEGATIVES", 20)

    async def scenario(it: Setup) -> None:
        await it.use()
        for number in range(22):
            await it.store.refresh(by_id(str(number)))
        assert len(it.store.entries) == 20
        assert by_id("1") not in it.store.entries  # the oldest are dropped

    play(server, scenario)


def test_a_document_by_id_that_is_used_is_fetched_again_before_it_expires(server: KeyServer) -> None:
    server.serve("/key/1", PEM)

    async def scenario(it: Setup) -> None:
        await it.use()
        assert await it.store.refresh(by_id("1"))
        await it.later(3000)
        assert server.requests("/key/1") == 1  # not used
        it.store.used(by_id("1"))
        await it.later(1)
        assert server.requests("/key/1") == 2
        server.serve("/key/1", status=404)  # it stays, for `keep`
        it.store.used(by_id("1"))
        await it.later(3000)
        assert server.requests("/key/1") == 3
        assert it.content(by_id("1")) == PEM
        assert it.metric("keys_age_seconds", source="acme") == 3000

    play(server, scenario)


# -- workers --


class Wire:
    """Two workers and their channel, whose messages pass through JSON."""

    def __init__(self, it: Setup) -> None:
        self.workers = [WorkerKeys(lambda: it.wall, lambda: it.clock) for _ in range(2)]
        self.sent = 0
        self.relay = KeyRelay(it.store, self.send)
        for worker in self.workers:
            worker.receive(json.loads(json.dumps(self.relay.everything())))
            worker.start(cast(Any, Channel(self, worker)))

    def send(self, message: Any) -> None:
        for worker in self.workers:
            worker.receive(json.loads(json.dumps(message)))

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()


class Channel:
    def __init__(self, wire: Wire, worker: WorkerKeys) -> None:
        self._wire, self._worker = wire, worker

    def send(self, message: Any) -> None:
        self._wire.sent += 1
        text = json.dumps(message)
        asyncio.get_running_loop().call_soon(lambda: self._wire.relay.receive(json.loads(text), self.respond))

    def respond(self, message: Any) -> None:
        self._worker.receive(json.loads(json.dumps(message)))


def test_workers_have_what_the_main_process_fetched(server: KeyServer) -> None:
    server.serve("/key/1", PEM)

    async def scenario(it: Setup) -> None:
        await it.use(LISTED)
        wire = Wire(it)
        one, other = wire.workers
        assert (document := one.get(LISTED)) is not None
        assert document.content == jwks("a")
        assert not one.is_current(LISTED)
        await it.later(3000)
        assert one.get(LISTED) is document  # the same content
        server.serve("/jwks", jwks("b"))
        refreshed = await asyncio.gather(*(worker.refresh(LISTED) for worker in wire.workers for _ in range(60)))
        assert all(refreshed)
        assert (server.requests("/jwks"), wire.sent) == (3, 2)
        for worker in wire.workers:
            assert worker.get(LISTED) == it.store.get(LISTED)
            assert worker.is_current(LISTED)
        it.clock += 61
        assert not one.is_current(LISTED)
        assert await one.refresh(by_id("1"))
        assert other.get(by_id("1")) == one.get(by_id("1"))
        assert await other.refresh(by_id("none"))
        assert not await other.refresh(by_id("none"))
        assert one.is_current(by_id("none"))
        await it.use(names=())
        assert not one.entries
        assert not other.entries
        wire.stop()

    play(server, scenario)


def test_a_flood_of_unknown_keys_in_a_worker_reaches_neither_the_channel_nor_the_provider(server: KeyServer) -> None:
    async def scenario(it: Setup) -> None:
        await it.use(LISTED)
        wire = Wire(it)
        one, _ = wire.workers
        for _ in range(1000):
            assert not await one.refresh(LISTED)
        assert wire.sent == 1
        for number in range(1000):
            await one.refresh(by_id(str(number)))
        assert wire.sent <= MAX_NEW_IDS + 2
        assert server.counts["/jwks"] == 2
        assert sum(server.counts.values()) == 2 + MAX_NEW_IDS
        assert len(one.entries) <= 1 + MAX_NEW_IDS
        wire.stop()

    play(server, scenario)


def test_a_request_that_crosses_a_document_on_the_channel_is_not_another_fetch(server: KeyServer) -> None:
    async def scenario(it: Setup) -> None:
        wire = Wire(it)
        one, _ = wire.workers
        one.receive = lambda message: None  # type: ignore[method-assign]  # still on its way
        await it.use(LISTED)
        del one.receive
        assert one.get(LISTED) is None
        assert await one.refresh(LISTED)
        assert one.get(LISTED) is not None
        assert server.requests("/jwks") == 1
        wire.stop()

    play(server, scenario)


def test_what_a_worker_used_stays(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.serve("/key/1", PEM)
    monkeypatch.setattr("sidecar.process.key_channel.REPORT_SECONDS", 0.01)

    async def scenario(it: Setup) -> None:
        await it.use()
        wire = Wire(it)
        assert await wire.workers[0].refresh(by_id("1"))
        assert not it.store.entries[by_id("1")].used
        wire.workers[0].used(by_id("1"))
        await asyncio.sleep(0.1)
        assert it.store.entries[by_id("1")].used
        wire.stop()

    play(server, scenario)


def test_a_worker_without_its_parent_waits_for_nothing(server: KeyServer) -> None:
    async def scenario(it: Setup) -> None:
        worker = WorkerKeys()
        assert not await worker.refresh(LISTED)
        assert not await worker.refresh(by_id("1"))
        assert not worker.entries

    play(server, scenario)


def test_a_source_passes_the_channel_unchanged() -> None:
    source = KeySource(
        "https://a.example/x", "n", keep=5, listed=False, id="i", post=b"\xff", headers=(("a", "b"),), hosts=("c",)
    )
    assert unpack_source(json.loads(json.dumps(pack_source(source)))) == source


# -- parts --


def test_a_mirror_is_of_one_document_or_of_everything_below() -> None:
    mirrors = {"https://a.example/x": "https://m.example/1", "https://a.example/": "https://m.example/2/"}
    assert resolve_mirror("https://a.example/x", mirrors) == "https://m.example/1"
    assert resolve_mirror("https://a.example/x/y", mirrors) == "https://m.example/2/x/y"
    assert resolve_mirror("https://a.example.evil/x", mirrors) == "https://a.example.evil/x"
    assert resolve_mirror("https://b.example/x", mirrors) == "https://b.example/x"


@pytest.mark.parametrize(
    "url",
    [
        "http://keys.example.com/jwks",
        "https://user:password@keys.example.com/jwks",
        "https://keys.example.com\\@evil.example/jwks",
        "https://KEYS.example.com/jwks",
        "https://keys.example.com/jwks#x",
        "https://keys.example.com/a b",
        "https://keys.example.com/a\n",
        "file:///etc/passwd",
        "https://[::1]/",
        "",
    ],
)
def test_a_url_that_two_readers_could_read_differently_is_not_fetched(server: KeyServer, url: str) -> None:
    async def scenario(it: Setup) -> None:
        await it.use(KeySource(url, "acme"))
        assert it.metric("key_fetches_total", source="acme", result="unreachable") == 1
        assert "not a plain https URL" in it.events("keys_failed")[0]["detail"]

    play(server, scenario)


@pytest.mark.parametrize(
    ("content", "ids"),
    [
        (jwks("a", "b"), ("a", "b")),
        (json.dumps({"keys": [jwk("a") | {"kid": None}]}).encode(), ("without kid",)),
    ],
)
def test_the_ids_of_keys_are_read_from_every_form(content: bytes, ids: tuple[str, ...]) -> None:
    assert inspect(LISTED, Document(content, 0.0)) == (ids, None)


def test_an_error_page_is_no_document_of_one_key() -> None:
    with pytest.raises(FetchError, match="neither JSON nor PEM"):
        inspect(by_id("1"), Document(b"<html>", 0.0))


def test_a_lifetime_is_read_in_linear_time() -> None:
    assert lifetime_of({"cache-control": "max-age" * 100_000}) == key_fetch.DEFAULT_LIFETIME


def test_no_more_keys_are_waited_for_than_the_start_may_take(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_store, "FIRST_SECONDS", 0.3)
    server.serve("/jwks", hangs=True)

    async def scenario(it: Setup) -> None:
        it.store.apply(it.settings(LISTED), it.log)
        await asyncio.wait_for(it.store.wait_first(), 3)
        for entry in it.store.entries.values():
            assert entry.task is not None
            entry.task.cancel()

    play(server, scenario)
