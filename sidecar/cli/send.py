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
from sidecar.cli.errors import describe, unusable
from sidecar.cli.signing import Sender, describe_secret, make_sender
from sidecar.secret import mask_url
from sidecar.verify.keys import KeyFormError
from sidecar.verify.sign import SigningError

TIMEOUT = 30.0
#: How long to wait for a connection; a network policy may drop packets silently.
CONNECT_TIMEOUT = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url", metavar="URL", nargs="?", default="", help="where to send it; default with --route: the sidecar itself"
    )
    add_signing(parser)
    parser.add_argument("--public-url", metavar="URL", default="", help="the URL to sign, if it is not URL itself")
    parser.add_argument(
        "--count", type=positive, default=1, metavar="N", help="how many to send, one after another; default: 1"
    )
    parser.add_argument(
        "--tamper", action="store_true", help="change a byte after signing, so that it should be rejected"
    )
    parser.add_argument(
        "--forged", action="store_true", help="send a wrong signature of the right form, so that it should be rejected"
    )
    parser.add_argument(
        "--expect",
        type=expected_status,
        default="2xx",
        metavar="STATUS",
        help="exit 0 if every response has this status, such as 403 or 2xx; default: 2xx. "
        "none: send nothing; exit 0 if nothing accepts a connection",
    )


def run(arguments: argparse.Namespace) -> int:
    if not arguments.url and (arguments.route is None or arguments.expect == "none"):
        unusable("no URL given; give the URL to send to, or --config FILE and --route NAME")
    if arguments.expect == "none":
        return expect_no_connection(arguments.url)
    sender = make_sender(arguments, arguments.url, arguments.public_url, forged=arguments.forged)
    url = mask_url(sender.url)
    try:
        statuses, last = send(
            sender, count=arguments.count, tamper=arguments.tamper, progress=progress(arguments.count)
        )
    except KeyFormError as error:
        unusable(f"{describe_secret(arguments)} {error}")
    except SigningError as error:
        unusable(str(error))
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        unusable(f"{url} is not a valid URL ({str(error).rstrip('.')}); use one such as http://127.0.0.1:8080/path")
    except httpx.HTTPError as error:
        problem = f"no response from {url}: {describe(error)}; check that the sidecar listens there"
        print(f"sidecar send: {problem}", file=sys.stderr)
        return 1
    if arguments.count > 1:
        print(", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())))
    else:
        print(f"{last.status_code} {last.reason_phrase}")
    print(last.text)
    expected = arguments.expect.rstrip("x")
    if all(str(status).startswith(expected) for status in statuses):
        return 0
    print(f"sidecar send: expected {arguments.expect}; the sidecar's log has the reason", file=sys.stderr)
    return 1


def expect_no_connection(url: str) -> int:
    try:
        accepts = accepts_connections(url)
    except (OSError, ValueError) as error:  # a test that could not run must not look like one that passed
        print(f"sidecar send: can't connect to {url}: {describe(error)}; check the URL", file=sys.stderr)
        return 1
    print(f"{url} {'accepts connections' if accepts else 'accepts no connection'}")
    return int(accepts)


def expected_status(text: str) -> str:
    if not re.fullmatch(r"none|[1-5]([0-9]{2}|xx)", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a status; use for example 403, 2xx, or none")
    return text


def progress(count: int) -> Callable[[int], None]:
    """A progress bar on standard error, if several deliveries are sent and it is a terminal."""
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
    """Sends `count` deliveries, one after another; returns how often each status came, and the last response.

    Each one is signed separately, so that a timestamp stays within its tolerance. Raises `httpx.HTTPError`,
    `httpx.InvalidURL`, and the errors of `Sender.sign`.
    """
    statuses: Counter[int] = Counter()
    with httpx.Client(timeout=TIMEOUT, trust_env=False) as client:
        for done in range(1, count + 1):
            delivery = sender.sign(time.time())
            content = change_last_byte(delivery.body) if tamper else delivery.body
            response = client.request(sender.method, delivery.url, content=content, headers=delivery.headers)
            statuses[response.status_code] += 1
            progress(done)
    return statuses, response


def change_last_byte(body: bytes) -> bytes:
    """An empty body becomes one byte."""
    return body[:-1] + bytes([body[-1] ^ 1]) if body else b"x"


def accepts_connections(url: str) -> bool:
    """Whether a connection can be opened; nothing is sent. Raises `socket.gaierror` if the host name can't be resolved."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=CONNECT_TIMEOUT).close()
    except socket.gaierror:
        raise
    except OSError:
        return False
    return True
