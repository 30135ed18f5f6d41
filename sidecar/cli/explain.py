"""The command `sidecar explain`."""

import argparse
import os
import sys
import time
from pathlib import Path

from sidecar.cli.arguments import read_scheme, read_secrets, unix_time
from sidecar.cli.errors import unusable
from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError
from sidecar.delivery.explain import Subject, explain
from sidecar.diagnosis.capture import MAX_CAPTURE, UnusableCaptureError, read_capture
from sidecar.routing.networks import parse_address
from sidecar.secret import Secret
from sidecar.verify.keys import key_problem
from sidecar.verify.verifier import Verifier


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("request", metavar="REQUEST", help="a file with the raw HTTP/1.1 request; - for standard input")
    against = parser.add_mutually_exclusive_group()
    against.add_argument(
        "--preset", help="how it should be signed: the name of a preset, or a file with a custom scheme"
    )
    against.add_argument("--config", metavar="FILE", help="a whole configuration instead; default: $SIDECAR_CONFIG")
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="REF",
        help="a secret, as env:NAME or file:PATH; may be repeated",
    )
    parser.add_argument(
        "--now", type=unix_time, metavar="UNIX", help="the time to assume, in unix seconds; default: now"
    )
    parser.add_argument(
        "--public-url", metavar="URL", default="", help="the URL that the sender called, for schemes that sign it"
    )
    parser.add_argument(
        "--client-ip", metavar="IP", help="the address that the connection came from, for allow: and trusted_proxies:"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    peer = None
    if arguments.client_ip is not None and (peer := parse_address(arguments.client_ip)) is None:
        unusable(f"--client-ip {arguments.client_ip!r} is not an IP address; use for example 203.0.113.7")
    config_file = arguments.config or os.environ.get("SIDECAR_CONFIG")
    if arguments.preset is None and not config_file:
        unusable("nothing to verify with; give --preset NAME and --secret REF, or --config FILE")
    secrets = read_secrets(arguments.secret)
    config = verifier = None
    unusable_secrets: list[tuple[Secret, str]] = []
    if arguments.preset is None:
        try:
            config = load_config(str(config_file), os.environ, resolve_secrets=not secrets)
        except ConfigError as error:
            unusable(f"the configuration is not valid:\n{error}")
    else:
        scheme = read_scheme(arguments.preset)
        if not secrets:
            unusable("--preset needs a secret to verify with; add --secret env:NAME or --secret file:PATH")
        if scheme.needs_url and not arguments.public_url:
            unusable("this scheme signs the URL that the sender calls; add --public-url https://your.host")
        unusable_secrets = [(secret, problem) for secret in secrets if (problem := key_problem(scheme, secret))]
        usable = [secret for secret in secrets if not key_problem(scheme, secret)]
        verifier = Verifier(scheme, usable or secrets, arguments.public_url, resolved=bool(usable))
    name = "standard input" if arguments.request == "-" else arguments.request
    try:
        with sys.stdin.buffer if arguments.request == "-" else Path(arguments.request).open("rb") as file:
            raw = file.read(MAX_CAPTURE + 1)
        capture = read_capture(raw, peer=str(peer) if peer else None, needs_host=config is not None)
    except OSError as error:
        unusable(f"{name}: can't be read: {error.strerror}")
    except UnusableCaptureError as error:
        unusable(f"{name}: {error}")
    subject = Subject(
        config=config,
        verifier=verifier,
        secrets=secrets,
        unusable=unusable_secrets,
        public_url=arguments.public_url,
        peer_known=peer is not None,
    )
    try:
        explanation = explain(capture, subject, now=arguments.now if arguments.now is not None else time.time())
    except ValueError as error:  # a secret that is not in the form that the route's scheme needs
        unusable(f"a secret given with --secret {error}")
    print(explanation.as_json() if arguments.json else explanation.as_text())
    return 0 if explanation.reason is None else 1
