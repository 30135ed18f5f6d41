"""Providers' own libraries: what they sign we accept, what we sign they accept."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

import gocardless_pro.webhooks
import pytest
import razorpay.utility
import standardwebhooks
import stripe
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sendgrid.helpers.eventwebhook import EventWebhook
from slack_sdk.signature import SignatureVerifier
from twilio.request_validator import RequestValidator

from sidecar.config.presets import load_preset
from sidecar.http1.head import make_head
from sidecar.outcomes import Rejected
from sidecar.secret import Secret
from sidecar.verify.sign import sign_delivery
from sidecar.verify.verifier import Verifier

ORIGIN = "https://hooks.example.com"
URL = ORIGIN + "/webhooks/in?a=1&b=%20x"
FORM = urlencode(
    [("CallSid", "CA1"), ("Body", "Grüße & more"), ("From", "+14158675309"), ("Body", "again"), ("Empty", "")]
)
BODY = '{"events":[],"text":"Grüße"}'
WHSEC = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes long").decode()
SIGNING_KEY = ec.derive_private_key(7, ec.SECP256R1())
PUBLIC = base64.b64encode(
    SIGNING_KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
).decode()
PRIVATE = SIGNING_KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()
Headers = dict[str, str]


def now() -> int:
    """Unix time when a delivery is signed. Not a constant: libraries reject one that is five minutes old."""
    return int(time.time())


@dataclass(frozen=True)
class Library:
    """How a provider's library signs, if it does, and verifies. `verifies` raises or returns False for what it refuses."""

    preset: str
    secret: str
    signs: Callable[[str], Headers] | None
    verifies: Callable[[str, Headers, str], Any]
    body: str = BODY
    content_type: str = "application/json"
    signing_secret: str = ""


def _ecdsa(body: str) -> Headers:
    """SendGrid's library only verifies; its counterpart, by `cryptography`."""
    stamp = str(now())
    signature = SIGNING_KEY.sign(f"{stamp}{body}".encode(), ec.ECDSA(hashes.SHA256()))
    prefix = "X-Twilio-Email-Event-Webhook"
    return {f"{prefix}-Signature": base64.b64encode(signature).decode(), f"{prefix}-Timestamp": stamp}


def _standard(body: str) -> Headers:
    stamp = now()
    signature = standardwebhooks.Webhook(WHSEC).sign("msg_1", datetime.fromtimestamp(stamp, UTC), body)
    return {"webhook-id": "msg_1", "webhook-timestamp": str(stamp), "webhook-signature": signature}


def _svix_webhook() -> Any:
    import svix  # noqa: PLC0415 - each test process collects this module, and this takes as long as all of its tests

    return svix.Webhook(WHSEC)


def _svix(body: str) -> Headers:
    stamp = now()
    signature = _svix_webhook().sign("msg_1", datetime.fromtimestamp(stamp, UTC), body)
    return {"svix-id": "msg_1", "svix-timestamp": str(stamp), "svix-signature": signature}


def _sign_slack(body: str) -> Headers:
    stamp = str(now())
    signature = _slack.generate_signature(timestamp=stamp, body=body) or ""
    return {"X-Slack-Request-Timestamp": stamp, "X-Slack-Signature": signature}


def _params(body: str) -> Any:
    class Fields(dict[str, list[str]]):
        def getlist(self, name: str) -> list[str]:
            return self[name]

    fields = Fields()
    for name, value in parse_qsl(body, keep_blank_values=True):
        fields.setdefault(name, []).append(value)
    return fields


_twilio = RequestValidator("auth-token")
_slack = SignatureVerifier("slack-signing-secret")
LIBRARIES = [
    Library(
        "stripe",
        "whsec_stripe",
        lambda body: {"Stripe-Signature": stripe.WebhookSignature.generate_signature_header(body, "whsec_stripe")},
        lambda body, headers, url: stripe.WebhookSignature.verify_header(
            body, headers["Stripe-Signature"], "whsec_stripe", 300
        ),
    ),
    Library(
        "slack",
        "slack-signing-secret",
        _sign_slack,
        lambda body, headers, url: _slack.is_valid_request(body, headers),
    ),
    Library(
        "standard-webhooks",
        WHSEC,
        _standard,
        lambda body, headers, url: standardwebhooks.Webhook(WHSEC).verify(body, headers),
    ),
    Library("svix", WHSEC, _svix, lambda body, headers, url: _svix_webhook().verify(body, headers)),
    Library(
        "twilio",
        "auth-token",
        lambda body: {"X-Twilio-Signature": _twilio.compute_signature(URL, _params(body))},
        lambda body, headers, url: _twilio.validate(url, _params(body), headers["X-Twilio-Signature"]),
        body=FORM,
        content_type="application/x-www-form-urlencoded",
    ),
    Library(
        "twilio-sha256",
        "auth-token",
        lambda body: {"X-Twilio-Signature": _twilio.compute_signature(URL, _params(body), "HMAC_SHA256")},
        lambda body, headers, url: _twilio.validate(url, _params(body), headers["X-Twilio-Signature"], "HMAC_SHA256"),
        body=FORM,
        content_type="application/x-www-form-urlencoded",
    ),
    Library(
        "gocardless",
        "gocardless-secret",
        None,
        lambda body, headers, url: (
            gocardless_pro.webhooks.parse(body.encode(), "gocardless-secret", headers["Webhook-Signature"]) == []
        ),
    ),
    Library(
        "razorpay",
        "razorpay-secret",
        None,
        lambda body, headers, url: razorpay.utility.Utility().verify_webhook_signature(
            body, headers["X-Razorpay-Signature"], "razorpay-secret"
        ),
    ),
    Library(
        "sendgrid",
        PUBLIC,
        _ecdsa,
        lambda body, headers, url: EventWebhook(PUBLIC).verify_signature(
            body, headers["X-Twilio-Email-Event-Webhook-Signature"], headers["X-Twilio-Email-Event-Webhook-Timestamp"]
        ),
        signing_secret=PRIVATE,
    ),
]
every_library = pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.preset)


def accepts(library: Library, headers: Headers, body: str, url: str = URL) -> bool:
    verifier = Verifier(load_preset(library.preset), [Secret("s", library.secret.encode())], ORIGIN)
    sent = [
        (name.encode(), value.encode()) for name, value in {"Content-Type": library.content_type, **headers}.items()
    ]
    head = make_head("POST", url.removeprefix(ORIGIN).encode(), sent, None)
    try:
        return bool(verifier.verify(verifier.read_claim(head, time.time()), head, [body.encode()]))
    except Rejected:
        return False


@pytest.mark.parametrize(
    "library", [library for library in LIBRARIES if library.signs is not None], ids=lambda library: library.preset
)
def test_what_the_library_signs_we_accept(library: Library) -> None:
    assert library.signs is not None
    headers = library.signs(library.body)
    assert accepts(library, headers, library.body)
    assert not accepts(library, headers, library.body + "x")


@every_library
def test_what_we_sign_the_library_accepts_and_so_do_we(library: Library) -> None:
    secret = Secret("s", (library.signing_secret or library.secret).encode())
    signed = sign_delivery(
        load_preset(library.preset),
        secret,
        body=library.body.encode(),
        now=time.time(),
        url=URL,
        headers=[("Content-Type", library.content_type)],
    )
    headers = dict(signed.headers)
    assert library.verifies(library.body, headers, URL) is not False
    assert accepts(library, headers, library.body)


def test_twilios_json_deliveries_carry_the_hash_of_the_body_in_the_url() -> None:
    library = LIBRARIES[4]
    body = json.dumps({"property": "value"})
    signed = sign_delivery(
        load_preset("twilio-json"), Secret("s", b"auth-token"), body=body.encode(), now=time.time(), url=URL
    )
    headers = dict(signed.headers)
    assert _twilio.validate(signed.url, body, headers["X-Twilio-Signature"])
    json_library = Library("twilio-json", library.secret, library.signs, library.verifies)
    assert accepts(json_library, headers, body, signed.url)
    assert not accepts(json_library, headers, body + " ", signed.url)


@pytest.mark.parametrize(
    ("called", "configured"),
    [
        ("https://hooks.example.com:443", ORIGIN),
        (ORIGIN, "https://hooks.example.com:443"),
        (ORIGIN, "https://hooks.example.com:8443"),
    ],
)
def test_twilio_signs_the_url_with_or_without_its_port(called: str, configured: str) -> None:
    signature = _twilio.compute_signature(called + "/in", {})
    verifier = Verifier(load_preset("twilio"), [Secret("s", b"auth-token")], configured)
    head = make_head("POST", b"/in", [(b"X-Twilio-Signature", signature.encode())], None)
    assert verifier.verify(verifier.read_claim(head, None), head, [])
