"""Deliveries whose signed message is composed of places in the body, the form, the query or listed headers.

`messages.json` says who gave each verdict (`origin`): mostly the sender's own library.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sidecar.config.presets import load_preset
from sidecar.http1.head import RequestHead, make_head
from sidecar.outcomes import VERIFICATION, Rejected
from sidecar.secret import Secret
from sidecar.verify.handshake import Handshakes
from sidecar.verify.sign import sign_delivery
from sidecar.verify.verifier import Verified, Verifier

Vector = dict[str, Any]
VECTORS: list[Vector] = json.loads(Path(__file__).with_name("messages.json").read_text(encoding="utf-8"))["vectors"]


def selected(expected: str) -> list[Any]:
    chosen = [vector for vector in VECTORS if vector["expected"] == expected]
    return [pytest.param(vector, id=f"{vector['id']} {vector['case']}") for vector in chosen]


def delivery(vector: Vector) -> tuple[Verifier, RequestHead, bytes]:
    url = urlsplit(vector["url"])
    secrets = [Secret(f"s{number}", text.encode()) for number, text in enumerate(vector["secrets"])]
    verifier = Verifier(load_preset(vector["provider"]), secrets, f"{url.scheme}://{url.netloc}")
    headers = [(name.encode(), value.encode()) for name, value in vector["headers"]]
    target = url.path + ("?" + url.query if url.query else "")
    return verifier, make_head(vector["method"], target.encode(), headers, "192.0.2.1"), vector["body"].encode()


def verify(vector: Vector, pieces: list[bytes]) -> Verified:
    verifier, head, _ = delivery(vector)
    return verifier.verify(verifier.read_claim(head, vector["now"]), head, pieces)


@pytest.mark.parametrize("vector", selected("valid"))
def test_what_the_provider_signed_is_accepted(vector: Vector) -> None:
    body = vector["body"].encode()
    assert verify(vector, [body])
    assert verify(vector, [bytes([byte]) for byte in body])


@pytest.mark.parametrize("vector", selected("invalid"))
def test_what_the_provider_did_not_sign_is_rejected(vector: Vector) -> None:
    body = vector["body"].encode()
    for pieces in ([body], [bytes([byte]) for byte in body]):
        with pytest.raises(Rejected) as rejection:
            verify(vector, pieces)
        assert rejection.value.reason in VERIFICATION


def fingerprint(name: str, **changes: str) -> bytes:
    vector = {**next(each for each in VECTORS if each["id"] == name), **changes}
    verifier, head, body = delivery(vector)
    claim = verifier.read_claim(head, vector["now"])
    verified = verifier.verify(claim, head, [body])
    return verifier.fingerprint(claim, head, [body], scope="r", url=verified.url, message=verified.message)


def test_a_copy_that_differs_in_what_is_not_signed_has_the_same_fingerprint() -> None:
    # The payload without its last newline, the fields in another order, and another signature beside ours.
    same = {fingerprint(f"braintree-{number}") for number in ("01", "03", "05", "16")}
    assert len(same) == 1
    # Signed in lower case: any letter case of the id verifies, and is the same delivery.
    vector = next(each for each in VECTORS if each["id"] == "mercadopago-10")
    url: str = vector["url"]
    ident = url.partition("data.id=")[2].partition("&")[0]
    spelled = {fingerprint("mercadopago-10", url=url.replace(ident, other)) for other in (ident, ident.lower())}
    assert ident.lower() != ident
    assert len(spelled) == 1
    assert fingerprint("alipay-01") not in same | spelled


@pytest.mark.parametrize("provider", sorted({vector["provider"] for vector in VECTORS}))
def test_every_provider_of_the_vectors_has_a_source_and_a_valid_one(provider: str) -> None:
    assert all(vector["source"] and vector["origin"] for vector in VECTORS if vector["provider"] == provider)
    assert "valid" in {vector["expected"] for vector in VECTORS if vector["provider"] == provider}


@pytest.mark.parametrize("provider", ["contentful", "plivo-v3", "mercadopago"])
def test_sign_writes_the_very_signature_that_the_provider_wrote(provider: str) -> None:
    vector = next(each for each in VECTORS if each["provider"] == provider and each["expected"] == "valid")
    verifier, head, body = delivery(vector)
    scheme = verifier.scheme
    stamp = int(verifier.read_claim(head, None).timestamp or b"0")
    now = stamp / 1000 if scheme.timestamp is not None and scheme.timestamp.unit == "ms" else stamp
    written = {scheme.signature.header.lower(), scheme.timestamp.header.lower() if scheme.timestamp else ""}
    headers = [header for header in vector["headers"] if header[0].lower() not in written]
    made = sign_delivery(scheme, verifier.secrets[0], body=body, now=now, url=vector["url"], headers=headers)
    sent = {name.lower(): value for name, value in vector["headers"]}
    assert dict(made.headers)[scheme.signature.header] == sent[scheme.signature.header.lower()]


@pytest.mark.parametrize(
    ("challenge", "answer"),
    [  # by braintree 4.48.0 webhook_notification.verify
        ("20f9f8ed05f77439fe955c977e4c8a53", "d9b899556c966b3f06945ec21311865d35df3ce4"),
        ("aaaaaaaaaaaaaaaaaaaa", "ac2fdf4914bbe16247c3bfdc173df96c58633c51"),
        ("goodbye%20cruel%20world", ""),
    ],
)
def test_braintree_gets_its_answer_and_no_answer_is_a_delivery(challenge: str, answer: str) -> None:
    scheme = load_preset("braintree")
    secret = Secret("s", b"integration_public_key:integration_private_key")
    handshakes = Handshakes(scheme.handshake, None, secret=secret, token=None, url="", signs_body_alone=False)
    head = make_head("GET", f"/hooks?bt_challenge={challenge}".encode(), [], None)
    shape = handshakes.find_unsigned(head)
    assert shape is not None
    if not answer:
        with pytest.raises(Rejected):
            handshakes.respond(shape, head)
        return
    assert handshakes.respond(shape, head).body == f"integration_public_key|{answer}".encode()
    verifier = Verifier(scheme, [secret])
    body = f"bt_payload={challenge}&bt_signature=integration_public_key%7C{answer}".encode()
    head = make_head("POST", b"/hooks", [(b"Content-Type", b"application/x-www-form-urlencoded")], None)
    with pytest.raises(Rejected, match="characters that the scheme does not allow"):
        verifier.verify(verifier.read_claim(head, None), head, [body])
