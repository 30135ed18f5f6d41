"""The command `sidecar sign`."""

import argparse
import shlex
import sys
import time
from pathlib import Path

from sidecar.cli.arguments import add_signing, unix_time
from sidecar.cli.errors import unusable
from sidecar.cli.signing import Outgoing, sender_of
from sidecar.verify.keys import KeyFormError
from sidecar.verify.scheme import Piece
from sidecar.verify.sign import SigningError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_signing(parser)
    parser.add_argument("--url", metavar="URL", default="", help="what is called: part of what some schemes sign")
    parser.add_argument(
        "--timestamp", type=unix_time, metavar="N", help="when it is signed, unix seconds; default: now"
    )
    parser.add_argument("--id", default="", metavar="ID", help="the delivery's id; default: made up")
    parser.add_argument("--curl", action="store_true", help="print a whole curl line instead")


def run(arguments: argparse.Namespace) -> int:
    name = Path(arguments.preset).stem if "/" in arguments.preset else arguments.preset
    url = arguments.url or (f"http://127.0.0.1:8080/webhooks/{name}" if arguments.curl else "")
    sender = sender_of(arguments, url, delivery_id=arguments.id)
    if sender.scheme.needs_url and not arguments.url:
        unusable("this scheme signs the URL that is called; give it with --url")
    try:
        made = sender.sign(arguments.timestamp if arguments.timestamp is not None else time.time())
        if arguments.curl:
            print(curl_line(made, arguments.body))
            return 0
    except KeyFormError as error:
        unusable(f"the secret in {arguments.secret} {error}")
    except SigningError as error:
        unusable(str(error))
    except UnicodeError:
        unusable("the body is not text, which a command line can't hold; give it as a file: --body FILE")
    read_by_type = Piece.FORM_SORTED in sender.scheme.parts or sender.scheme.form_field
    for name, value in made.headers if read_by_type else made.headers[:-1]:  # else the Content-Type is anybody's choice
        print(f"{name}: {value}")
    if made.url != url:
        print(f"sidecar sign: call {made.url}", file=sys.stderr)
    if made.body != sender.body:  # the scheme stands in it
        print(f"\n{made.body.decode()}")
    elif arguments.body is None:
        print(f"sidecar sign: without --body this one was signed: {made.body.decode()}", file=sys.stderr)
    return 0


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
