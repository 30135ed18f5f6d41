"""The command `sidecar check`."""

import argparse
import os
import sys

from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError
from sidecar.config.settings import Config
from sidecar.outcomes import DEFAULT_REJECTION


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a configuration")
    parser.add_argument(
        "--no-secrets",
        action="store_true",
        help="don't read environment variables and secret files, for example in CI",
    )


def run(arguments: argparse.Namespace) -> int:
    failed = False
    for file in arguments.files:
        try:
            config = load_config(file, os.environ, resolve_secrets=not arguments.no_secrets)
        except ConfigError as error:
            print(error, file=sys.stderr)
            failed = True
        else:
            print(describe_routes(config))
    return 1 if failed else 0


def describe_routes(config: Config) -> str:
    """What each route will do, one line each."""
    lines = [f"{config.file}: ok", f"  listen {config.listen}, admin {config.admin}"]
    for route in config.routes.routes:
        if route.open:
            how = "OPEN: nothing is verified"
        elif route.verifier is None:
            how = "no signature, address only"
        else:
            scheme = route.verifier.scheme
            how = f"{route.preset or 'custom scheme'} ({scheme.summary}); secrets {', '.join(route.secret_ids)}"
        senders = f"; from {', '.join(route.allow.cidrs)}" if route.allow is not None else ""
        replay = f"; at most once in {route.replay.seconds:g} s" if route.replay is not None else ""
        signed = "; re-signed for the receiver" if route.upstream_signer is not None else ""
        rejection = f"; rejects with {route.rejection.status}" if route.rejection != DEFAULT_REJECTION else ""
        shadow = "; SHADOW: rejects nothing" if route.shadow else ""
        methods = "/".join(sorted(route.methods))
        lines.append(
            f"  {route.name}: {methods} {route.pattern} -> {route.upstream}: {how}{senders}{replay}{signed}{rejection}{shadow}"
        )
    lines += [f"  warning: {warning}" for warning in config.warnings]
    return "\n".join(lines)
