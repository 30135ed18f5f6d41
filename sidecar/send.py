"""`sidecar sign` and `sidecar send`: a delivery as a provider would sign it, shown or sent."""

import shlex
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from sidecar.secret import Secret
from sidecar.verify.message import PublicURL
from sidecar.verify.scheme import Piece, Scheme
from sidecar.verify.sign import sign_delivery

if TYPE_CHECKING:
    import httpx

TIMEOUT = 30.0
#: What a network policy drops is waited for that long.
CONNECT_TIMEOUT = 10.0
_FORM = "application/x-www-form-urlencoded"


def read_body(file: str | None, scheme: Scheme) -> bytes:
    """The body to send: a file, `-` for standard input, or a small document of the kind that the scheme signs."""
    if file is None:
        now = int(time.time())
        return (
            b"event=sidecar.test&sent_at=%d" % now
            if _is_form(scheme)
            else b'{"event":"sidecar.test","sent_at":%d}' % now
        )
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def tampered(body: bytes) -> bytes:
    """The body with its last byte changed; a body of one byte where there was none."""
    return body[:-1] + bytes([body[-1] ^ 1]) if body else b"x"


class Outgoing(NamedTuple):
    """A signed delivery, ready to send."""

    url: str
    headers: list[tuple[str, str]]  #: those that the scheme makes, then Content-Type
    body: bytes


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Who signs, and what. `url` is where it goes, `public_url` what is signed as the URL if that is another."""

    scheme: Scheme
    secret: Secret
    body: bytes
    url: str = ""
    public_url: str = ""
    delivery_id: str = ""

    def sign(self, now: float) -> Outgoing:
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
        added = signed.url.removeprefix(called) if called else ""  # some schemes add to the query
        return Outgoing(self.url + added, [*signed.headers, content_type], signed.body)


def _is_form(scheme: Scheme) -> bool:
    return Piece.FORM_SORTED in scheme.parts


def _content_type(scheme: Scheme, body: bytes) -> str:
    if _is_form(scheme):
        return _FORM
    return "application/json" if body.lstrip().startswith((b"{", b"[")) else "application/octet-stream"


def curl_line(made: Outgoing, file: str | None) -> str:
    """A command for a shell that sends the delivery; the body from `file` if it is there unchanged. Raises `UnicodeError`."""
    words = ["curl", "-sS", "-i", "-X", "POST"]
    for name, value in made.headers:
        words += ["-H", f"{name}: {value}"]
    if file not in (None, "-") and Path(str(file)).read_bytes() == made.body:
        words += ["--data-binary", f"@{file}"]
    else:
        words += ["--data-raw", made.body.decode()]
    return " ".join(shlex.quote(word) for word in [*words, made.url])


def send(
    sender: Sender,
    *,
    count: int = 1,
    tamper: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> "tuple[Counter[int], httpx.Response]":
    """Sends `count` deliveries, one after another; how often each status came, and the last answer.

    Each one is signed anew, so that a scheme with a timestamp stays within its tolerance. Raises `httpx.HTTPError`,
    `httpx.InvalidURL`, and what `Sender.sign` raises.
    """
    import httpx  # noqa: PLC0415 - `sign` needs no HTTP client

    statuses: Counter[int] = Counter()
    with httpx.Client(timeout=TIMEOUT, trust_env=False) as client:
        for done in range(1, count + 1):
            made = sender.sign(time.time())
            content = tampered(made.body) if tamper else made.body
            response = client.post(made.url, content=content, headers=made.headers)
            statuses[response.status_code] += 1
            progress(done)
    return statuses, response


def takes_connections(url: str) -> bool:
    """Whether anything listens there for us. Nothing is sent. Raises `socket.gaierror` for a name that nobody knows."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=CONNECT_TIMEOUT).close()
    except socket.gaierror:
        raise
    except OSError:
        return False
    return True
