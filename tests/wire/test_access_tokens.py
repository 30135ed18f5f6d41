"""Keys that the provider sends only for an access token, on the wire: eBay's public keys, with a pretended eBay over https.

The deliveries are signed here as eBay does: ECDSA with SHA-1 over the raw body, in a JSON object in base64.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import leak_watch
import pytest
from craft import JSON_BODY, SECRETS, Craft
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from key_server import KeyServer
from receiver import Receiver
from sidecar_process import Config, Sidecar, Start
from waiting import WaitUntil

TOKEN_PATH = "/identity/v1/oauth2/token"
KEYS_PATH = "/commerce/notification/v1/public_key"
CLIENT_ID = "AcmeInc-shop-PRD-1a2b3c4d5"
#: As eBay writes them; whatever the sidecar shows is searched for them.
TOKENS = ("v^1.1#i^1#p^1#CANARY-TOKEN-one==", "v^1.1#i^1#p^1#CANARY-TOKEN-two==")
leak_watch.marker(b"CANARY-TOKEN")
WORKERS = pytest.mark.parametrize("workers", [1, 2])


class Key:
    def __init__(self, number: int) -> None:
        self.id = str(UUID(int=number))
        self._private = ec.generate_private_key(ec.SECP256R1())

    def page(self) -> bytes:
        pem = self._private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        return json.dumps({"key": pem.replace("\n", ""), "algorithm": "ECDSA", "digest": "SHA1"}).encode()

    def delivery(self, body: bytes = JSON_BODY) -> bytes:
        signature = base64.b64encode(self._private.sign(body, ec.ECDSA(SHA1()))).decode()
        wrapped = {"alg": "ecdsa", "kid": self.id, "signature": signature, "digest": "SHA1"}
        sent = base64.b64encode(json.dumps(wrapped).encode())
        Craft.sent(sent)
        leak_watch.signature(sent)
        return Craft.request(b"/webhooks/ebay", [(b"X-EBAY-SIGNATURE", sent)], body)


A, B = Key(1), Key(2)


class Ebay(KeyServer):
    """Gives a token for one secret, and keys for that token."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.grant(TOKENS[0])

    def grant(self, token: str, secret: str = SECRETS["EBAY_CLIENT_SECRET"], **more: Any) -> None:
        """The token that the secret gets from now on, and that alone."""
        text = json.dumps({"access_token": token, "expires_in": 7200, "token_type": "Application Access Token"} | more)
        allowed = "Basic " + base64.b64encode(f"{CLIENT_ID}:{secret}".encode()).decode()
        self.serve(TOKEN_PATH, text.encode(), authorization=allowed)
        for key in (A, B):
            self.serve(f"{KEYS_PATH}/{key.id}", key.page(), authorization=f"Bearer {token}")

    @property
    def asked(self) -> int:
        return self.requests(TOKEN_PATH)


@pytest.fixture
def ebay(tmp_path: Path) -> Iterator[Ebay]:
    made = Ebay(tmp_path)
    yield made
    made.stop()


def configuration(ebay: Ebay, **more: Any) -> Config:
    secret = more.pop("client_secret", {"env": "EBAY_CLIENT_SECRET"})
    verify = {"preset": "ebay", "client_id": CLIENT_ID, "client_secret": secret}
    return {
        "public_url": "https://hooks.example.com",
        "keys": {"mirrors": {"https://api.ebay.com/": f"{ebay.url}/"}, "ca": str(ebay.ca_file)},
        "routes": [{"name": "shop", "path": "/webhooks/ebay", "verify": verify}],
    } | more


BEGINI = {"name": "begini", "path": "/webhooks/begini", "verify": "begini", "secrets": [{"env": "BEGINI_API_KEY"}]}


def accepted(sidecar: Sidecar, receiver: Receiver, raw: bytes) -> None:
    receiver.forget()
    answer = sidecar.ask(raw)
    assert (answer.status, answer.body) == (200, b"ok"), answer
    assert [seen.body for seen in receiver.requests] == [JSON_BODY]


def reload(sidecar: Sidecar) -> None:
    assert sidecar.admin("/-/reload", method="POST")[0] == 200


@WORKERS
def test_one_access_token_serves_several_keys(
    start: Start, receiver: Receiver, ebay: Ebay, wait_until: WaitUntil, workers: int
) -> None:
    sidecar = start(configuration(ebay, workers=workers))
    wait_until(lambda: ebay.asked == 1, "the token")  # so that the first delivery waits for its key alone
    for _ in range(3):
        accepted(sidecar, receiver, A.delivery())
        accepted(sidecar, receiver, B.delivery())
    assert (ebay.asked, ebay.requests(f"{KEYS_PATH}/{A.id}"), ebay.requests(f"{KEYS_PATH}/{B.id}")) == (1, 1, 1)
    head, _, form = ebay.heads[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /identity/v1/oauth2/token HTTP/1.1\r\n")
    assert form == b"grant_type=client_credentials&scope=https%3A%2F%2Fapi.ebay.com%2Foauth%2Fapi_scope"
    assert b"content-type: application/x-www-form-urlencoded" in head.lower()
    # The secret is in no request but that one.
    assert [b"authorization: Basic " in head for head in ebay.heads] == [True, False, False]
    forged = A.delivery(b'{"event":"other"}').replace(b'{"event":"other"}', b'{"event":"forge"}')
    sidecar.refused(forged, 403, "signature_mismatch", receiver=receiver, route="shop")


@WORKERS
def test_a_wrong_secret_rejects_with_503_and_the_log_says_what_to_check(
    start: Start, receiver: Receiver, ebay: Ebay, wait_until: WaitUntil, workers: int
) -> None:
    ebay.grant(TOKENS[0], secret="another one")
    sidecar = start(configuration(ebay, workers=workers))
    # The mistake is in the log before any delivery.
    line = sidecar.line(event="keys_failed")
    assert (line["source"], line["result"], line["url"]) == ("ebay", "credentials", f"https://api.ebay.com{TOKEN_PATH}")
    assert line["detail"].endswith("responded with status 401 (invalid_client); check client_id and client_secret")
    mark = sidecar.mark()
    answer = sidecar.refused(A.delivery(), 503, "key_unavailable", receiver=receiver, route="shop")
    assert answer.values(b"retry-after") == [b"5"]
    line = sidecar.line(mark, event="keys_failed")
    assert "check client_id and client_secret" in line["detail"]
    assert "deliveries get 503" in line["kept"]
    for key in (A, B, Key(3), Key(4)):
        sidecar.refused(key.delivery(), 503, "key_unavailable", receiver=receiver, route="shop")
    # Strangers choose ids of keys; the token endpoint is asked once in half a minute all the same.
    assert ebay.asked == 1
    assert sum(ebay.counts.values()) == 1
    assert sidecar.metric("key_fetches_total", source="ebay", result="credentials") >= 2
    _, page = sidecar.admin("/", headers={"Accept": "text/html"})
    assert CLIENT_ID.encode() not in page
    # Once it is put right at eBay, a reload is enough.
    ebay.grant(TOKENS[0])
    reload(sidecar)
    wait_until(lambda: sidecar.ask(A.delivery()).status == 200, "the news of it in each worker")
    assert ebay.asked == 2
    accepted(sidecar, receiver, A.delivery())
    _, shown = sidecar.admin("/-/config")
    assert b"EBAY" not in shown
    assert b"CANARY" not in shown


@WORKERS
def test_a_client_secret_is_rotated_by_a_reload_and_no_delivery_is_rejected(
    start: Start, receiver: Receiver, ebay: Ebay, tmp_path: Path, workers: int, wait_until: WaitUntil
) -> None:
    file = tmp_path / "client-secret"
    file.write_text(SECRETS["EBAY_CLIENT_SECRET"])
    sidecar = start(configuration(ebay, client_secret={"file": str(file)}, workers=workers))
    wait_until(lambda: ebay.asked == 1, "the token")
    accepted(sidecar, receiver, A.delivery())
    ebay.grant(TOKENS[1], secret="CANARY-SECRET-ebay-new")
    accepted(sidecar, receiver, A.delivery())
    file.write_text("CANARY-SECRET-ebay-new")
    reload(sidecar)
    wait_until(lambda: ebay.asked == 2, "a token for the new secret")
    for _ in range(2):
        accepted(sidecar, receiver, A.delivery())
        accepted(sidecar, receiver, B.delivery())
    assert (ebay.asked, ebay.requests(f"{KEYS_PATH}/{A.id}"), ebay.requests(f"{KEYS_PATH}/{B.id}")) == (2, 1, 1)
    assert [line for line in sidecar.lines if line.get("event") == "keys_failed"] == []


def test_a_key_that_ebay_does_not_have_is_not_taken_for_a_wrong_token(
    start: Start, receiver: Receiver, ebay: Ebay
) -> None:
    sidecar = start(configuration(ebay))
    for _ in range(3):
        sidecar.refused(Key(9).delivery(), 403, "key_unknown", receiver=receiver, route="shop")
    assert sidecar.metric("key_fetches_total", source="ebay", result="absent") == 1
    assert ebay.asked == 1


def test_a_token_endpoint_that_hangs_holds_up_a_delivery_for_three_seconds_and_no_other(
    start: Start, receiver: Receiver, ebay: Ebay
) -> None:
    ebay.serve(TOKEN_PATH, hangs=True)
    config = configuration(ebay)
    config["routes"].append(
        {"name": "begini", "path": "/webhooks/begini", "verify": "begini", "secrets": [{"env": "BEGINI_API_KEY"}]}
    )
    sidecar = start(config)
    sidecar.refused(A.delivery(), 503, "key_unavailable", receiver=receiver, route="shop")
    assert 2500 < sidecar.line(reason="key_unavailable")["duration_ms"] < 4500
    accepted(sidecar, receiver, Craft.begini())
    assert ebay.asked == 1
