"""Requests as bytes, and signatures made without the package."""

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence
from typing import ClassVar

import leak_watch
from receiver import OK

#: The address of a proxy that the base configuration trusts.
TRUSTED = "127.0.0.9"
#: Part of every body, and its start is part of every secret; it must never appear in any output of the program.
BODY_MARK = b"CANARY-BODY-5e1d"
SECRETS = {
    "BEGINI_API_KEY": "CANARY-SECRET-begini-current-7f3a",
    "GITHUB_SECRET": "CANARY-SECRET-github-11c9",
    "SHOPIFY_SECRET": "CANARY-SECRET-shopify-42aa",
    "SLACK_SECRET": "CANARY-SECRET-slack-90fe",
    "ACME_SECRET": "CANARY-SECRET-acme-6b07",
    "OTHER_API_KEY": "CANARY-SECRET-other-account-0d5c",
    "EBAY_CLIENT_SECRET": "CANARY-SECRET-ebay-5d1e",
}
PREVIOUS_SECRET = "CANARY-SECRET-begini-previous-e2d4"
leak_watch.marker(b"CANARY-SECRET", BODY_MARK)
JSON_BODY = b'{"event":"scored","mark":"%b","n":1}' % BODY_MARK

#: Names and values of header fields.
Fields = Sequence[tuple[bytes, bytes]]


class Craft:
    """Makes requests of senders; the fixture `craft` is this class."""

    sent_signatures: ClassVar[list[bytes]] = []
    json_body = JSON_BODY
    body_mark = BODY_MARK
    ok = OK
    trusted = TRUSTED

    @staticmethod
    def request(
        path: bytes = b"/webhooks/begini",
        headers: Fields = (),
        body: bytes = b"",
        *,
        method: bytes = b"POST",
        version: bytes = b"HTTP/1.1",
        host: bytes | None = b"hooks.test",
    ) -> bytes:
        """A request; Content-Length is added unless the headers frame the body already."""
        lines = [b"%b %b %b" % (method, path, version)]
        if host is not None:
            lines.append(b"Host: " + host)
        lines += [b"%b: %b" % field for field in headers]
        framed = any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in headers)
        if not framed and (body or method == b"POST"):
            lines.append(b"Content-Length: %d" % len(body))
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    @classmethod
    def sent(cls, signature: bytes) -> None:
        """No output of the program may show it from now on."""
        leak_watch.signature(signature)
        cls.sent_signatures.append(signature)

    @classmethod
    def mac(cls, secret: str, message: bytes, algorithm: str = "sha512") -> bytes:
        """The hexadecimal HMAC under one of the secrets above, or under any other."""
        made = hmac.new(SECRETS.get(secret, secret).encode(), message, algorithm).hexdigest().encode()
        cls.sent(made)
        return made

    @classmethod
    def begini(
        cls,
        body: bytes = JSON_BODY,
        headers: Fields = (),
        *,
        path: bytes = b"/webhooks/begini",
        secret: str = "BEGINI_API_KEY",
        method: bytes = b"POST",
        version: bytes = b"HTTP/1.1",
        host: bytes | None = b"hooks.test",
    ) -> bytes:
        """A delivery as Begini signs it."""
        fields = [(b"X-Signature", cls.mac(secret, body)), *headers]
        return cls.request(path, fields, body, method=method, version=version, host=host)

    @classmethod
    def slack(
        cls, body: bytes = JSON_BODY, *, age: int = 0, timestamp: bytes | None = None, headers: Fields = ()
    ) -> bytes:
        stamp = str(int(time.time()) - age).encode() if timestamp is None else timestamp
        made = cls.mac("SLACK_SECRET", b"v0:" + stamp + b":" + body, "sha256")
        fields = [(b"X-Slack-Request-Timestamp", stamp), (b"X-Slack-Signature", b"v0=" + made), *headers]
        return cls.request(b"/webhooks/slack", fields, body)

    @classmethod
    def github(cls, body: bytes = JSON_BODY, headers: Fields = ()) -> bytes:
        made = cls.mac("GITHUB_SECRET", body, "sha256")
        return cls.request(b"/webhooks/github", [(b"X-Hub-Signature-256", b"sha256=" + made), *headers], body)

    @classmethod
    def shopify(cls, body: bytes = JSON_BODY, headers: Fields = ()) -> bytes:
        made = base64.b64encode(hmac.new(SECRETS["SHOPIFY_SECRET"].encode(), body, hashlib.sha256).digest())
        cls.sent(made)
        return cls.request(b"/webhooks/shopify", [(b"X-Shopify-Hmac-Sha256", made), *headers], body)

    @staticmethod
    def chunked(body: bytes, size: int = 1000) -> bytes:
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
