"""`mode: shadow` on the wire: a refusal of the delivery itself is forwarded all the same, marked, and counted by its reason."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from craft import Craft, Fields
from receiver import Receiver
from sidecar_process import Config, Sidecar, Start


def route(name: str, verify: str | Config, secret: str, **more: Any) -> Config:
    base = {"name": name, "path": f"/webhooks/{name}", "verify": verify, "secrets": [{"id": "current", "env": secret}]}
    return base | {"mode": "shadow"} | more


CONFIG = {
    "routes": [
        route("slack", "slack", "SLACK_SECRET", allow=["127.0.0.1/32", "203.0.113.0/24"]),
        route("token", {"signature": {"header": "X-Token", "kind": "token"}}, "BEGINI_API_KEY", reject={"status": 401}),
        {"name": "network", "path": "/network", "verify": "none", "allow": ["203.0.113.0/24"], "mode": "shadow"},
    ]
}
FORGED = [(b"X-Webhook-Verified", b"slack"), (b"X_Webhook_Verified", b"slack"), (b"X-Webhook-Secret-Id", b"current")]


def slack(craft: type[Craft], **options: Any) -> bytes:
    return craft.slack(headers=FORGED, **options)


def bare(craft: type[Craft], path: bytes = b"/webhooks/slack", headers: Fields = ()) -> bytes:
    return craft.request(path, [*headers, *FORGED], craft.json_body)


REFUSED: dict[str, tuple[str, Callable[[type[Craft]], bytes], str | None]] = {
    "signature_missing": ("slack", lambda craft: bare(craft, headers=[(b"X-Slack-Request-Timestamp", b"1")]), None),
    "signature_malformed": ("slack", lambda craft: bare(craft, headers=[(b"X-Slack-Signature", b"v0=zz")]), None),
    "signature_mismatch": ("slack", lambda craft: slack(craft).replace(b'"n":1', b'"n":2'), None),
    "timestamp_missing": (
        "slack",
        lambda craft: slack(craft).replace(b"X-Slack-Request-Timestamp", b"X-Slack-Other-Timestamps1"),
        None,
    ),
    "timestamp_malformed": ("slack", lambda craft: slack(craft, timestamp=b"yesterday"), None),
    "timestamp_too_old": ("slack", lambda craft: slack(craft, age=1000), None),
    "timestamp_in_future": ("slack", lambda craft: slack(craft, age=-1000), None),
    "ip_not_allowed": ("slack", slack, "127.0.0.4"),
    "client_ip_unreadable": (
        "slack",
        lambda craft: craft.slack(headers=[*FORGED, (b"X-Forwarded-For", b"nonsense")]),
        "127.0.0.9",
    ),
    "token_mismatch": ("token", lambda craft: bare(craft, b"/webhooks/token", [(b"X-Token", b"wrong")]), None),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_would_be_refused_is_forwarded_marked_and_counted_by_its_reason(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], reason: str
) -> None:
    name, make, source = REFUSED[reason]
    receiver.then(b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 3\r\nX-Kept: yes\r\n\r\nno!")
    raw = make(craft)
    mark, before = sidecar.mark(), sidecar.samples("shadow_rejections")
    matches = sidecar.metric("secret_matches_total", route=name, secret="current")
    answer = sidecar.ask(raw, source=source)
    assert (answer.status, answer.body, answer.values(b"x-kept")) == (418, b"no!", [b"yes"])  # the receiver's own
    seen = receiver.requests[0]
    assert seen.values(b"x-webhook-verified") == [b"shadow-rejected"]
    assert not {b"x_webhook_verified", b"x-webhook-secret-id"} & {key.lower() for key in seen.names}
    assert seen.body == raw.split(b"\r\n\r\n", 1)[1]
    line = sidecar.delivery(mark)
    assert (line["outcome"], line["reason"], line["shadow_reason"]) == ("accepted", "", reason)
    changed = sidecar.samples("shadow_rejections").items() - before.items()
    assert [(dict(labels), value - before[key, labels]) for (key, labels), value in changed] == [
        ({"route": name, "reason": reason}, 1)
    ]
    assert sidecar.metric("secret_matches_total", route=name, secret="current") == matches


def test_a_route_by_address_alone_can_be_tried_too(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    before = sidecar.metric("shadow_rejections_total", route="network", reason="ip_not_allowed")
    assert sidecar.ask(bare(craft, b"/network")).status == 200
    assert receiver.requests[0].values(b"x-webhook-verified") == [b"shadow-rejected"]
    assert sidecar.metric("shadow_rejections_total", route="network", reason="ip_not_allowed") == before + 1


def test_what_would_be_accepted_is_marked_as_verified_and_counted_by_no_reason(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    before = sidecar.samples("shadow_rejections")
    assert sidecar.ask(slack(craft)).status == 200
    seen = receiver.requests[0]
    assert seen.values(b"x-webhook-verified") == [b"slack"]
    assert seen.values(b"x-webhook-secret-id") == [b"current"]
    assert sidecar.samples("shadow_rejections") == before


def test_every_reason_of_a_route_in_shadow_mode_has_a_series_from_the_start(sidecar: Sidecar) -> None:
    samples = sidecar.samples("shadow_rejections_total")
    assert {dict(labels)["reason"] for name, labels in samples} >= REFUSED.keys()


def test_turning_it_off_takes_a_reload_and_the_same_delivery_is_then_refused(
    start: Start, receiver: Receiver, craft: type[Craft]
) -> None:
    running = start(CONFIG)
    raw = slack(craft, timestamp=b"%d" % (time.time() - 1000))
    assert running.ask(raw).status == 200
    running.config["routes"][0].pop("mode")
    running.write(running.config)
    assert running.admin("/-/reload", method="POST")[0] == 200
    receiver.forget()
    running.refused(raw, 403, "timestamp_too_old", route="slack", receiver=receiver)
