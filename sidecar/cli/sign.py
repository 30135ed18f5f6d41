"""The command `sidecar sign`."""

import argparse
import shlex
import sys
import time
from pathlib import Path

from sidecar.cli.arguments import add_signing, unix_time
from sidecar.cli.errors import unusable
from sidecar.cli.signing import SignedDelivery, describe_secret, make_sender
from sidecar.verify.keys import KeyFormError
from sidecar.verify.sign import SigningError
from sidecar.verify.template import ListedHeaders


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_signing(parser)
    parser.add_argument("--url", metavar="URL", default="", help="the URL that is called; some schemes sign it")
    parser.add_argument(
        "--timestamp", type=unix_time, metavar="N", help="the time to sign, in unix seconds; default: now"
    )
    parser.add_argument("--id", default="", metavar="ID", help="the delivery's id; default: a random one")
    parser.add_argument("--curl", action="store_true", help="print a complete curl command instead")


def run(arguments: argparse.Namespace) -> int:
    url = arguments.url
    if arguments.curl and arguments.preset is not None:
        name = Path(arguments.preset).stem if "/" in arguments.preset else arguments.preset
        url = url or f"http://127.0.0.1:8080/webhooks/{name}"
    sender = make_sender(arguments, url, delivery_id=arguments.id)
    url = sender.url
    if arguments.preset is not None and sender.schemes[0].needs_url and not arguments.url:
        unusable("this scheme signs the URL that is called; add --url URL")
    try:
        delivery = sender.sign(arguments.timestamp if arguments.timestamp is not None else time.time())
        if arguments.curl:
            print(curl_command(delivery, arguments.body))
            return 0
    except KeyFormError as error:
        unusable(f"{describe_secret(arguments)} {error}")
    except SigningError as error:
        unusable(str(error))
    except UnicodeError:
        unusable("the body is not text, so it can't be part of a command line; use a file: --body FILE")
    needs_type = any(
        scheme.reads_form or scheme.form_field or any(isinstance(part, ListedHeaders) for part in scheme.places)
        for scheme in sender.schemes
    )
    for name, value in delivery.headers if needs_type else delivery.headers[:-1]:  # the last one is Content-Type
        print(f"{name}: {value}")
    if delivery.url != url:
        print(f"sidecar sign: call {delivery.url}", file=sys.stderr)
    if delivery.body != sender.body:  # the scheme puts its values into the body
        print(f"\n{delivery.body.decode()}")
    elif arguments.body is None:
        print(f"sidecar sign: without --body, this body was signed: {delivery.body.decode()}", file=sys.stderr)
    return 0


def curl_command(delivery: SignedDelivery, file: str | None) -> str:
    """A shell command that sends the delivery, with the body from `file` if that is unchanged. Raises `UnicodeError`."""
    words = ["curl", "-sS", "-i", "-X", "POST"]
    for name, value in delivery.headers:
        words += ["-H", f"{name}: {value}"]
    if file not in (None, "-") and Path(str(file)).read_bytes() == delivery.body:
        words += ["--data-binary", f"@{file}"]
    else:
        words += ["--data-raw", delivery.body.decode()]
    return " ".join(shlex.quote(word) for word in [*words, delivery.url])
