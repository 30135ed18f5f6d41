"""Providers' handshakes on the wire: answered by the sidecar, passed on, or rejected; signed ones only when verified."""

import base64
import hmac
import json
import time
from typing import Any

import pytest
from client import Response
from craft import Craft, Fields
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from receiver import Receiver
from sidecar_process import Config, Sidecar

DISCORD = Ed25519PrivateKey.from_private_bytes(b"d" * 32)
ENV = {
    "SHAKE_SECRET": "CANARY-SECRET-of-the-handshakes-55ab",
    "X_SECRET": "z3ZX4v7mAAUGykl3EcmkqbartmuW8VFOOzCloLx9Q45P0hLrFu",
    "VERIFY_TOKEN": "CANARY-SECRET-verify-token-13",
    "DISCORD_KEY": DISCORD.public_key().public_bytes_raw().hex(),
}


def route(name: str, preset: Any = None, secret: str = "SHAKE_SECRET", **more: Any) -> dict[str, Any]:
    path = f"/shake/{name}"
    return {"name": name, "path": path, "verify": preset or name, "secrets": [{"env": secret}]} | more


CONFIG: Config = {
    "public_url": "https://hooks.example.com",
    "routes": [
        route("meta", verify_token={"env": "VERIFY_TOKEN"}),
        route("meta-without-token", "meta"),
        route("meta-passed", "meta", handshake="pass"),
        route("slack", handshake="answer"),
        route("slack-unsaid", "slack"),
        route("slack-passed", "slack", handshake="pass"),
        route("slack-shadow", "slack", mode="shadow"),
        route("zoom"),
        route("x", secret="X_SECRET"),
        route("x-shadow", "x", secret="X_SECRET", mode="shadow"),
        route("dropbox"),
        route("nylas"),
        route("onfleet", secret="DISCORD_KEY"),  # in hex as well
        route("asana"),
        route("microsoft-graph"),
        route("okta", allow=["127.0.0.1/32", "127.0.0.2/32"]),
        route("okta-elsewhere", "okta", allow=["203.0.113.0/24"]),
        route("ringcentral"),
        route("linkedin"),
        route("twitch", handshake="answer"),
        route("discord", secret="DISCORD_KEY", handshake="answer"),
        route("front", handshake="answer"),
        route("notion", handshake="answer"),
        route("trello"),
        route("mandrill"),
        route("begini"),
        route("mailersend"),
        route("mailersend-passed", "mailersend", handshake="pass"),
        route("mailersend-shadow", "mailersend", mode="shadow"),
        route("woocommerce"),
        route("woocommerce-passed", "woocommerce", handshake="pass"),
        route("woocommerce-shadow", "woocommerce", mode="shadow"),
        route("added", "github", handshake=["cloudevents", "microsoft-graph", "websub"]),
        route("own-scheme", {"signature": {"header": "X-Acme-Signature"}, "handshake": ["cloudevents"]}),
        route("event-grid", {"signature": {"query": "code", "kind": "token"}}, handshake=["event-grid", "cloudevents"]),
    ],
}


def answered(
    sidecar: Sidecar, receiver: Receiver, name: str, raw: bytes, *, method: str = "GET", source: str | None = None
) -> Response:
    """Sends a handshake that must be answered here; the answer. The receiver sees nothing, and it is no delivery."""
    mark, labels = sidecar.mark(), {"route": name, "result": "answered"}
    before, seen = sidecar.metric("handshakes_total", **labels), receiver.bytes_seen
    deliveries = sidecar.samples("deliveries")
    with sidecar.connect(source) as client:
        answer = client.send(raw).answer(method)
    line = sidecar.line(mark, event="handshake")
    assert (line["route"], line["status"], line["method"]) == (name, answer.status, method)
    assert receiver.bytes_seen == seen
    assert sidecar.metric("handshakes_total", **labels) == before + 1
    assert sidecar.samples("deliveries") == deliveries
    return answer


def get(craft: type[Craft], name: str, query: bytes = b"", headers: Fields = (), method: bytes = b"GET") -> bytes:
    return craft.request(b"/shake/%b%b" % (name.encode(), query), headers, method=method)


def post(craft: type[Craft], name: str, body: bytes, headers: Fields, query: bytes = b"") -> bytes:
    return craft.request(b"/shake/%b%b" % (name.encode(), query), headers, body)


def mac(message: bytes, algorithm: str = "sha256", secret: str = ENV["SHAKE_SECRET"]) -> hmac.HMAC:
    return hmac.new(secret.encode(), message, algorithm)


def slack(craft: type[Craft], body: bytes, name: str = "slack", secret: str = ENV["SHAKE_SECRET"]) -> bytes:
    now = b"%d" % time.time()
    made = mac(b"v0:" + now + b":" + body, secret=secret).hexdigest().encode()
    return post(craft, name, body, [(b"X-Slack-Request-Timestamp", now), (b"X-Slack-Signature", b"v0=" + made)])


URL_VERIFICATION = b'{"token":"CANARY-BODY-5e1d","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY","type":"url_verification"}'


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (("dropbox", b"?challenge=a-b_c1", ()), (b"text/plain; charset=utf-8", b"a-b_c1")),
        (("nylas", b"?challenge=0123abc", ()), (b"text/plain; charset=utf-8", b"0123abc")),
        (("onfleet", b"?check=5f3cbd", ()), (b"text/plain; charset=utf-8", b"5f3cbd")),
        (
            ("x", b"?crc_token=9b4507b3-9040-4669-9ca3-6b94edb50553", ()),
            (b"application/json", b'{"response_token": "sha256=Cytd4Sq+NvEcV3MMrXxWJGJx5A+y/lXzzU2Maartkx8="}'),
        ),
        (
            ("okta", b"", [(b"X-Okta-Verification-Challenge", b"abc")]),
            (b"application/json", b'{"verification": "abc"}'),
        ),
        (
            (
                "meta",
                b"?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=" + ENV["VERIFY_TOKEN"].encode(),
                (),
            ),
            (b"text/plain; charset=utf-8", b"1158201444"),
        ),
        (
            ("linkedin", b"?challengeCode=890e4665-4dfe-4ab1-b689-ed553bceeed0&applicationId=1", ()),
            (
                b"application/json",
                json.dumps(
                    {
                        "challengeCode": "890e4665-4dfe-4ab1-b689-ed553bceeed0",
                        "challengeResponse": mac(b"890e4665-4dfe-4ab1-b689-ed553bceeed0").hexdigest(),
                    }
                ).encode(),
            ),
        ),
    ],
)
def test_a_get_is_answered_here_as_the_provider_wants_it(
    sidecar: Sidecar,
    receiver: Receiver,
    craft: type[Craft],
    asked: tuple[str, bytes, Fields],
    wanted: tuple[bytes, bytes],
) -> None:
    name, query, headers = asked
    content_type, body = wanted
    answer = answered(sidecar, receiver, name, get(craft, name, query, headers))
    assert (answer.status, answer.body) == (200, body)
    assert answer.values(b"content-type") == [content_type]
    assert answer.values(b"x-content-type-options") == [b"nosniff"]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("asana", (b"X-Hook-Secret", b"b537207f20cbfa02357cf448134da559")),
        ("ringcentral", (b"Validation-Token", b"7ab-1")),
    ],
)
def test_a_header_is_echoed(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], name: str, header: tuple[bytes, bytes]
) -> None:
    answer = answered(sidecar, receiver, name, post(craft, name, b"", [header]), method="POST")
    assert (answer.status, answer.body, answer.values(header[0])) == (200, b"", [header[1]])


@pytest.mark.parametrize(("token", "status"), [(ENV["SHAKE_SECRET"], 200), ("another", 403)])
def test_a_delivery_with_ringcentrals_validation_token_is_verified(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], token: str, status: int
) -> None:
    """RingCentral sends the token with every delivery of some subscriptions; only its request without a body is a handshake."""
    headers = [(b"Validation-Token", b"7ab-1"), (b"Verification-Token", token.encode())]
    assert sidecar.ask(post(craft, "ringcentral", b'{"event":"/restapi/v1.0/x"}', headers)).status == status
    assert len(receiver.requests) == (status == 200)


def test_microsofts_sentence_is_echoed(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    query = b"?validationToken=Validation%3a+Testing+client+application+reachability+RequestId%3a+5b1d-77"
    answer = answered(
        sidecar, receiver, "microsoft-graph", post(craft, "microsoft-graph", b"", (), query), method="POST"
    )
    assert answer.body == b"Validation: Testing client application reachability RequestId: 5b1d-77"
    assert answer.values(b"content-type") == [b"text/plain; charset=utf-8"]


@pytest.mark.parametrize("name", ["trello", "mandrill"])
def test_a_probe_with_head_is_answered_200(sidecar: Sidecar, receiver: Receiver, craft: type[Craft], name: str) -> None:
    answer = answered(sidecar, receiver, name, get(craft, name, method=b"HEAD"), method="HEAD")
    assert (answer.status, answer.body) == (200, b"")


def test_the_connection_serves_on_after_an_answer(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    with sidecar.connect() as client:
        for n in range(3):
            assert client.send(get(craft, "dropbox", b"?challenge=%d" % n)).answer("GET").body == b"%d" % n
        assert client.send(slack(craft, b'{"type":"event_callback"}')).answer().status == 200


# -- signed --


def test_slacks_challenge_is_answered_once_it_is_verified(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    answer = answered(sidecar, receiver, "slack", slack(craft, URL_VERIFICATION), method="POST")
    assert (answer.status, answer.body) == (200, b"3eZbrw1aBm2rZgRNFdxV2595E9CY")
    raw = slack(craft, URL_VERIFICATION, secret="another one, which is wrong")
    sidecar.refused(raw, 403, "signature_mismatch", route="slack", receiver=receiver)


def test_zooms_token_is_signed_only_for_zoom_and_never_what_could_be_a_delivery(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    def zoom(token: str) -> bytes:
        body = json.dumps({"event": "endpoint.url_validation", "payload": {"plainToken": token}}).encode()
        now = b"%d" % time.time()
        made = b"v0=" + mac(b"v0:" + now + b":" + body).hexdigest().encode()
        return post(craft, "zoom", body, [(b"x-zm-request-timestamp", now), (b"x-zm-signature", made)])

    answer = answered(sidecar, receiver, "zoom", zoom("qgg8vlvZRS6UYooatFL8Aw"), method="POST")
    made = mac(b"qgg8vlvZRS6UYooatFL8Aw").hexdigest()
    assert json.loads(answer.body) == {"plainToken": "qgg8vlvZRS6UYooatFL8Aw", "encryptedToken": made}
    rejected = sidecar.metric("handshakes_total", route="zoom", result="rejected")
    answer = sidecar.refused(zoom("v0:1:{}"), 400, "malformed_request", route="zoom", receiver=receiver)
    assert b"v0" not in answer.body
    assert sidecar.metric("handshakes_total", route="zoom", result="rejected") == rejected + 1
    forged = zoom("abc").replace(b'"abc"', b'"abd"')
    sidecar.refused(forged, 403, "signature_mismatch", route="zoom", receiver=receiver)


def test_twitchs_challenge_is_answered_as_text(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    body = b'{"challenge":"pogchamp-kappa-360noscope-vohiyo","subscription":{"id":"f1c2a387"}}'
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime()).encode()
    made = b"sha256=" + mac(b"id-1" + stamp + body).hexdigest().encode()

    def twitch(kind: bytes) -> bytes:
        headers = [
            (b"Twitch-Eventsub-Message-Id", b"id-1"),
            (b"Twitch-Eventsub-Message-Timestamp", stamp),
            (b"Twitch-Eventsub-Message-Signature", made),
            (b"Twitch-Eventsub-Message-Type", kind),
        ]
        return post(craft, "twitch", body, headers)

    answer = answered(sidecar, receiver, "twitch", twitch(b"webhook_callback_verification"), method="POST")
    assert answer.body == b"pogchamp-kappa-360noscope-vohiyo"
    assert sidecar.ask(twitch(b"notification")).status == 200
    assert receiver.wait().body == body


def test_discords_pings_are_answered_and_its_events_are_not(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    def discord(body: bytes) -> bytes:
        stamp = b"%d" % time.time()
        made = DISCORD.sign(stamp + body).hex().encode()
        return post(craft, "discord", body, [(b"X-Signature-Ed25519", made), (b"X-Signature-Timestamp", stamp)])

    answer = answered(sidecar, receiver, "discord", discord(b'{"type":1,"token":"t"}'), method="POST")
    assert (answer.status, json.loads(answer.body)) == (200, {"type": 1})
    answer = answered(sidecar, receiver, "discord", discord(b'{"version":1,"type":0}'), method="POST")
    assert (answer.status, answer.body) == (204, b"")
    event = b'{"version":1,"type":1,"event":{"type":"APPLICATION_AUTHORIZED"}}'
    assert sidecar.ask(discord(event)).status == 200
    assert receiver.wait().body == event


def test_fronts_and_notions_first_deliveries_are_answered(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    stamp, body = b"%d" % (time.time() * 1000), b"{}"
    made = base64.b64encode(mac(stamp + b":" + body).digest())
    headers = [(b"X-Front-Request-Timestamp", stamp), (b"X-Front-Signature", made), (b"X-Front-Challenge", b"c-1")]
    assert json.loads(
        answered(sidecar, receiver, "front", post(craft, "front", body, headers), method="POST").body
    ) == {"challenge": "c-1"}
    body = b'{"verification_token":"secret_tMrlL1qK5vuQAh1b6cZGhFChZTSYJlce98V0pYn7yBl"}'
    made = b"sha256=" + mac(body).hexdigest().encode()
    answer = answered(
        sidecar, receiver, "notion", post(craft, "notion", body, [(b"X-Notion-Signature", made)]), method="POST"
    )
    assert (answer.status, answer.body) == (200, b"")


# -- passed on --


@pytest.mark.parametrize("name", ["slack-passed", "slack-unsaid"])
def test_a_handshake_that_the_route_passes_is_answered_by_the_receiver(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], name: str
) -> None:
    """So is, where the route doesn't say, a signed one that needs no secret."""
    before = sidecar.metric("handshakes_total", route=name, result="passed")
    mark = sidecar.mark()
    receiver.then(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")
    assert sidecar.ask(slack(craft, URL_VERIFICATION, name)).body == b"mine"
    assert receiver.wait().values(b"X-Webhook-Verified") == [name.encode()]
    line = sidecar.delivery(mark)
    assert (line["outcome"], line["handshake"]) == ("accepted", "passed")
    assert sidecar.metric("handshakes_total", route=name, result="passed") == before + 1


def test_an_unsigned_one_that_is_passed_claims_no_verification(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    target = b"?hub.mode=subscribe&hub.challenge=1&hub.verify_token=the-receivers"
    assert sidecar.ask(get(craft, "meta-passed", target), method="GET").status == 200
    seen = receiver.wait()
    assert seen.target == b"/shake/meta-passed" + target
    assert seen.values(b"X-Webhook-Verified") == []
    sidecar.refused(
        get(craft, "meta-passed", b"?hub.mode=other"),
        405, "method_not_allowed", route="meta-passed", receiver=receiver, method="GET",
    )  # fmt: skip


def test_an_unsigned_one_with_a_body_or_without_a_challenge_is_not_passed(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    """Anyone can send it: nothing but the handshake itself may reach the receiver."""
    path = b"/shake/meta-passed?hub.mode=subscribe&hub.verify_token=x&hub.challenge="
    event = b'{"object":"page","entry":[{"id":"1"}]}'
    for raw in (
        craft.request(path + b"7", body=event, method=b"GET"),
        craft.request(path + b"7", [(b"Transfer-Encoding", b"chunked")], craft.chunked(event), method=b"GET"),
        craft.request(path + b"%3Cscript%3E", method=b"GET"),
    ):
        sidecar.refused(raw, 405, "method_not_allowed", route="meta-passed", receiver=receiver, method="GET")


# -- refused --


@pytest.mark.parametrize("token", [b"", b"wrong", b"%ff", b"CANARY-SECRET-verify-token-1"])
def test_a_wrong_verify_token_is_refused_like_a_wrong_signature(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], token: bytes
) -> None:
    raw = get(craft, "meta", b"?hub.mode=subscribe&hub.challenge=1&hub.verify_token=" + token)
    answer = sidecar.refused(raw, 403, "token_mismatch", route="meta", receiver=receiver, method="GET")
    assert answer.body == b'{"detail":"Validation Failure"}'


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("dropbox", b"?challenge=%3Cscript%3Ealert(1)%3C/script%3E"),
        ("dropbox", b"?challenge=a%0d%0aSet-Cookie:%20a=b"),
        ("dropbox", b"?challenge=" + b"a" * 600),
        ("x", b"?crc_token=%7B%22a%22:1%7D"),
        ("x", b"?crc_token="),
    ],
)
def test_a_challenge_that_is_none_is_neither_echoed_nor_signed(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], name: str, query: bytes
) -> None:
    answer = sidecar.refused(
        get(craft, name, query), 400, "malformed_request", route=name, receiver=receiver, method="GET"
    )
    assert answer.body == b'{"detail":"Bad Request"}'


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("begini", b"?challenge=1"),
        ("dropbox", b""),
        ("dropbox", b"?challenge=1&challenge=2"),
        ("meta", b"?hub.challenge=1"),
        ("meta-without-token", b"?hub.mode=subscribe&hub.challenge=1&hub.verify_token="),
        ("slack", b"?challenge=1"),
    ],
)
def test_a_get_that_is_no_handshake_is_405(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], name: str, query: bytes
) -> None:
    raw = get(craft, name, query)
    answer = sidecar.refused(raw, 405, "method_not_allowed", route=name, receiver=receiver, method="GET")
    assert answer.values(b"allow") == [b"POST"]


def test_the_allowlist_counts_for_handshakes_too(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    asked = [(b"X-Okta-Verification-Challenge", b"abc")]
    sidecar.refused(
        get(craft, "okta-elsewhere", headers=asked),
        403, "ip_not_allowed", route="okta-elsewhere", receiver=receiver, method="GET",
    )  # fmt: skip


def test_in_shadow_mode_an_unverified_handshake_goes_to_the_receiver(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    assert sidecar.ask(slack(craft, URL_VERIFICATION, "slack-shadow", secret="a wrong one")).status == 200
    assert receiver.wait().values(b"X-Webhook-Verified") == [b"shadow-rejected"]


def test_every_result_of_every_route_with_a_handshake_is_a_series_from_the_start(sidecar: Sidecar) -> None:
    with_handshake = {each["name"] for each in CONFIG["routes"]} - {"begini", "meta-without-token"}
    found = {(dict(labels)["route"], dict(labels)["result"]) for _, labels in sidecar.samples("handshakes_total")}
    assert found == {(name, result) for name in with_handshake for result in ("answered", "passed", "rejected")}


def test_what_a_challenge_had_signed_is_no_delivery(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    """Anybody may have X's challenge signed, and so send its text as a body with a right signature."""
    for token in (b"9b4507b3-9040-4669-9ca3-6b94edb50553", b"1", b"null"):
        answer = answered(sidecar, receiver, "x", get(craft, "x", b"?crc_token=" + token))
        header = (b"x-twitter-webhooks-signature", json.loads(answer.body)["response_token"].encode())
        sidecar.refused(post(craft, "x", token, [header]), 403, "signature_mismatch", route="x", receiver=receiver)
    matches = sidecar.metric("secret_matches_total", route="x-shadow", secret="X_SECRET")
    assert sidecar.ask(post(craft, "x-shadow", token, [header])).status == 200
    assert receiver.wait().values(b"X-Webhook-Verified") == [b"shadow-rejected"]
    assert sidecar.metric("secret_matches_total", route="x-shadow", secret="X_SECRET") == matches
    body = b'{"for_user_id":"1"}'
    made = b"sha256=" + base64.b64encode(mac(body, secret=ENV["X_SECRET"]).digest())
    assert sidecar.ask(post(craft, "x", body, [(b"x-twitter-webhooks-signature", made)])).status == 200


# -- handshakes that a published secret signs, that nothing signs, and that a route adds --


PUBLISHED = "test_Am3L1GuOIc4blLUuHqAPxxwkZaJyEk8G"
PING = b'{"type":"webhook.test","message":"This is a ping test message","created_at":"2026-03-27T07:24:20.577080Z"}'


def mailersend(craft: type[Craft], body: bytes, secret: str, name: str = "mailersend") -> bytes:
    signature = hmac.new(secret.encode(), body, "sha256").hexdigest().encode()
    return craft.request(f"/shake/{name}".encode(), [(b"Signature", signature)], body)


@pytest.mark.parametrize("name", ["mailersend", "mailersend-passed", "mailersend-shadow"])
def test_a_test_that_the_published_secret_signs_is_answered_and_never_forwarded(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], name: str
) -> None:
    answer = answered(sidecar, receiver, name, mailersend(craft, PING, PUBLISHED, name), method="POST")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("body", "secret"),
    [
        (b'{"type":"activity.sent"}', PUBLISHED),
        (b'{"type":"activity.sent","data":{"type":"webhook.test"}}', PUBLISHED),
        (b'[{"type":"webhook.test"}]', PUBLISHED),
        (b'{"type":"webhook.test"', PUBLISHED),
        (PING + b" " * 16_384, PUBLISHED),
        (PING, "another"),
    ],
)
def test_the_published_secret_signs_nothing_else(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes, secret: str
) -> None:
    raw = mailersend(craft, body, secret)
    sidecar.refused(raw, 403, "signature_mismatch", route="mailersend", receiver=receiver)


def test_a_test_that_the_routes_own_secret_signs_is_a_delivery(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    assert sidecar.ask(mailersend(craft, PING, ENV["SHAKE_SECRET"])).body == b"ok"
    assert receiver.requests[-1].target == b"/shake/mailersend"


def woocommerce(craft: type[Craft], body: bytes, name: str = "woocommerce", headers: Fields = ()) -> bytes:
    form = (b"Content-Type", b"application/x-www-form-urlencoded")
    return craft.request(f"/shake/{name}".encode(), [form, *headers], body)


@pytest.mark.parametrize("name", ["woocommerce", "woocommerce-passed", "woocommerce-shadow"])
def test_an_unsigned_ping_is_answered_and_never_forwarded(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], name: str
) -> None:
    answer = answered(sidecar, receiver, name, woocommerce(craft, b"webhook_id=17", name), method="POST")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"", [], "signature_missing"),
        (b"webhook_id=", [], "signature_missing"),
        (b"webhook_id=1&a=2", [], "signature_missing"),
        (b"webhook_id=1\n", [], "signature_missing"),
        (b'{"id":1}', [], "signature_missing"),
        (b"webhook_id=1" + b"0" * 300, [], "signature_missing"),
        (b"webhook_id=1", [(b"X-WC-Webhook-Signature", b"A" * 43 + b"=")], "signature_mismatch"),
        (b"c\r\nwebhook_id=1\r\n0\r\n\r\n", [(b"Transfer-Encoding", b"chunked")], "signature_missing"),
    ],
)
def test_any_other_unsigned_body_is_rejected(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], body: bytes, headers: Fields, reason: str
) -> None:
    raw = woocommerce(craft, body, headers=headers)
    sidecar.refused(raw, 403, reason, route="woocommerce", receiver=receiver)


def options(craft: type[Craft], name: str, origin: bytes, method: bytes = b"OPTIONS") -> bytes:
    return craft.request(f"/shake/{name}".encode(), [(b"WebHook-Request-Origin", origin)], method=method)


def test_a_cloudevents_sender_may_send_to_a_route_that_adds_the_handshake(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    for name in ("added", "own-scheme"):
        answer = answered(sidecar, receiver, name, options(craft, name, b"eventgrid.azure.net"), method="OPTIONS")
        assert (answer.status, answer.body) == (200, b"")
        assert answer.values(b"webhook-allowed-origin") == [b"eventgrid.azure.net"]
        assert answer.values(b"webhook-allowed-rate") == [b"*"]
        assert answer.values(b"access-control-allow-origin") == []


@pytest.mark.parametrize("origin", [b"<script>", b"a b", b"http://x/", b"x" * 254, b"a\x01b", b"*"])
def test_an_origin_that_is_no_host_is_not_repeated(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], origin: bytes
) -> None:
    answer = sidecar.ask(options(craft, "added", origin), method="OPTIONS")
    assert (answer.status, receiver.bytes_seen) == (400, 0)
    assert answer.values(b"webhook-allowed-origin") == []


VALIDATION = [
    {
        "id": "2d1781af-3a4c-4d7c-bd0c-e34b19da4e66",
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "data": {"validationCode": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6", "validationUrl": "https://x.example/"},
    }
]
EVENT_GRID = (b"aeg-event-type", b"SubscriptionValidation")


def event_grid(craft: type[Craft], document: Any, *headers: tuple[bytes, bytes], code: str = "") -> bytes:
    target = f"/shake/event-grid?code={code or ENV['SHAKE_SECRET']}".encode()
    return craft.request(target, headers, json.dumps(document).encode())


def test_event_grid_gets_its_code_back_once_the_token_is_verified(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    answer = answered(sidecar, receiver, "event-grid", event_grid(craft, VALIDATION, EVENT_GRID), method="POST")
    assert json.loads(answer.body) == {"validationResponse": VALIDATION[0]["data"]["validationCode"]}  # type: ignore[index]
    assert answer.values(b"content-type") == [b"application/json"]
    assert answer.values(b"x-content-type-options") == [b"nosniff"]
    wrong = event_grid(craft, VALIDATION, EVENT_GRID, code="wrong")
    sidecar.refused(wrong, 403, "token_mismatch", route="event-grid", receiver=receiver)


def test_events_of_event_grid_are_deliveries(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    event = [VALIDATION[0] | {"eventType": "Microsoft.Storage.BlobCreated"}]
    notification = (b"aeg-event-type", b"Notification")
    for raw in (
        event_grid(craft, event, notification),
        event_grid(craft, event, EVENT_GRID),
        event_grid(craft, VALIDATION, notification),
        event_grid(craft, [], EVENT_GRID),
    ):
        assert sidecar.ask(raw).body == b"ok"


def test_a_code_that_could_be_markup_is_not_repeated(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    document = [VALIDATION[0] | {"data": {"validationCode": "<script>alert(1)</script>"}}]
    answer = sidecar.ask(event_grid(craft, document, EVENT_GRID))
    assert answer.status == 400
    assert b"script" not in answer.body


def test_microsoft_graph_and_websub_are_handshakes_of_any_route(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.request(b"/shake/added?validationToken=Validation%3A+Testing+1", body=b"")
    answer = answered(sidecar, receiver, "added", raw, method="POST")
    assert (answer.body, answer.values(b"content-type")) == (b"Validation: Testing 1", [b"text/plain; charset=utf-8"])
    raw = get(craft, "added", b"?hub.mode=subscribe&hub.topic=x&hub.challenge=c123")
    assert answered(sidecar, receiver, "added", raw).body == b"c123"
    raw = get(craft, "added", b"?hub.mode=unsubscribe&hub.topic=x&hub.challenge=c123")
    assert sidecar.ask(raw, method="GET").status == 405
    raw = craft.request(b"/shake/added?validationToken=%3Cscript%3E", body=b"")
    assert sidecar.ask(raw).status == 400


def test_deliveries_of_a_route_that_adds_handshakes_are_verified(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    body = craft.json_body
    signature = b"sha256=" + hmac.new(ENV["SHAKE_SECRET"].encode(), body, "sha256").hexdigest().encode()
    signed = craft.request(b"/shake/added", [(b"X-Hub-Signature-256", signature)], body)
    assert sidecar.ask(signed).body == b"ok"
    unsigned = craft.request(b"/shake/added", [(b"WebHook-Request-Origin", b"eventgrid.azure.net")], body)
    sidecar.refused(unsigned, 403, "signature_missing", route="added", receiver=receiver)
