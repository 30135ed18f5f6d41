"""The command `sidecar send`."""

import argparse
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx

from sidecar.cli.arguments import add_signing, positive
from sidecar.cli.errors import unusable
from sidecar.cli.signing import Sender, sender_of
from sidecar.verify.keys import KeyFormError
from sidecar.verify.sign import SigningError

TIMEOUT = 30.0
#: How long to wait where a network policy drops packets.
CONNECT_TIMEOUT = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL")
    add_signing(parser)
    parser.add_argument(
        "--public-url", metavar="URL", default="", help="what is signed as the URL; default: URL itself"
    )
    parser.add_argument("--count", type=positive, default=1, metavar="N", help="how many, one after another; default 1")
    parser.add_argument(
        "--tamper", action="store_true", help="change a byte after signing: the answer should be a refusal"
    )
    parser.add_argument(
        "--expect",
        type=expectation,
        default="2xx",
        metavar="STATUS",
        help="exit 0 if every answer has this status (403, 2xx); none: nothing is sent, no connection may be taken; default 2xx",
    )


def run(arguments: argparse.Namespace) -> int:
    if arguments.expect == "none":
        return expect_nobody(arguments.url)
    sender = sender_of(arguments, arguments.url, arguments.public_url)
    try:
        statuses, last = send(
            sender, count=arguments.count, tamper=arguments.tamper, progress=progress(arguments.count)
        )
    except KeyFormError as error:
        unusable(f"the secret in {arguments.secret} {error}")
    except SigningError as error:
        unusable(str(error))
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        unusable(f"{arguments.url} is not a URL to send to: {error}")
    except httpx.HTTPError as error:
        print(f"sidecar send: no answer from {arguments.url}: {error or type(error).__name__}", file=sys.stderr)
        return 1
    if arguments.count > 1:
        print(", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())))
    else:
        print(f"{last.status_code} {last.reason_phrase}")
    print(last.text)
    expected = arguments.expect.rstrip("x")
    if all(str(status).startswith(expected) for status in statuses):
        return 0
    if arguments.expect != "2xx":
        print(f"sidecar send: expected {arguments.expect}", file=sys.stderr)
    return 1


def expect_nobody(url: str) -> int:
    try:
        open_to_us = takes_connections(url)
    except (OSError, ValueError) as error:  # a test that could not be made must not look like one that went well
        print(f"sidecar send: {url} can't be tried: {error}", file=sys.stderr)
        return 1
    print(f"{url} {'takes connections' if open_to_us else 'takes no connection'}")
    return int(open_to_us)


def expectation(text: str) -> str:
    if not re.fullmatch(r"none|[1-5]([0-9]{2}|xx)", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no status; for example 403, 2xx, or none")
    return text


def progress(count: int) -> Callable[[int], None]:
    """A bar on standard error, where many deliveries are sent and somebody watches."""
    if count == 1 or not sys.stderr.isatty():
        return lambda done: None

    def show(done: int) -> None:
        filled = "#" * (30 * done // count)
        print(f"\r[{filled:30}] {done}/{count}", end="\n" if done == count else "", file=sys.stderr, flush=True)

    return show


def send(
    sender: Sender,
    *,
    count: int = 1,
    tamper: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Counter[int], httpx.Response]:
    """Sends `count` deliveries, one after another; how often each status came, and the last answer.

    Each one is signed anew, so that a scheme with a timestamp stays within its tolerance. Raises `httpx.HTTPError`,
    `httpx.InvalidURL`, and what `Sender.sign` raises.
    """
    statuses: Counter[int] = Counter()
    with httpx.Client(timeout=TIMEOUT, trust_env=False) as client:
        for done in range(1, count + 1):
            made = sender.sign(time.time())
            content = tampered(made.body) if tamper else made.body
            response = client.post(made.url, content=content, headers=made.headers)
            statuses[response.status_code] += 1
            progress(done)
    return statuses, response


def tampered(body: bytes) -> bytes:
    """The body with its last byte changed; a body of one byte where there was none."""
    return body[:-1] + bytes([body[-1] ^ 1]) if body else b"x"


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
