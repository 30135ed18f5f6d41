"""Deliveries whose key the provider publishes, with that key: for `bench.py published`. Keys and certificates are made here."""

import base64
import datetime
import functools
import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

ISSUER = "https://issuer.example.com"
SNS = "https://sns.us-east-1.amazonaws.com"
CERTIFICATE = "/SimpleNotificationService-00000000000000000000006aad65c2f9.pem"
AUDIENCE = "https://hooks.example.com"


class Case(NamedTuple):
    """The scheme of a route, a delivery to it, and the content of the key server."""

    verify: dict[str, Any]
    headers: dict[str, str]
    body: str
    mirrors: dict[str, str]  #: URLs, and paths of the key server
    pages: dict[str, bytes]
    tokens: tuple[
        str, ...
    ] = ()  #: instead of the one in `headers`: Authorization of the deliveries, one after the other


#: Many times as many as a route remembers, so that each is new again when its turn comes.
NEW_TOKENS = 4096


def cases(size: int, only: str = "") -> dict[str, Case]:
    """One of each kind, or `only` one; the body has `size` bytes."""
    pad = '{"event":"score.ready","pad":"' + "x" * max(0, size - 31) + '"}'
    one, other = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
    makers: dict[str, Callable[[], Case]] = {
        "RS256, seen before": lambda: _token("RS256", one, pad),
        "RS256, new": lambda: _token("RS256", one, pad, NEW_TOKENS),
        "ES256, seen before": lambda: _token("ES256", other, pad),
        "ES256, new": lambda: _token("ES256", other, pad, NEW_TOKENS),
        "certificate (SNS)": lambda: _sns(one, size),
    }
    return {label: make() for label, make in makers.items() if only in ("", label)}


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _token(algorithm: str, key: Any, body: str, count: int = 1) -> Case:
    """Like Google Pub/Sub's: an issuer, an audience, an address. With a `count` each delivery has another token."""
    numbers = key.public_key().public_numbers()
    if algorithm == "RS256":
        jwk = {"kty": "RSA", "n": _text(numbers.n.to_bytes(256)), "e": _text(numbers.e.to_bytes(3))}
    else:
        jwk = {"kty": "EC", "crv": "P-256", "x": _text(numbers.x.to_bytes(32)), "y": _text(numbers.y.to_bytes(32))}
    now = int(time.time())
    claims = {"aud": AUDIENCE, "azp": "1", "email": "push@project.iam.gserviceaccount.com", "email_verified": True}
    claims |= {"exp": now + 36000, "iat": now - 10, "iss": ISSUER, "sub": "113774264463038321964"}
    head = {"alg": algorithm, "kid": "dd8f3a2e5b0f4ef1a1c4d9f5a3b6c7d8e9f0a1b2", "typ": "JWT"}
    tokens = [
        _sign(algorithm, key, head, claims | {"iat": now - 10 - number % 50, "jti": str(number)})
        for number in range(count)
    ]
    rules = {"iss": ISSUER, "aud": AUDIENCE, "email": claims["email"], "email_verified": True}
    where = {"kind": "jwt", "header": "Authorization", "prefix": "Bearer ", "algorithms": [algorithm]}
    verify = {"signature": where, "keys": {"jwks": f"{ISSUER}/jwks"}, "claims": rules, "expiry": "required"}
    others = [jwk | {"kid": f"other-{number}", "alg": algorithm} for number in range(2)]
    document = {"keys": [*others, jwk | {"kid": head["kid"], "alg": algorithm}]}
    headers = {"Authorization": tokens[0], "Content-Type": "application/json"}
    mirrors, pages = {f"{ISSUER}/jwks": "/jwks"}, {"/jwks": json.dumps(document).encode()}
    changing = tuple(tokens) if count > 1 else ()
    return Case(verify | {"binds_body": False}, headers, body, mirrors, pages, changing)


def _sign(algorithm: str, key: Any, head: dict[str, str], claims: dict[str, Any]) -> str:
    """The value of Authorization."""
    signed = f"{_text(json.dumps(head).encode())}.{_text(json.dumps(claims).encode())}"
    if algorithm == "RS256":
        signature = key.sign(signed.encode(), padding.PKCS1v15(), SHA256())
    else:
        r, s = utils.decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(SHA256())))
        signature = r.to_bytes(32) + s.to_bytes(32)
    return f"Bearer {signed}.{_text(signature)}"


def _sns(key: rsa.RSAPrivateKey, size: int) -> Case:
    """A notification of Amazon SNS, whose certificate the sidecar has fetched once."""
    topic = "arn:aws:sns:us-east-1:123456789012:MyTopic"
    values = {"Message": "x" * max(0, size - 620), "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324"}
    values |= {"Timestamp": "2026-11-30T00:53:20.000Z", "TopicArn": topic, "Type": "Notification"}
    message = "".join(f"{name}\n{value}\n" for name, value in sorted(values.items()))
    signature = key.sign(message.encode(), padding.PKCS1v15(), SHA256())
    more = {"SignatureVersion": "2", "SigningCertURL": SNS + CERTIFICATE}
    body = json.dumps(values | more | {"Signature": base64.b64encode(signature).decode()})
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day).sign(key, SHA256())
    headers = {"x-amz-sns-message-type": "Notification", "Content-Type": "text/plain"}
    verify = {"preset": "amazon-sns", "topic_arns": topic}
    return Case(verify, headers, body, {SNS + CERTIFICATE: CERTIFICATE}, {CERTIFICATE: made.public_bytes(Encoding.PEM)})


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, pages: Mapping[str, bytes], *arguments: Any) -> None:
        self.pages = pages
        super().__init__(*arguments)

    def do_GET(self) -> None:
        content = self.pages.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


def serve(pages: Mapping[str, bytes]) -> ThreadingHTTPServer:
    """A key server on loopback, until its `shutdown`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, pages))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
