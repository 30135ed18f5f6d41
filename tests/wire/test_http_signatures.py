"""HTTP Message Signatures on the wire: the published deliveries, and keys from a server that rotates them."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from craft import Craft
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from key_server import KeyServer
from published_store import jwk_of
from published_vectors import Vector, body_of, secrets_of, sender, target_of, verify_of
from receiver import Receiver
from sidecar_process import Config, Start

from sidecar.config.presets import Verify
from sidecar.secret import Secret
from sidecar.verify.scheme import Scheme
from sidecar.verify.sign import SIGNING_KEY_ID, sign_delivery

CENTURIES = "5000000h"
#: Their verdict needs another clock than that of a process of today.
OF_ANOTHER_CLOCK = {"rfc9421-59"}
SENDERS = ("rfc9421", "keygen")
VECTORS = [
    (name, vector) for name in SENDERS for vector in sender(name)["vectors"] if vector["id"] not in OF_ANOTHER_CLOCK
]


def path_of(name: str, vector: Vector) -> str:
    """A path of its own, which `public_url` hides; the URLs of Keygen's vectors have no query, so they are called as they are."""
    return f"/v/{vector['id']}" if name == "rfc9421" else urlsplit(vector["url"]).path


def routes() -> tuple[list[Config], dict[str, str]]:
    """A route for each delivery, or for all of a sender, and the environment."""
    made: dict[str, Config] = {}
    env: dict[str, str] = {}
    for name, vector in VECTORS:
        path = path_of(name, vector)
        if path in made:
            continue
        verify = verify_of(name, vector) | {"timestamp": {"tolerance": CENTURIES}}
        if vector["want"] == "valid" and name == "rfc9421":
            verify["skew"] = CENTURIES  # for `expires`
        secrets: list[dict[str, str]] = []
        for key, text in secrets_of(name, vector).items():
            env[f"{vector['id']}_{len(secrets)}".replace("-", "_").upper()] = text
            secrets.append({"id": key, "env": f"{vector['id']}_{len(secrets)}".replace("-", "_").upper()})
        url = urlsplit(vector["url"])
        made[path] = {
            "name": vector["id"],
            "path": path,
            "methods": ["POST", "PUT", "DELETE", "GET"],
            "verify": verify,
            "public_url": vector["url"] if name == "rfc9421" else f"{url.scheme}://{url.netloc}",
            "secrets": secrets,
        }
    return list(made.values()), env


@pytest.mark.parametrize("piecewise", [False, True], ids=["whole", "byte by byte"])
def test_every_published_delivery_has_its_verdict(start: Start, receiver: Receiver, piecewise: bool) -> None:
    listed, env = routes()
    config: Config = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0", "upstream": receiver.url, "routes": listed}
    sidecar = start(text=json.dumps(config), env=env)
    wrong = []
    for name, vector in VECTORS:
        body = body_of(vector)
        target = path_of(name, vector) + target_of(vector)[len(urlsplit(vector["url"]).path) :]
        head = f"{vector['method']} {target} HTTP/1.1\r\nContent-Length: {len(body)}\r\n"
        head += "".join(f"{key}: {value}\r\n" for key, value in vector["headers"] if key != "Content-Length")
        raw = head.encode("latin-1") + b"\r\n" + body
        receiver.forget()
        with sidecar.connect() as client:
            for piece in [bytes([byte]) for byte in raw] if piecewise else [raw]:
                client.try_send(piece)
            answer = client.answer_if_any(vector["method"])
        seen = [request.body for request in receiver.requests]
        wanted = (200, [body]) if vector["want"] == "valid" else (403, [])
        if answer is None or (answer.status, seen) != wanted:
            wrong.append((vector["id"], vector["case"], answer))
    assert wrong == []


SENDER = "https://sender.example.com"
LIST = "/.well-known/jwks.json"
BODY = b'{"id":"order_1","total":4200}'
TYPE = ("Content-Type", "application/json")


class Signer:
    """A sender with a key of its own."""

    def __init__(self, verify: Config, key_id: str = SIGNING_KEY_ID) -> None:
        scheme = Verify().read(verify)
        assert isinstance(scheme, Scheme)
        # With keys that aren't published the signature names the secret's id.
        self.scheme = scheme if key_id == SIGNING_KEY_ID else replace(scheme, keys=None)
        self.private = ec.generate_private_key(ec.SECP256R1())
        pem = self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.secret = Secret(key_id, pem)

    def jwk(self) -> dict[str, Any]:
        return jwk_of(self.private.public_key()) | {"kid": self.secret.id, "alg": "ES256", "use": "sig"}

    def delivery(self, path: bytes, *, body: bytes = BODY, sent: bytes | None = None, key_id: str = "") -> bytes:
        """As bytes; `sent` goes in place of the body that was signed, and `key_id` is named in place of the key's own."""
        signed = sign_delivery(
            self.scheme, self.secret, body=body, now=time.time(), url="https://hooks.example.com" + path.decode(),
            headers=[TYPE],
        )  # fmt: skip
        headers = dict(signed.headers)
        signature = headers["Signature"].encode()
        Craft.sent(signature)
        if key_id:
            headers["Signature-Input"] = headers["Signature-Input"].replace(self.secret.id, key_id)
        pairs = [(name.encode(), value.encode()) for name, value in [TYPE, *headers.items()]]
        return Craft.request(path, pairs, body if sent is None else sent)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[KeyServer]:
    made = KeyServer(tmp_path)
    yield made
    made.stop()


def configuration(server: KeyServer, path: str, verify: Config) -> Config:
    return {
        "keys": {"mirrors": {f"{SENDER}/": f"{server.url}/"}, "ca": str(server.ca_file)},
        "public_url": "https://hooks.example.com",
        "routes": [{"name": "signed", "path": path, "verify": verify}],
    }


JWKS: Config = {
    "preset": "http-signature-jwks",
    "jwks_url": SENDER + LIST,
    "required": ["@method", "@target-uri", "content-digest"],
    "algorithms": ["ecdsa-p256-sha256"],
}


def test_a_delivery_is_verified_with_the_key_that_the_sender_publishes_and_a_rotation_is_noticed(
    start: Start, receiver: Receiver, server: KeyServer
) -> None:
    old, new, forger = Signer(JWKS), Signer(JWKS, "second"), Signer(JWKS)
    server.serve(LIST, json.dumps({"keys": [old.jwk()]}).encode())
    sidecar = start(configuration(server, "/in", JWKS))
    assert sidecar.ask(old.delivery(b"/in")).status == 200
    assert [seen.body for seen in receiver.requests] == [BODY]
    sidecar.refused(forger.delivery(b"/in"), 403, "signature_mismatch", receiver=receiver, route="signed")
    sidecar.refused(
        old.delivery(b"/in", sent=BODY[:-1] + b" "), 403, "signature_mismatch", receiver=receiver, route="signed"
    )
    assert server.requests(LIST) == 1
    server.serve(LIST, json.dumps({"keys": [new.jwk()]}).encode())
    receiver.forget()
    for _ in range(2):  # the first one has the list fetched
        assert sidecar.ask(new.delivery(b"/in")).status == 200
    assert [seen.body for seen in receiver.requests] == [BODY, BODY]
    assert server.requests(LIST) == 2
    line = sidecar.line(event="keys_rotated")
    assert (line["appeared"], line["vanished"]) == ("second", SIGNING_KEY_ID)
    # The old key is gone, and no other signature of it becomes the new key's by naming that.
    sidecar.refused(old.delivery(b"/in"), 403, "key_unknown", receiver=receiver, route="signed")
    for signer in (old, forger):
        raw = signer.delivery(b"/in", key_id="second")
        sidecar.refused(raw, 403, "signature_mismatch", receiver=receiver, route="signed")
    sidecar.refused(new.delivery(b"/in", key_id="third"), 403, "key_unknown", receiver=receiver, route="signed")
    assert server.requests(LIST) == 2


def test_a_signature_that_covers_less_than_the_scheme_demands_reaches_nobody(
    start: Start, receiver: Receiver, server: KeyServer
) -> None:
    lenient = Signer(JWKS | {"required": ["@method"], "binds_body": False})
    server.serve(LIST, json.dumps({"keys": [lenient.jwk()]}).encode())
    sidecar = start(configuration(server, "/in", JWKS))
    mark = sidecar.mark()
    sidecar.refused(lenient.delivery(b"/in"), 403, "signature_malformed", receiver=receiver, route="signed")
    assert "does not cover @target-uri, which the scheme requires" in json.dumps(sidecar.lines[mark:])


def test_a_business_of_the_commerce_protocol_signs_with_a_key_of_its_profile(
    start: Start, receiver: Receiver, server: KeyServer
) -> None:
    verify: Config = {"preset": "ucp", "profile_url": f"{SENDER}/.well-known/ucp"}
    business = Signer(verify)
    profile = {"ucp": {"version": "2026-01-11"}, "signing_keys": [business.jwk()]}
    server.serve("/.well-known/ucp", json.dumps(profile).encode())
    sidecar = start(configuration(server, "/webhooks/ucp/orders", verify))
    assert sidecar.ask(business.delivery(b"/webhooks/ucp/orders")).status == 200
    assert [seen.body for seen in receiver.requests] == [BODY]
    # The query is not covered by a signature that was made without one, as it has to be.
    raw = business.delivery(b"/webhooks/ucp/orders").replace(b"/orders HTTP", b"/orders?a=1 HTTP")
    sidecar.refused(raw, 403, "signature_mismatch", receiver=receiver, route="signed")


def test_without_its_key_server_a_delivery_gets_503_and_reaches_nobody(
    start: Start, receiver: Receiver, server: KeyServer
) -> None:
    signer = Signer(JWKS)
    server.serve(LIST, b"not keys", status=500)
    sidecar = start(configuration(server, "/in", JWKS))
    answer = sidecar.ask(signer.delivery(b"/in"))
    assert (answer.status, receiver.requests) == (503, [])
