"""Signed messages that are composed, on the wire: compressed bodies, forms, items, and hashes in headers."""

import base64
import gzip
import hashlib
import hmac
import json
import time
from urllib.parse import urlencode

import pytest
from craft import SECRETS, Craft
from receiver import Receiver
from sidecar_process import Config, Sidecar

SECRET = SECRETS["ACME_SECRET"].encode()
ENV = {"ADYEN_KEY": SECRET.hex()}


def route(name: str, secret: str = "ACME_SECRET", **more: object) -> Config:
    return {"path": f"/{name}", "name": name, "secrets": [{"env": secret}], "verify": name, **more}


CONFIG = {
    "routes": [
        route("stream", limits={"body": "64KiB"}),
        route("mailgun-routes"),
        route("adyen-item", "ADYEN_KEY", replay="10m"),
        route(
            "digest",
            verify={
                "signature": {"header": "X-Sig"},
                "signed": "{header:Content-Digest}",
                "body_hash": {"header": "Content-Digest", "form": "content-digest"},
            },
        ),
    ]
}


def mac(message: bytes) -> bytes:
    return hmac.new(SECRET, message, "sha256").hexdigest().encode()


# -- compressed bodies --


def stream(sent: bytes, signed: bytes, coding: bytes = b"gzip") -> bytes:
    fields = [(b"X-Signature", mac(signed)), (b"Content-Encoding", coding)]
    return Craft.request(b"/stream", fields, sent)


def test_a_compressed_body_is_forwarded_as_it_came(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    body = craft.json_body * 300
    sent = gzip.compress(body)
    assert sidecar.ask(stream(sent, body)).status == 200
    assert receiver.requests[-1].body == sent
    assert receiver.requests[-1].values(b"Content-Encoding") == [b"gzip"]


@pytest.mark.parametrize(
    ("sent", "coding", "reason"),
    [
        (gzip.compress(bytes(1 << 24), mtime=0), b"gzip", "signature_malformed"),  # a bomb
        (
            gzip.compress(b"".join([b"%d" % number for number in range(20_000)]), mtime=0),
            b"gzip",
            "signature_malformed",
        ),  # over the route's limit
        (gzip.compress(b"{}", mtime=0)[:-1], b"gzip", "signature_malformed"),
        (b"{}", b"gzip", "signature_malformed"),
        (b"{}", b"br", "signature_malformed"),
        (gzip.compress(b"{} ", mtime=0), b"gzip", "signature_mismatch"),
    ],
)
def test_a_body_that_is_not_what_was_signed_never_reaches_the_receiver(
    sidecar: Sidecar, receiver: Receiver, sent: bytes, coding: bytes, reason: str
) -> None:
    sidecar.refused(stream(sent, b"{}", coding), 403, reason, route="stream", receiver=receiver)


def test_bombs_hold_nobody_up(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    bomb = stream(gzip.compress(bytes(1 << 26)), b"")
    began = time.monotonic()
    for _ in range(20):
        assert sidecar.ask(bomb).status == 403
    assert time.monotonic() - began < 5
    assert sidecar.ask(stream(craft.json_body, craft.json_body, b"identity")).status == 200


# -- forms --


def fields(now: int, token: str = "a-token") -> list[tuple[str, str]]:
    return [("timestamp", str(now)), ("token", token), ("signature", mac(f"{now}{token}".encode()).decode())]


def multipart(pairs: list[tuple[str, str]]) -> bytes:
    parts = [f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in pairs]
    file = '--B\r\nContent-Disposition: form-data; name="attachment-1"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\n'
    return ("".join(parts) + file).encode() + b"\x00--B\r\n" * 1000 + b"\r\n--B--\r\n"


def form(pairs: list[tuple[str, str]], *, several: bool) -> bytes:
    kind = b"multipart/form-data; boundary=B" if several else b"application/x-www-form-urlencoded"
    body = multipart(pairs) if several else urlencode(pairs).encode()
    return Craft.request(b"/mailgun-routes", [(b"Content-Type", kind)], body)


@pytest.mark.parametrize("several", [False, True], ids=["urlencoded", "multipart"])
def test_a_form_with_its_signature_is_forwarded_as_it_came(sidecar: Sidecar, receiver: Receiver, several: bool) -> None:
    raw = form([*fields(1_700_000_000), ("subject", "Grüße & more")], several=several)
    assert sidecar.ask(raw).status == 200
    assert receiver.requests[-1].body == raw.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("several", [False, True], ids=["urlencoded", "multipart"])
@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (fields(1)[:2], "signature_missing"),
        (fields(1)[1:], "signature_missing"),
        ([*fields(1), *fields(1)], "signature_malformed"),
        ([("timestamp", "2"), *fields(1)[1:]], "signature_mismatch"),
        ([*fields(1)[:2], ("signature", "0" * 64)], "signature_mismatch"),
    ],
)
def test_a_form_that_was_not_signed_never_reaches_the_receiver(
    sidecar: Sidecar, receiver: Receiver, pairs: list[tuple[str, str]], reason: str, several: bool
) -> None:
    sidecar.refused(form(pairs, several=several), 403, reason, route="mailgun-routes", receiver=receiver)


# -- items --


def item(reference: str, *, forged: bool = False) -> dict[str, object]:
    signed = f"{reference}::M:order:1130:EUR:AUTHORISATION:true".encode()
    made = base64.b64encode(hmac.new(b"" if forged else SECRET, signed, "sha256").digest()).decode()
    return {
        "NotificationRequestItem": {
            "pspReference": reference,
            "merchantAccountCode": "M",
            "merchantReference": "order",
            "amount": {"value": 1130, "currency": "EUR"},
            "eventCode": "AUTHORISATION",
            "success": "true",
            "additionalData": {"hmacSignature": made},
        }
    }


def adyen(*items: dict[str, object]) -> bytes:
    return Craft.request(b"/adyen-item", [], json.dumps({"live": "false", "notificationItems": items}).encode())


def test_one_forged_item_is_enough_to_reject_all(sidecar: Sidecar, receiver: Receiver) -> None:
    for items in ([item("f1"), item("f2", forged=True)], [item("f2", forged=True), item("f1")]):
        sidecar.refused(adyen(*items), 403, "signature_mismatch", route="adyen-item", receiver=receiver)
    sidecar.refused(adyen(), 403, "signature_missing", route="adyen-item", receiver=receiver)
    assert sidecar.ask(adyen(item("f1"))).status == 200


def test_recorded_items_are_copies_however_they_are_put_together(sidecar: Sidecar, receiver: Receiver) -> None:
    assert sidecar.ask(adyen(item("r1"))).status == 200
    assert sidecar.ask(adyen(item("r2"))).status == 200
    for items in (["r1"], ["r2", "r1"], ["r1", "r1", "r2"]):
        raw = adyen(*map(item, items))
        assert sidecar.refused(raw, 200, "replayed", receiver=receiver, route="adyen-item").status == 200
    assert sidecar.ask(adyen(item("r1"), item("r3"))).status == 200  # r3 is new
    assert sidecar.refused(adyen(item("r3")), 200, "replayed", receiver=receiver, route="adyen-item").status == 200


# -- a hash in a signed header --


def test_a_body_must_have_the_digest_that_is_signed(sidecar: Sidecar, receiver: Receiver, craft: type[Craft]) -> None:
    digest = b"sha-256=:%b:" % base64.b64encode(hashlib.sha256(craft.json_body).digest())
    signed = [(b"Content-Digest", digest), (b"X-Sig", mac(digest))]
    assert sidecar.ask(craft.request(b"/digest", signed, craft.json_body)).status == 200
    assert receiver.requests[-1].values(b"Content-Digest") == [digest]
    raw = craft.request(b"/digest", signed, craft.json_body + b" ")
    sidecar.refused(raw, 403, "signature_mismatch", route="digest", receiver=receiver)
