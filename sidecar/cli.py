"""The `sidecar` command: parse, call one function, print, exit."""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from sidecar import __version__
from sidecar.config import Config, ConfigError, load_config


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # `sidecar check | head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sidecar", description="Lets only verified webhook deliveries through to your receiver.")
    parser.add_argument("--version", action="version", version=f"webhook-sidecar {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="run the sidecar")
    serve.add_argument("--config", metavar="FILE", default=os.environ.get("SIDECAR_CONFIG"), help="default: $SIDECAR_CONFIG")
    serve.set_defaults(run=_serve)

    check = commands.add_parser("check", help="validate configuration files and show their routes")
    check.add_argument("files", nargs="+", metavar="FILE")
    check.add_argument("--no-secrets", action="store_true", help="don't read environment variables and secret files")
    check.set_defaults(run=_check)

    schema = commands.add_parser("schema", help="print the JSON Schema of the configuration")
    schema.set_defaults(run=_schema)
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    if not arguments.config:
        print("sidecar serve: no configuration; give --config FILE or set SIDECAR_CONFIG", file=sys.stderr)
        return 2
    config = load_config(arguments.config, os.environ)
    from sidecar.serve import ListenError, serve

    try:
        return serve(config, os.environ)
    except ListenError as error:
        print(f"sidecar serve: {error}", file=sys.stderr)
        return 1


def _check(arguments: argparse.Namespace) -> int:
    failed = False
    for file in arguments.files:
        try:
            config = load_config(file, os.environ, resolve_secrets=not arguments.no_secrets)
        except ConfigError as error:
            print(error, file=sys.stderr)
            failed = True
        else:
            print(_described(config))
    return 1 if failed else 0


def _described(config: Config) -> str:
    """The routes as they will work, a line each."""
    lines = [f"{config.file}: ok", f"  listen {config.listen}, admin {config.admin}"]
    for route in config.routes.routes:
        if route.open:
            how = "OPEN, nothing is verified"
        elif route.verifier is None:
            how = "no signature, by address alone"
        else:
            signature = route.verifier.scheme.signature
            how = f"{route.preset or 'own scheme'} (HMAC-{signature.algorithm.upper()} in {signature.header}), secrets {', '.join(route.secret_ids)}"
        senders = f", from {', '.join(route.allow.cidrs)}" if route.allow is not None else ""
        shadow = ", SHADOW: refuses nothing" if route.shadow else ""
        lines.append(f"  {route.name}: {'/'.join(sorted(route.methods))} {route.pattern} -> {route.upstream}: {how}{senders}{shadow}")
    lines += [f"  warning: {warning}" for warning in config.warnings]
    return "\n".join(lines)


def _schema(arguments: argparse.Namespace) -> int:
    from sidecar.schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0
