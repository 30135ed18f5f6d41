"""Replay protection on the wire: what was taken is forwarded once; what failed comes through again."""

import base64
import json
import threading
import time
from typing import Any

import pytest
from craft import Craft
from receiver import Peer, Receiver
from sidecar_process import Config, Sidecar, Start
from waiting import WaitUntil


def route(name: str, verify: str = "begini", secret: str = "BEGINI_API_KEY", **more: Any) -> Config:
    base = {"name": name, "path": f"/webhooks/{name}", "verify": verify, "secrets": [{"id": "current", "env": secret}]}
    return base | {"replay": "10m"} | more


CONFIG = {
    "routes": [
        route("begini"),
        route("other"),
        route("short", replay="300ms"),
        route("shadow", mode="shadow"),
        route("slack", "slack", "SLACK_SECRET"),
        route("framer", "framer", "ACME_SECRET"),
        route("hubspot", "hubspot-v3", "ACME_SECRET", public_url="https://hooks.example.com"),
        {
            "name": "acme",
            "path": "/webhooks/acme",
            "verify": {
                "signature": {"header": "X-Acme-Signature"},
                "delivery_id": {"header": "X-Acme-Id"},
                "signed": "{id}.{body}",
            },
            "secrets": [{"env": "ACME_SECRET"}],
            "replay": "10m",
        },
    ]
}
DELIVERED = b'{"detail":"Already delivered"}'
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
numbers = iter(range(1, 1000))


@pytest.fixture
def body(craft: type[Craft]) -> bytes:
    """One that no test had before."""
    return b'{"mark":"%b","n":%d}' % (craft.body_mark, next(numbers))


def replayed(sidecar: Sidecar, receiver: Receiver, raw: bytes, *, name: str = "begini") -> None:
    """Sends a copy of what was taken: answered like a success, and the receiver has no part in it."""
    answer = sidecar.refused(raw, 200, "replayed", receiver=receiver, route=name)
    assert answer.body == DELIVERED
    assert answer.values(b"content-type") == [b"application/json"]


def test_a_copy_of_what_was_taken_is_answered_200_and_not_forwarded(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    raw = craft.begini(body)
    assert sidecar.ask(raw).body == b"ok"
    replayed(sidecar, receiver, raw)
    replayed(sidecar, receiver, raw)
    assert len(receiver.requests) == 1


def test_a_copy_is_counted_as_a_duplicate_and_listed_among_no_rejections(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    raw = craft.begini(body)
    assert sidecar.ask(raw).body == b"ok"
    ends = [{"outcome": outcome, "reason": "replayed"} for outcome in ("duplicate", "rejected")]
    before = [sidecar.metric("deliveries_total", route="begini", **end) for end in ends]
    mark = sidecar.mark()
    replayed(sidecar, receiver, raw)
    assert sidecar.delivery(mark)["level"] == "info"
    after = [sidecar.metric("deliveries_total", route="begini", **end) for end in ends]
    assert after == [before[0] + 1, before[1]]
    rejections = json.loads(sidecar.admin("/", headers={"Accept": "application/json"})[1])["refusals"]
    assert not [each for each in rejections if each["outcome"] == "duplicate" or each["status"] == 200]
    page = sidecar.admin("/", headers={"Accept": "text/html"})[1].decode()
    assert f'<span class="duplicate">duplicate</span> replayed</td><td class="n">{after[0]:.0f}<' in page


def test_unsigned_headers_and_another_case_of_the_same_make_no_new_delivery(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    assert sidecar.ask(craft.begini(body)).status == 200
    replayed(sidecar, receiver, craft.begini(body, [(b"X-Request-Id", b"another"), (b"X-Delivery", b"2")]))
    mac = craft.mac("BEGINI_API_KEY", body)
    replayed(sidecar, receiver, craft.request(b"/webhooks/begini?again=1", [(b"x-sIGNATURE", mac)], body))


def test_another_body_is_another_delivery_and_another_route_has_its_own(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    assert sidecar.ask(craft.begini(body)).body == b"ok"
    assert sidecar.ask(craft.begini(body + b" ")).body == b"ok"
    assert sidecar.ask(craft.begini(body, path=b"/webhooks/other")).body == b"ok"


def test_a_forged_copy_learns_nothing_of_what_was_taken(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    assert sidecar.ask(craft.begini(body)).status == 200
    sidecar.refused(craft.begini(body, secret="ACME_SECRET"), 403, "signature_mismatch", receiver=receiver)


@pytest.mark.parametrize(
    "answer",
    [
        BUSY,
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        pytest.param(lambda peer: peer.close(), id="closed without an answer"),
        pytest.param(
            lambda peer: peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhal") or peer.close(), id="cut"
        ),
        pytest.param(lambda peer: peer.send(b"what?\r\n\r\n") or peer.close(), id="no HTTP"),
    ],
)
def test_what_the_receiver_did_not_take_is_forwarded_again(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes, answer: bytes
) -> None:
    raw = craft.begini(body)
    receiver.then(answer)
    sidecar.ask(raw)
    assert sidecar.ask(raw).body == b"ok"
    assert len(receiver.requests) == 2
    replayed(sidecar, receiver, raw)


def test_what_the_receiver_was_too_slow_for_is_forwarded_again(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    raw = craft.begini(body)
    receiver.then(lambda peer: peer.gone())
    assert sidecar.ask(raw).status == 504
    assert sidecar.ask(raw).body == b"ok"
    replayed(sidecar, receiver, raw)


def test_what_was_under_way_when_its_sender_left_is_forwarded_again(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes, wait_until: WaitUntil
) -> None:
    raw = craft.begini(body)
    receiver.then(lambda peer: peer.gone())
    mark = sidecar.mark()
    with sidecar.connect() as client:
        client.send(raw)
        receiver.wait()
        client.leave()
    assert sidecar.delivery(mark)["reason"] == "client_disconnected"
    assert sidecar.ask(raw).body == b"ok"
    assert len(receiver.requests) == 2


def test_an_answer_in_pieces_counts_when_it_is_whole(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    def slowly(peer: Peer) -> None:
        peer.read_body()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        threading.Event().wait(0.05)
        peer.send(b"0\r\n\r\n")

    raw = craft.begini(body)
    receiver.then(slowly)
    assert sidecar.ask(raw).body == b"ab"
    replayed(sidecar, receiver, raw)


def test_a_copy_of_what_is_under_way_waits_and_learns_how_it_ended(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    """The one under way fails; of the copies that wait one is forwarded, and the others learn that it was taken."""
    go = threading.Event()

    def fail(peer: Peer) -> None:
        peer.read_body()
        assert go.wait(5)
        peer.send(BUSY)

    raw = craft.begini(body)
    receiver.then(fail)
    clients = [sidecar.connect() for _ in range(4)]
    clients[0].send(raw)
    receiver.wait()
    for client in clients[1:]:
        client.send(raw)
    threading.Event().wait(0.1)
    assert len(receiver.requests) == 1
    go.set()
    answers = [client.answer() for client in clients]
    for client in clients:
        client.close()
    assert answers[0].status == 503
    assert sorted(answer.body for answer in answers[1:]) == sorted([b"ok", DELIVERED, DELIVERED])
    assert len(receiver.requests) == 2


def test_a_copy_of_a_slow_delivery_gets_409_and_retry_after(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    go = threading.Event()

    def late(peer: Peer) -> None:
        peer.read_body()
        assert go.wait(5)
        peer.send(craft.ok)

    raw = craft.begini(body)
    receiver.then(late)
    with sidecar.connect() as first:
        first.send(raw)
        receiver.wait()
        before = receiver.bytes_seen
        mark = sidecar.mark()
        answer = sidecar.ask(raw)
        sidecar.was_refused(answer, 409, "replayed", receiver=receiver, mark=mark, bytes_before=before)
        assert answer.values(b"retry-after") == [b"5"]
        go.set()
        assert first.answer().body == b"ok"
    sidecar.delivery(mark, reason="")
    replayed(sidecar, receiver, raw)


def test_a_delivery_is_new_again_after_the_time_of_its_route(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    raw = craft.begini(body, path=b"/webhooks/short")
    assert sidecar.ask(raw).body == b"ok"
    replayed(sidecar, receiver, raw, name="short")
    threading.Event().wait(0.32)
    assert sidecar.ask(raw).body == b"ok"


def test_a_signed_timestamp_makes_a_retry_a_new_delivery_and_a_signed_id_does_not(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    assert sidecar.ask(craft.slack(body)).body == b"ok"
    retry = craft.slack(body, age=60)  # of another second, whenever this runs
    assert sidecar.ask(retry).body == b"ok"
    replayed(sidecar, receiver, retry, name="slack")

    def acme(ident: bytes, content: bytes) -> bytes:
        mac = craft.mac("ACME_SECRET", ident + b"." + content, "sha256")
        return craft.request(b"/webhooks/acme", [(b"X-Acme-Id", ident), (b"X-Acme-Signature", mac)], content)

    assert sidecar.ask(acme(b"id-1", body)).body == b"ok"
    assert sidecar.ask(acme(b"id-2", body)).body == b"ok"
    replayed(sidecar, receiver, acme(b"id-1", body + b"another attempt, another body"), name="acme")


def test_an_id_that_took_the_start_of_the_body_is_known_again(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    body = b'{"n":%d}' % next(numbers)  # without the mark that no log may hold: ids are logged
    mac = craft.mac("ACME_SECRET", b"id-7." + body + b".end", "sha256")

    def acme(ident: bytes, content: bytes) -> bytes:
        return craft.request(b"/webhooks/acme", [(b"X-Acme-Id", ident), (b"X-Acme-Signature", mac)], content)

    assert sidecar.ask(acme(b"id-7", body + b".end")).body == b"ok"
    replayed(sidecar, receiver, acme(b"id-7." + body, b"end"), name="acme")
    assert len(receiver.requests) == 1


def test_bytes_moved_between_body_and_id_make_no_new_delivery(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    body = b'{"n":%d}' % next(numbers)
    mac = b"sha256=" + craft.mac("ACME_SECRET", body + b"9-c0ffee", "sha256")

    def framer(content: bytes, ident: bytes) -> bytes:
        headers = [(b"Framer-Signature", mac), (b"Framer-Webhook-Submission-Id", ident)]
        return craft.request(b"/webhooks/framer", headers, content)

    assert sidecar.ask(framer(body, b"9-c0ffee")).body == b"ok"
    for cut in (1, 3, 7, len(body) + 2):
        whole = body + b"9-c0ffee"
        replayed(sidecar, receiver, framer(whole[:cut], whole[cut:]), name="framer")
    assert len(receiver.requests) == 1


def test_another_spelling_of_the_signed_url_makes_no_new_delivery(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    now = b"%d" % (time.time() * 1000)
    path = b"/webhooks/hubspot?to=(x)@y;z"
    message = b"POSThttps://hooks.example.com" + path + body + now
    mac = base64.b64encode(bytes.fromhex(craft.mac("ACME_SECRET", message, "sha256").decode()))
    headers = [(b"X-HubSpot-Signature-v3", mac), (b"X-HubSpot-Request-Timestamp", now)]
    assert sidecar.ask(craft.request(path, headers, body)).body == b"ok"
    for plain, escape in ((b"(", b"%28"), (b")", b"%29"), (b"@", b"%40"), (b";", b"%3b"), (b";", b"%3B")):
        replayed(sidecar, receiver, craft.request(path.replace(plain, escape), headers, body), name="hubspot")
    assert len(receiver.requests) == 1


def test_shadow_mode_forwards_a_copy_and_counts_it(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    raw = craft.begini(body, path=b"/webhooks/shadow")
    before = sidecar.metric("shadow_rejections_total", route="shadow", reason="replayed")
    assert sidecar.ask(raw).body == b"ok"
    mark = sidecar.mark()
    assert sidecar.ask(raw).body == b"ok"
    assert [seen.values(b"X-Webhook-Verified") for seen in receiver.requests] == [[b"shadow"], [b"shadow-rejected"]]
    line = sidecar.delivery(mark)
    assert (line["outcome"], line["reason"], line["shadow_reason"]) == ("accepted", "", "replayed")
    assert sidecar.metric("shadow_rejections_total", route="shadow", reason="replayed") == before + 1


def test_a_large_delivery_is_known_again(sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes) -> None:
    raw = craft.begini(body + b" " * 1_500_000)
    assert sidecar.ask(raw).body == b"ok"
    replayed(sidecar, receiver, raw)


def test_a_reload_forgets_nothing(sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes) -> None:
    raw = craft.begini(body)
    assert sidecar.ask(raw).body == b"ok"
    assert sidecar.admin("/-/reload", method="POST")[0] == 200
    replayed(sidecar, receiver, raw)


# By the provider's delivery id

BY_ID = {"replay": {"for": "72h", "by": "delivery_id"}}
ID_ROUTES = {
    "routes": [
        route("begini"),
        route("github", "github", "GITHUB_SECRET", **BY_ID),
        route("gitlab", "gitlab", "GITHUB_SECRET", **BY_ID),
    ]
}


def test_the_same_id_is_a_copy_whatever_the_body_and_another_id_is_none(
    start: Start, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    running = start(ID_ROUTES)

    def sent(ident: bytes, content: bytes) -> bytes:
        headers = [(b"X-GitHub-Delivery", ident)] if ident else []
        return running.ask(craft.github(content, headers)).body

    assert sent(b"d-1", body) == b"ok"
    assert sent(b"d-1", body) == sent(b"d-1", body + b" ") == DELIVERED
    assert sent(b"d-2", body) == b"ok"  # two events with the same bytes
    assert sent(b"", body + b"  ") == b"ok"  # without an id, what was signed counts
    assert sent(b"", body + b"  ") == DELIVERED
    assert sent(b"d-3", body + b"  ") == b"ok"
    assert len(receiver.requests) == 4


def test_with_a_token_deliveries_are_known_by_their_id_and_without_one_not_at_all(
    start: Start, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    running = start(ID_ROUTES)
    ident = (b"Idempotency-Key", b"13792a34-cac6-4fda-95a8-c58e00a3954e")

    def sent(*headers: tuple[bytes, bytes], token: bytes = b"CANARY-SECRET-github-11c9") -> tuple[int, bytes]:
        answer = running.ask(craft.request(b"/webhooks/gitlab", [(b"X-Gitlab-Token", token), *headers], body))
        return answer.status, answer.body

    assert sent(ident, token=b"wrong")[0] == 403  # a forger uses up no id
    assert sent(ident) == (200, b"ok")
    assert sent(ident) == (200, DELIVERED)
    assert sent() == sent() == (200, b"ok")
    assert len(receiver.requests) == 3


def test_a_delivery_that_failed_is_forwarded_again_by_its_id(
    start: Start, receiver: Receiver, craft: type[Craft], body: bytes
) -> None:
    running = start(ID_ROUTES)
    raw = craft.github(body, [(b"X-GitHub-Delivery", b"d-9")])
    receiver.then(BUSY)
    assert [running.ask(raw).status for _ in range(3)] == [503, 200, 200]
    assert len(receiver.requests) == 2
