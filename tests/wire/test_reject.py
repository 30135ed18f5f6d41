"""The response to a rejected delivery: of the route, of the preset, or one after which the provider sends again."""

from collections.abc import Callable
from typing import Any

import pytest
from craft import Craft, Fields
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from receiver import Receiver
from sidecar_process import Config, Sidecar

OURS = b'{"detail":"Validation Failure"}'
DISCORD = Ed25519PrivateKey.generate()
ENV = {
    "REJECT_DISCORD": DISCORD.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
    "REJECT_XERO": "CANARY-SECRET-xero-31aa",
    "REJECT_JIRA": "CANARY-SECRET-jira-52be",
    "REJECT_OTHER": "CANARY-SECRET-reject-9d07",
}


def route(name: str, verify: str | Config, secret: str = "REJECT_OTHER", **more: Any) -> Config:
    """A route for which the tests' own address is allowed, and 127.0.0.4 is not."""
    base = {"name": name, "path": f"/reject/{name}", "verify": verify, "secrets": [{"env": secret}]}
    return base | {"allow": ["127.0.0.1/32"]} | more


CONFIG: Config = {
    "routes": [
        route("xero", "xero", "REJECT_XERO"),
        route("shopify", "shopify", "SHOPIFY_SECRET"),
        route("discord", "discord", "REJECT_DISCORD"),
        route("own", "xero", "REJECT_XERO", reject={"status": 403, "body": "{}"}),
        route("required", "xero", "REJECT_XERO", reject="resend"),
        route("jira", "jira", "REJECT_JIRA", reject="resend"),
        route("limited", {"preset": "jira", "delivery": {"resend_status": 429}}, "REJECT_JIRA", reject="resend"),
        route("unknown", "begini", "BEGINI_API_KEY", reject="resend"),
        route("plain", "begini", "BEGINI_API_KEY"),
        route("empty", "begini", "BEGINI_API_KEY", reject={"body": ""}),
        route("shadow", "jira", "REJECT_JIRA", reject="resend", mode="shadow"),
        {
            "name": "network",
            "path": "/reject/network",
            "verify": "none",
            "allow": ["127.0.0.1/32"],
            "reject": "resend",
        },
    ]
}

#: The header of a well-formed signature that is wrong, by the name of the route.
WRONG: dict[str, Fields] = {
    "shopify": [(b"X-Shopify-Hmac-Sha256", b"A" * 43 + b"=")],
    "discord": [(b"X-Signature-Ed25519", b"00" * 64), (b"X-Signature-Timestamp", b"1795579411")],
    **{key: [(b"x-xero-signature", b"A" * 43 + b"=")] for key in ("xero", "own", "required")},
    **{key: [(b"X-Hub-Signature", b"sha256=" + b"0" * 64)] for key in ("jira", "limited", "shadow")},
    **{key: [(b"X-Signature", b"0" * 128)] for key in ("unknown", "plain", "empty")},
}


def delivery(craft: type[Craft], name: str, fields: Fields = ()) -> bytes:
    return craft.request(b"/reject/" + name.encode(), fields, craft.json_body)


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("xero", 401, b""),
        ("shopify", 401, OURS),
        ("discord", 401, OURS),
        ("own", 403, b"{}"),
        ("required", 401, b""),
        ("jira", 503, OURS),
        ("limited", 429, OURS),
        ("unknown", 503, OURS),
        ("plain", 403, OURS),
        ("empty", 403, b""),
    ],
)
def test_all_rejections_of_a_route_are_alike(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft], name: str, status: int, body: bytes
) -> None:
    def refused(fields: Fields, reason: str, source: str | None = None) -> bytes:
        raw = delivery(craft, name, fields)
        answer = sidecar.refused(raw, status, reason, route=name, receiver=receiver, source=source)
        assert answer.body == body
        assert answer.values(b"content-length") == [b"%d" % len(body)]
        assert answer.values(b"content-type") == [b"application/json"] * bool(body)
        assert answer.values(b"retry-after") == []
        return answer.raw

    seen = {
        refused(WRONG[name], "signature_mismatch"),
        refused([], "signature_missing"),
        refused([(WRONG[name][0][0], b"?"), *WRONG[name][1:]], "signature_malformed"),
        refused(WRONG[name], "ip_not_allowed", source="127.0.0.4"),
    }
    assert len(seen) == 1


def test_a_rejection_by_address_alone_can_ask_for_a_resend_too(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    raw = delivery(craft, "network")
    assert sidecar.ask(raw).status == 200
    answer = sidecar.refused(raw, 503, "ip_not_allowed", route="network", receiver=receiver, source="127.0.0.4")
    assert answer.body == OURS


def test_a_genuine_delivery_is_accepted_as_before(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    raw = craft.begini(path=b"/reject/unknown")
    assert (sidecar.ask(raw).status, receiver.requests[0].body) == (200, craft.json_body)


def test_after_an_empty_rejection_the_connection_goes_on(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    with sidecar.connect() as client:
        for expected in (401, 401):
            answer = client.send(delivery(craft, "xero", WRONG["xero"])).answer()
            assert (answer.status, answer.body) == (expected, b"")
        assert client.send(craft.begini(path=b"/reject/plain")).answer().status == 200


def test_shadow_mode_forwards_whatever_the_rejection_would_be(
    sidecar: Sidecar, receiver: Receiver, craft: type[Craft]
) -> None:
    before = sidecar.metric("shadow_rejections_total", route="shadow", reason="signature_mismatch")
    assert sidecar.ask(delivery(craft, "shadow", WRONG["shadow"])).status == 200
    assert receiver.requests[0].values(b"x-webhook-verified") == [b"shadow-rejected"]
    assert sidecar.metric("shadow_rejections_total", route="shadow", reason="signature_mismatch") == before + 1


@pytest.mark.parametrize(
    ("status", "reason", "change"),
    [
        (405, "method_not_allowed", lambda raw: raw.replace(b"POST", b"PUT", 1)),
        (413, "body_too_large", lambda raw: raw.replace(b"Content-Length: 3", b"Content-Length: 99999999", 1)),
        (404, "no_route", lambda raw: raw.replace(b"/reject/jira", b"/reject/jiro", 1)),
    ],
)
def test_other_rejections_have_the_status_that_they_always_have(
    sidecar: Sidecar,
    receiver: Receiver,
    craft: type[Craft],
    status: int,
    reason: str,
    change: Callable[[bytes], bytes],
) -> None:
    raw = craft.request(b"/reject/jira", WRONG["jira"], b"abc")
    sidecar.refused(change(raw), status, reason, route="" if status == 404 else "jira", receiver=receiver)
