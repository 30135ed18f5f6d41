"""The command `sidecar explain`."""

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from sidecar.cli.arguments import add_settings, read_scheme, read_secrets, unix_time
from sidecar.cli.captured import list_captures, take_capture
from sidecar.cli.errors import unusable
from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError
from sidecar.delivery.explain import Subject, explain
from sidecar.diagnosis.capture import MAX_CAPTURE, Capture, UnusableCaptureError, read_capture
from sidecar.diagnosis.keys_file import KeysFile, KeysFileError
from sidecar.routing.networks import IPAddress, parse_address
from sidecar.secret import Secret
from sidecar.verify.keys import key_problem
from sidecar.verify.verifier import Verifier


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "request", metavar="REQUEST", nargs="?", help="a file with the raw HTTP/1.1 request; - for standard input"
    )
    parser.add_argument(
        "--from",
        dest="admin",
        metavar="URL",
        help="the admin listener of a running sidecar: takes a captured request from there; lists them without --id",
    )
    parser.add_argument("--id", metavar="ID", help="with --from: the id of the captured request")
    parser.add_argument(
        "--token",
        metavar="REF",
        default="env:SIDECAR_ADMIN_TOKEN",
        help="with --from: admin_token; default: env:SIDECAR_ADMIN_TOKEN",
    )
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
    parser.add_argument(
        "--keys", metavar="FILE", help="published keys from a file (JSON of URLs and documents); nothing is fetched"
    )
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _read_capture(
    arguments: argparse.Namespace, peer: IPAddress | None, *, needs_host: bool
) -> tuple[Capture, IPAddress | None, float | None]:
    """The request, the address that it came from and the time to assume, where these are known."""
    now: float | None = arguments.now
    name = "standard input" if arguments.request == "-" else arguments.request
    try:
        if arguments.admin is not None:
            name = f"the capture {arguments.id}"
            taken = take_capture(arguments.admin, arguments.token, arguments.id)
            raw, peer, now = taken.raw, peer or parse_address(taken.peer), taken.at if now is None else now
        else:
            with sys.stdin.buffer if arguments.request == "-" else Path(arguments.request).open("rb") as file:
                raw = file.read(MAX_CAPTURE + 1)
        return read_capture(raw, peer=str(peer) if peer else None, needs_host=needs_host), peer, now
    except OSError as error:
        unusable(f"{name}: can't be read: {error.strerror}; check its path and permissions")
    except UnusableCaptureError as error:
        unusable(f"{name}: {error}")


def read_keys_file(file: str | None) -> KeysFile:
    """The published keys of a file; none without one."""
    if file is None:
        return KeysFile(b"{}")
    try:
        return KeysFile(Path(file).read_bytes())
    except OSError as error:
        unusable(f"{file}: can't be read: {error.strerror}; check its path and permissions")
    except KeysFileError as error:
        unusable(f"{file} {error}")


def run(arguments: argparse.Namespace) -> int:
    peer = None
    if (arguments.request is None) == (arguments.admin is None):
        unusable("give REQUEST, a file with the request, or --from URL with --id ID")
    if arguments.admin is not None and arguments.id is None:
        print(list_captures(arguments.admin, arguments.token))
        return 0
    if arguments.client_ip is not None and (peer := parse_address(arguments.client_ip)) is None:
        unusable(f"--client-ip {arguments.client_ip!r} is not an IP address; use for example 203.0.113.7")
    config_file = arguments.config or os.environ.get("SIDECAR_CONFIG")
    if arguments.preset is None and not config_file:
        unusable("nothing to verify with; give --preset NAME and --secret REF, or --config FILE")
    secrets = read_secrets(arguments.secret)
    keys = read_keys_file(arguments.keys)
    config = verifier = None
    unusable_secrets: list[tuple[Secret, str]] = []
    if arguments.preset is None:
        try:
            config = load_config(str(config_file), os.environ, resolve_secrets=not secrets, published=keys)
        except ConfigError as error:
            unusable(f"the configuration is not valid:\n{error}")
    else:
        scheme = read_scheme(arguments.preset, arguments.setting)
        if scheme.names_secret:  # ids are the configuration's
            scheme = replace(scheme, keys=None)
        if not secrets and not scheme.published:
            unusable("--preset needs a secret to verify with; add --secret env:NAME or --secret file:PATH")
        if scheme.needs_url and not arguments.public_url:
            unusable("this scheme signs the URL that the sender calls; add --public-url https://your.host")
        if scheme.published:
            secrets = []
        unusable_secrets = [(secret, problem) for secret in secrets if (problem := key_problem(scheme, secret))]
        usable = [secret for secret in secrets if not key_problem(scheme, secret)]
        resolved = bool(usable) or scheme.published
        verifier = Verifier(scheme, usable or secrets, arguments.public_url, resolved=resolved, published=keys)
    capture, peer, now = _read_capture(arguments, peer, needs_host=config is not None)
    subject = Subject(
        config=config,
        verifier=verifier,
        secrets=secrets,
        unusable=unusable_secrets,
        public_url=arguments.public_url,
        peer_known=peer is not None,
    )
    try:
        explanation = explain(capture, subject, now=now if now is not None else time.time())
    except ValueError as error:  # a secret that is not in the form that the route's scheme needs
        unusable(f"a secret given with --secret {error}")
    print(explanation.as_json() if arguments.json else explanation.as_text())
    return 0 if explanation.reason is None else 1
