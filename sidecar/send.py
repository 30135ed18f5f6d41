"""`sidecar send`: signs a body as a provider would, and sends it."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx

from sidecar.scheme import Scheme
from sidecar.secret import Secret
from sidecar.signing import sign

TIMEOUT = 30.0


def read_body(file: str | None) -> bytes:
    """The body to send: a file, `-` for standard input, or a small JSON document."""
    if file is None:
        return b'{"event":"sidecar.test","sent_at":%d}' % int(time.time())
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def tampered(body: bytes) -> bytes:
    """The body with its last byte changed; a body of one byte where there was none."""
    return body[:-1] + bytes([body[-1] ^ 1]) if body else b"x"


def send(
    url: str,
    scheme: Scheme,
    secret: Secret,
    body: bytes,
    *,
    count: int = 1,
    tamper: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Counter[int], httpx.Response]:
    """Sends `count` deliveries, one after another; how often each status came, and the last answer.

    Each one is signed anew, so that a scheme with a timestamp stays within its tolerance. Raises `httpx.HTTPError`,
    `httpx.InvalidURL`.
    """
    statuses: Counter[int] = Counter()
    with httpx.Client(timeout=TIMEOUT, trust_env=False) as client:
        for done in range(1, count + 1):
            headers = [*sign(scheme, secret, body=body, now=time.time()), ("Content-Type", "application/json")]
            response = client.post(url, content=tampered(body) if tamper else body, headers=headers)
            statuses[response.status_code] += 1
            progress(done)
    return statuses, response
