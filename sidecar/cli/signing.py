"""Signs deliveries as a provider would; for `sign` and `send`."""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from sidecar.cli.arguments import read_scheme, read_secret_ref
from sidecar.cli.errors import unusable
from sidecar.secret import Secret
from sidecar.verify.message import PublicURL
from sidecar.verify.scheme import Scheme
from sidecar.verify.sign import sign_delivery

_FORM = "application/x-www-form-urlencoded"


class SignedDelivery(NamedTuple):
    """A signed delivery, ready to send."""

    url: str
    headers: list[tuple[str, str]]  #: those of the scheme, then Content-Type
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Signs a body. `url` is where it will be sent; `public_url` is signed instead if it is given."""

    scheme: Scheme
    secret: Secret
    body: bytes
    url: str = ""
    public_url: str = ""
    delivery_id: str = ""

    def sign(self, now: float) -> SignedDelivery:
        """Raises `SigningError`, `KeyFormError`."""
        parts = urlsplit(self.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        called = self.url
        if self.public_url:
            called = PublicURL(self.public_url).of(target.encode()).decode()
        content_type = ("Content-Type", _content_type(self.scheme, self.body))
        signed = sign_delivery(
            self.scheme,
            self.secret,
            body=self.body,
            now=now,
            url=called,
            headers=[content_type],
            delivery_id=self.delivery_id,
        )
        suffix = signed.url.removeprefix(called) if called else ""  # some schemes add to the query
        return SignedDelivery(self.url + suffix, [*signed.headers, content_type], signed.body)


def make_sender(arguments: argparse.Namespace, url: str, public_url: str = "", delivery_id: str = "") -> Sender:
    scheme = read_scheme(arguments.preset)
    try:
        body = read_body(arguments.body, scheme)
    except OSError as error:
        unusable(f"the body {arguments.body} can't be read: {error.strerror}")
    return Sender(
        scheme=scheme,
        secret=read_secret_ref(arguments.secret),
        body=body,
        url=url,
        public_url=public_url,
        delivery_id=delivery_id,
    )


def read_body(file: str | None, scheme: Scheme) -> bytes:
    """The body: a file, `-` for standard input, or a small test document of the kind that the scheme signs."""
    if file is None:
        now = int(time.time())
        return (
            b"event=sidecar.test&sent_at=%d" % now
            if _is_form(scheme)
            else b'{"event":"sidecar.test","sent_at":%d}' % now
        )
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def _is_form(scheme: Scheme) -> bool:
    return scheme.reads_form


def _content_type(scheme: Scheme, body: bytes) -> str:
    if _is_form(scheme):
        return _FORM
    return "application/json" if body.lstrip().startswith((b"{", b"[")) else "application/octet-stream"
