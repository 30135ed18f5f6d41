"""The `sidecar` command: parse, call one function, print, exit.

What a command needs is imported when it runs: `serve` starts in a third of a second because it doesn't load `send`'s
HTTP client, and the other way round.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from sidecar import __version__
from sidecar.config import Config, ConfigError, SecretUnavailableError, load_config, read_secret
from sidecar.fields import SecretRef
from sidecar.secret import Secret

Command = Callable[[argparse.Namespace], int]


class UsageError(Exception):
    """Input that a command can't work with; exit status 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0 for success, 1 for a no, 2 for unusable input."""
    arguments = _parser().parse_args(argv)
    run: Command = arguments.run
    try:
        return run(arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    except UsageError as error:
        print(f"sidecar {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # `sidecar schema | head`: the reader has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sidecar", description="Lets only verified webhook deliveries through to your receiver."
    )
    parser.add_argument("--version", action="version", version=f"webhook-sidecar {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")

    def command(name: str, run: Command, help: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help)
        made.set_defaults(run=run)
        return made

    serve = command("serve", _serve, "run the sidecar")
    _add_config(serve)

    check = command("check", _check, "validate configuration files and show their routes as they will work")
    check.add_argument("files", nargs="+", metavar="FILE")
    check.add_argument(
        "--no-secrets",
        action="store_true",
        help="don't read environment variables and secret files, as where a CI has none",
    )

    command("schema", _schema, "print the JSON Schema of the configuration")

    demo = command("demo", _demo, "show a real sidecar at work on one genuine and three forged deliveries")
    demo.add_argument("--keep", action="store_true", help="leave it running and print commands to try")

    send = command("send", _send, "sign a delivery as a provider would, send it, and show the answer")
    send.add_argument("url", metavar="URL")
    send.add_argument("--preset", required=True, help="whose signature to make, for example begini")
    send.add_argument("--secret", required=True, metavar="REF", help="env:NAME or file:PATH")
    send.add_argument(
        "--body", metavar="FILE", help="what to send; - for standard input; default: a small JSON document"
    )
    send.add_argument("--count", type=_positive, default=1, metavar="N", help="how many, one after another; default 1")
    send.add_argument(
        "--tamper", action="store_true", help="change a byte after signing: the answer should be a refusal"
    )

    health = command("healthcheck", _healthcheck, "ask the admin listener's /readyz; for images without a shell")
    _add_config(health)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", default=os.environ.get("SIDECAR_CONFIG"), help="default: $SIDECAR_CONFIG"
    )


def _config_file(arguments: argparse.Namespace) -> str:
    file: str | None = arguments.config
    return file or _unusable("no configuration; give --config FILE or set SIDECAR_CONFIG")


def _serve(arguments: argparse.Namespace) -> int:
    config = load_config(_config_file(arguments), os.environ)
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
            scheme = route.verifier.scheme
            how = f"{route.preset or 'own scheme'} ({scheme.summary}), secrets {', '.join(route.secret_ids)}"
        senders = f", from {', '.join(route.allow.cidrs)}" if route.allow is not None else ""
        shadow = ", SHADOW: refuses nothing" if route.shadow else ""
        methods = "/".join(sorted(route.methods))
        lines.append(f"  {route.name}: {methods} {route.pattern} -> {route.upstream}: {how}{senders}{shadow}")
    lines += [f"  warning: {warning}" for warning in config.warnings]
    return "\n".join(lines)


def _schema(arguments: argparse.Namespace) -> int:
    from sidecar.schema import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from sidecar.demo import DemoError, run_demo

    try:
        return run_demo(keep=arguments.keep)
    except DemoError as error:
        print(f"sidecar demo: {error}", file=sys.stderr)
        return 1


def _send(arguments: argparse.Namespace) -> int:
    import httpx

    from sidecar.schema import load_preset, preset_names
    from sidecar.send import read_body, send

    try:
        scheme = load_preset(arguments.preset)
    except KeyError:
        _unusable(f"there is no preset {arguments.preset!r}; there are {', '.join(preset_names())}")
    secret = _secret(arguments.secret)
    try:
        body = read_body(arguments.body)
    except OSError as error:
        _unusable(f"the body {arguments.body} can't be read: {error.strerror}")
    try:
        statuses, last = send(
            arguments.url,
            scheme,
            secret,
            body,
            count=arguments.count,
            tamper=arguments.tamper,
            progress=_progress(arguments.count),
        )
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        _unusable(f"{arguments.url} is not a URL to send to: {error}")
    except httpx.HTTPError as error:
        print(f"sidecar send: no answer from {arguments.url}: {error or type(error).__name__}", file=sys.stderr)
        return 1
    if arguments.count > 1:
        print(", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())))
    else:
        print(f"{last.status_code} {last.reason_phrase}")
    print(last.text)
    return 0 if all(200 <= status < 300 for status in statuses) else 1


def _progress(count: int) -> Callable[[int], None]:
    """A bar on standard error, where many deliveries are sent and somebody watches."""
    if count == 1 or not sys.stderr.isatty():
        return lambda done: None

    def show(done: int) -> None:
        filled = "#" * (30 * done // count)
        print(f"\r[{filled:30}] {done}/{count}", end="\n" if done == count else "", file=sys.stderr, flush=True)

    return show


def _healthcheck(arguments: argparse.Namespace) -> int:
    # No secrets: a probe asks whether the running sidecar is ready, not whether this file could be loaded now.
    admin = load_config(_config_file(arguments), {}, resolve_secrets=False).admin
    import httpx

    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(
        admin.host, f"[{admin.host}]" if ":" in admin.host else admin.host
    )
    transport = httpx.HTTPTransport(uds=admin.path) if admin.path else httpx.HTTPTransport()
    try:
        with httpx.Client(transport=transport, timeout=5, trust_env=False) as client:
            response = client.get(f"http://{'localhost' if admin.path else f'{host}:{admin.port}'}/readyz")
    except httpx.HTTPError as error:
        print(f"sidecar healthcheck: no answer from {admin}: {error or type(error).__name__}", file=sys.stderr)
        return 1
    if response.status_code != 200:
        print(f"sidecar healthcheck: not ready: {response.text.strip()}", file=sys.stderr)
        return 1
    return 0


def _secret(reference: str) -> Secret:
    """A secret by `env:NAME` or `file:PATH`. What was given is not shown: it may be the secret itself."""
    kind, _, name = reference.partition(":")
    if kind not in ("env", "file") or not name:
        _unusable("--secret takes env:NAME or file:PATH, never the secret itself: arguments show in process lists")
    ref = SecretRef("secret", name if kind == "env" else "", name if kind == "file" else "", False)
    try:
        return Secret(ref.id, read_secret(ref, os.environ))
    except SecretUnavailableError as error:
        _unusable(str(error))
    except ValueError:
        _unusable(f"the secret in {reference} is empty")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _unusable(message: str) -> NoReturn:
    raise UsageError(message)
