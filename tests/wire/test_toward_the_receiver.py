"""`headers:` and `sign: {scheme: ...}` on the wire: what receivers that people run get, and what nobody gets."""

import base64
import hmac
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import leak_watch
import pytest
import real_receivers
from craft import Craft
from receiver import Receiver, Seen
from sidecar_process import Config, Sidecar, Start

TOKEN = "CANARY-SECRET-receiver-token-44d1"
GITHUB = "CANARY-SECRET-receiver-github-8c20"
NEXT = "CANARY-SECRET-receiver-next-0b6e"
ENV = {
    "RECEIVER_TOKEN": TOKEN,
    "RECEIVER_GITHUB": GITHUB,
    "RECEIVER_NEXT": NEXT,
    "RECEIVER_USER": "user:CANARY-SECRET-password",
    "STANDARD_SECRET": "whsec_" + base64.b64encode(b"CANARY-SECRET-a-standard-sender").decode(),
}
HEADERS = {
    "set": {"Authorization": {"env": "RECEIVER_TOKEN", "prefix": "Bearer "}, "X-Env": "prod"},
    "remove": ["X-Github-Encoded-Secret", "X-Internal-*"],
}
OLD = {
    "signature": {"header": "X-Hub-Signature", "algorithm": "sha1", "prefix": "sha1="},
}


def route(name: str, **more: Any) -> Config:
    base = {"name": name, "path": f"/webhooks/{name}", "verify": "begini", "secrets": [{"env": "BEGINI_API_KEY"}]}
    return base | more


def signed(name: str, scheme: Any, secret: Any = None, **more: Any) -> Config:
    return route(name, sign={"scheme": scheme, "secret": secret or {"env": "RECEIVER_GITHUB"}}, **more)


CONFIG: Config = {
    "public_url": "https://hooks.example.com",
    "routes": [
        route("begini", headers=HEADERS),
        route("shadow", headers=HEADERS, mode="shadow"),
        route("wide", headers={"remove": ["h*", "content-*", "x-*"]}),
        {"path": "/open", "open": True, "headers": {"set": {"X-Env": "prod"}, "remove": ["X-Internal-*"]}},
        {"path": "/network", "verify": "none", "allow": ["127.0.0.3/32"], "headers": HEADERS},
        signed("github", "github", verify="github", secrets=[{"env": "GITHUB_SECRET"}, {"env": "OTHER_API_KEY"}]),
        signed("old", OLD),
        signed("slack", "slack"),
        signed("stripe", "stripe", [{"env": "RECEIVER_GITHUB"}, {"env": "RECEIVER_NEXT"}]),
        signed("token", "gitlab"),
        signed("basic", {"signature": {"header": "Authorization", "kind": "basic"}}, {"env": "RECEIVER_USER"}),
        signed("twilio", {"signature": {"header": "X-Url-Signature"}, "signed": "{method}{url}{body}"}),
        signed("shadow-signed", "github", mode="shadow"),
        signed(
            "ids",
            {"signature": {"header": "X-Acme"}, "delivery_id": {"header": "Webhook-Id"}, "signed": "{id}.{body}"},
            verify="standard-webhooks",
            secrets=[{"env": "STANDARD_SECRET"}],
        ),
    ],
}


def mac(message: bytes, algorithm: str = "sha256", secret: str = GITHUB) -> str:
    made = hmac.new(secret.encode(), message, algorithm).hexdigest()
    leak_watch.signature(made.encode())
    return made


def standard_delivery(craft: type[Craft], ident: bytes) -> bytes:
    """A delivery to the route `ids`, signed as Standard Webhooks."""
    stamp = b"%d" % time.time()
    message = b"%b.%b.%b" % (ident, stamp, craft.json_body)
    key = base64.b64decode(ENV["STANDARD_SECRET"].removeprefix("whsec_"))
    made = b"v1," + base64.b64encode(hmac.new(key, message, "sha256").digest())
    leak_watch.signature(made[3:])
    fields = [(b"Webhook-Id", ident), (b"Webhook-Timestamp", stamp), (b"Webhook-Signature", made)]
    return craft.request(b"/webhooks/ids", fields, craft.json_body)


def only(seen: Seen, name: bytes) -> str:
    """The field's value, which is there once, under no other spelling either."""
    folded = [each for each in seen.names if each.lower().replace(b"_", b"-") == name]
    assert len(folded) == 1, seen.head
    return seen.values(folded[0].lower())[0].decode()


SMUGGLED = [
    (b"Authorization", b"Bearer forged"),
    (b"authorization", b"again"),
    (b"X_Env", b"test"),
    (b"X-GitHub-Encoded-Secret", b"CmFuZG9t"),
    (b"X-Internal-A", b"1"),
    (b"x_internal_b", b"2"),
    (b"X-Internal-", b"3"),
    (b"X-Internals", b"kept"),
    (b"X-Kept", b"as it was"),
]


def test_what_the_route_sets_replaces_the_senders_and_what_it_removes_is_gone(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    assert sidecar.ask(craft.begini(headers=SMUGGLED)).status == 200
    seen = receiver.requests[0]
    assert (only(seen, b"authorization"), only(seen, b"x-env")) == (f"Bearer {TOKEN}", "prod")
    assert only(seen, b"x-kept") == "as it was"
    assert only(seen, b"x-internals") == "kept"
    assert [name for name in seen.names if b"encoded" in name.lower() or b"internal" in name.lower()] == [
        b"X-Internals"
    ]
    assert seen.body == craft.json_body


def test_no_pattern_removes_what_frames_a_request_or_what_we_say_of_it(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = craft.begini(path=b"/webhooks/wide", headers=[(b"Content-Type", b"text/plain"), (b"X-Any", b"1")])
    assert sidecar.ask(raw).status == 200
    seen = receiver.requests[0]
    assert (seen.values(b"host"), seen.values(b"content-length")) == ([b"hooks.test"], [b"%d" % len(craft.json_body)])
    assert seen.values(b"x-webhook-verified") == [b"wide"]
    assert seen.values(b"x-forwarded-for") == [b"127.0.0.1"]
    assert not seen.values(b"content-type")
    assert not seen.values(b"x-any")
    assert not seen.values(b"x-signature")


def test_a_credential_goes_only_with_what_was_verified(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    path = b"/webhooks/shadow"
    assert sidecar.ask(craft.begini(path=path)).status == 200
    assert sidecar.ask(craft.begini(path=path, secret="OTHER_API_KEY", headers=SMUGGLED)).status == 200
    assert sidecar.ask(craft.request(b"/network", SMUGGLED), source="127.0.0.3").status == 200
    assert sidecar.ask(craft.request(b"/open", SMUGGLED)).status == 200
    genuine, forged, network, opened = receiver.requests
    assert only(genuine, b"authorization") == only(network, b"authorization") == f"Bearer {TOKEN}"
    assert not forged.values(b"authorization")
    assert only(forged, b"x-env") == only(opened, b"x-env") == "prod"
    assert opened.values(b"authorization") == [
        b"Bearer forged",
        b"again",
    ]  # the sender's own, of no concern to this route
    assert not opened.values(b"x-internal-a")


def test_the_configuration_shows_which_headers_are_set_and_no_secret(sidecar: Sidecar) -> None:
    _, shown = sidecar.admin("/-/config")
    assert b'"Authorization": "Bearer <secret>"' in shown.replace(b'":"', b'": "')
    assert b"CANARY" not in shown


def test_a_receiver_that_knows_one_github_secret_gets_deliveries_of_any_of_several(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    """The case of Argo CD: N organisations with a secret each, and a receiver that knows one."""
    more = [(b"X_Hub_Signature_256", b"sha256=forged"), (b"X-GitHub-Delivery", b"d-1"), (b"X-GitHub-Event", b"push")]
    assert sidecar.ask(craft.github(headers=more)).status == 200
    seen = receiver.requests[0]
    assert only(seen, b"x-hub-signature-256") == "sha256=" + mac(craft.json_body)
    assert (only(seen, b"x-github-delivery"), only(seen, b"x-github-event")) == ("d-1", "push")


def test_a_receiver_that_knows_sha1_only_gets_that(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    assert sidecar.ask(craft.begini(path=b"/webhooks/old")).status == 200
    assert only(receiver.requests[0], b"x-hub-signature") == "sha1=" + mac(craft.json_body, "sha1")


def test_schemes_with_a_time_a_list_a_token_or_a_url_are_signed_as_their_receivers_expect(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    for name in ("slack", "stripe", "token", "basic", "twilio"):
        raw = craft.begini(path=b"/webhooks/%b?a=1" % name.encode(), headers=[(b"X-Slack-Request-Timestamp", b"1")])
        assert sidecar.ask(raw).status == 200
    slack, stripe, token, basic, twilio = receiver.requests
    stamp = only(slack, b"x-slack-request-timestamp")
    assert abs(int(stamp) - time.time()) < 30
    assert only(slack, b"x-slack-signature") == "v0=" + mac(b"v0:%b:%b" % (stamp.encode(), craft.json_body))
    when, first, second = only(stripe, b"stripe-signature").split(",")
    message = when.removeprefix("t=").encode() + b"." + craft.json_body
    assert (first, second) == ("v1=" + mac(message), "v1=" + mac(message, secret=NEXT))
    assert only(token, b"x-gitlab-token") == GITHUB
    assert base64.b64decode(only(basic, b"authorization").removeprefix("Basic ")) == ENV["RECEIVER_USER"].encode()
    url = b"POSThttps://hooks.example.com/webhooks/twilio?a=1" + craft.json_body
    assert only(twilio, b"x-url-signature") == mac(url)


def test_a_signed_id_of_the_provider_is_signed_again_and_stays(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    assert sidecar.ask(standard_delivery(craft, b"msg_7")).status == 200
    seen = receiver.requests[0]
    assert only(seen, b"webhook-id") == "msg_7"
    assert only(seen, b"x-acme") == mac(b"msg_7." + craft.json_body)


def test_what_shadow_mode_would_reject_has_no_signature_at_all(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    forged = [(b"X-Hub-Signature-256", b"sha256=forged"), (b"x_hub_signature_256", b"sha256=forged")]
    raw = craft.begini(path=b"/webhooks/shadow-signed", secret="OTHER_API_KEY", headers=forged)
    assert sidecar.ask(raw).status == 200
    assert not [name for name in receiver.requests[0].names if b"hub" in name.lower()]


def test_a_large_body_is_signed_whole(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    body = b"[%b]" % b",".join([craft.json_body] * 30_000)
    assert sidecar.ask(craft.begini(body, path=b"/webhooks/old")).status == 200
    assert only(receiver.requests[0], b"x-hub-signature") == "sha1=" + mac(body, "sha1")


@pytest.fixture(scope="module", params=["nginx", "node", "php", "java"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    with real_receivers.running(request.param, tmp_path_factory.mktemp("real"), GITHUB) as port:
        yield request.param, port


def test_real_receivers_get_the_headers_and_find_the_signature_genuine(
    start: Start, craft: type[Craft], real: tuple[str, int]
) -> None:
    kind, port = real
    routes = [signed("begini", "github", headers=HEADERS), route("unsigned")]
    running = start({"upstream": f"http://127.0.0.1:{port}", "routes": routes}, env=ENV)
    answer = running.ask(craft.begini(headers=[*SMUGGLED[:2], *SMUGGLED[3:5], SMUGGLED[-1]]))
    assert answer.status == 200
    leak_watch.signature(mac(craft.json_body).encode())
    seen = real_receivers.seen(answer.body)
    expected = {"authorization": f"Bearer {TOKEN}", "x-env": "prod", "x-kept": "as it was", "host": "hooks.test"}
    expected["x-hub-signature-256"] = "sha256=" + mac(craft.json_body)
    if kind != "nginx":  # which can't check a signature without a module
        expected["genuine"] = "true"
    assert seen == expected | {"x-webhook-secret-id": "BEGINI_API_KEY"}
    around = real_receivers.seen(running.ask(craft.begini(path=b"/webhooks/unsigned")).body)
    assert around.get("genuine", "false") == "false"
    assert "authorization" not in around


def test_a_rotated_credential_is_used_from_then_on_and_one_that_is_no_header_never(
    start: Start, receiver: Receiver, craft: type[Craft], tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    running = start({"routes": [route("begini", headers={"set": {"Authorization": {"file": str(file)}}})]})
    assert running.ask(craft.begini()).status == 200
    mark = running.mark()
    file.write_text("CANARY-SECRET-a\r\nX-Smuggled: 1")
    problem = running.line(mark, event="config_reload_failed")
    assert "can't be the value of a header" in problem["detail"]
    assert running.ask(craft.begini()).status == 200
    mark = running.mark()
    file.write_text(NEXT + "\n")
    running.line(mark, event="config_loaded")
    assert running.ask(craft.begini()).status == 200
    values = [seen.values(b"authorization")[0].decode() for seen in receiver.requests]
    assert values == [TOKEN, TOKEN, NEXT]
