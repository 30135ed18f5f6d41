"""The `sidecar` command: parse, call one function, print, exit.

What a command needs is imported when it runs: `serve` starts in a third of a second because it doesn't load `send`'s
HTTP client, and the other way round.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sidecar import __version__
from sidecar.config.files import Remembered
from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError
from sidecar.config.settings import Config
from sidecar.inject.options import add_options
from sidecar.usage import UsageError, unusable

Command = Callable[[argparse.Namespace], int]


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

    demo = command("demo", _demo, "show a real sidecar at work on a genuine delivery and four that must not arrive")
    demo.add_argument("--keep", action="store_true", help="leave it running and print commands to try")

    presets = command("presets", _tool("presets"), "list the presets, or print one as YAML, ready to copy into verify:")
    presets.add_argument("name", nargs="?", metavar="NAME")

    sign = command("sign", _tool("sign"), "print the headers that make a body a valid delivery")
    _add_signing(sign)
    sign.add_argument("--url", metavar="URL", default="", help="what is called: part of what some schemes sign")
    sign.add_argument("--timestamp", type=_unix_time, metavar="N", help="when it is signed, unix seconds; default: now")
    sign.add_argument("--id", default="", metavar="ID", help="the delivery's id; default: made up")
    sign.add_argument("--curl", action="store_true", help="print a whole curl line instead")

    send = command("send", _tool("send"), "sign a delivery as a provider would, send it, and show the answer")
    send.add_argument("url", metavar="URL")
    _add_signing(send)
    send.add_argument("--public-url", metavar="URL", default="", help="what is signed as the URL; default: URL itself")
    send.add_argument("--count", type=_positive, default=1, metavar="N", help="how many, one after another; default 1")
    send.add_argument(
        "--tamper", action="store_true", help="change a byte after signing: the answer should be a refusal"
    )
    send.add_argument(
        "--expect",
        type=_expectation,
        default="2xx",
        metavar="STATUS",
        help="exit 0 if every answer has this status (403, 2xx); none: nothing is sent, no connection may be taken; default 2xx",
    )

    explain = command("explain", _tool("explain"), "say what each stage decides about a captured request, and why")
    explain.add_argument("request", metavar="REQUEST", help="a file with raw HTTP/1.1; - for standard input")
    against = explain.add_mutually_exclusive_group()
    against.add_argument("--preset", help="whose signature to expect: a preset, or a file with a scheme of your own")
    against.add_argument("--config", metavar="FILE", help="default, without --preset: $SIDECAR_CONFIG")
    explain.add_argument(
        "--secret", action="append", default=[], metavar="REF", help="env:NAME or file:PATH; may be repeated"
    )
    explain.add_argument("--now", type=_unix_time, metavar="UNIX", help="the clock, unix seconds; default: now")
    explain.add_argument(
        "--public-url", metavar="URL", default="", help="what the sender called, for schemes that sign it"
    )
    explain.add_argument(
        "--client-ip", metavar="IP", help="where the connection came from, for allow: and trusted_proxies:"
    )
    explain.add_argument("--json", action="store_true", help="print one JSON object")

    inject = command("inject", _inject, "read Kubernetes manifests, and write them back with the sidecar in place")
    inject.add_argument("-f", "--file", metavar="FILE", default="-", help="the manifests; default: standard input")
    inject.add_argument(
        "--settings", metavar="FILE", help="take the options from a kustomize function's configuration instead"
    )
    add_options(inject)

    health = command("healthcheck", _healthcheck, "ask the admin listener's /readyz; for images without a shell")
    _add_config(health)
    return parser


def _tool(name: str) -> Command:
    """A command of tools.py, loaded when it runs."""

    def run(arguments: argparse.Namespace) -> int:
        from sidecar import tools

        command: Command = getattr(tools, name)
        return command(arguments)

    return run


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", default=os.environ.get("SIDECAR_CONFIG"), help="default: $SIDECAR_CONFIG"
    )


def _add_signing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset", required=True, help="whose signature to make: a preset, or a file with a scheme of your own"
    )
    parser.add_argument("--secret", required=True, metavar="REF", help="env:NAME or file:PATH")
    parser.add_argument("--body", metavar="FILE", help="what to send; - for standard input; default: a small document")


def _expectation(text: str) -> str:
    if not re.fullmatch(r"none|[1-5]([0-9]{2}|xx)", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no status; for example 403, 2xx, or none")
    return text


def _config_file(arguments: argparse.Namespace) -> str:
    file: str | None = arguments.config
    return file or unusable("no configuration; give --config FILE or set SIDECAR_CONFIG")


def _serve(arguments: argparse.Namespace) -> int:
    files = Remembered()
    config = load_config(_config_file(arguments), os.environ, read=files)
    from sidecar.process.serve import ListenError, serve

    try:
        return serve(config, files, os.environ)
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
        replay = f", once in {route.replay.seconds:g} s" if route.replay is not None else ""
        signed = ", signed anew for the receiver" if route.resigner is not None else ""
        shadow = ", SHADOW: refuses nothing" if route.shadow else ""
        methods = "/".join(sorted(route.methods))
        lines.append(
            f"  {route.name}: {methods} {route.pattern} -> {route.upstream}: {how}{senders}{replay}{signed}{shadow}"
        )
    lines += [f"  warning: {warning}" for warning in config.warnings]
    return "\n".join(lines)


def _schema(arguments: argparse.Namespace) -> int:
    from sidecar.config.keys import json_schema

    print(json.dumps(json_schema(), indent=2))
    return 0


def _inject(arguments: argparse.Namespace) -> int:
    from sidecar.inject.injection import inject
    from sidecar.inject.manifest import ManifestError
    from sidecar.inject.options import Options, from_settings

    given = {key: value for key, value in vars(arguments).items() if key in Options.__dataclass_fields__}
    try:
        if arguments.settings is not None:
            options = from_settings(_read(arguments.settings), arguments.settings)
        elif "config" in given:
            options = Options(**given | {"config": _read(given["config"]), "config_file": given["config"]})
        else:
            options = Options(**given)
        made = inject(_read(arguments.file), options, "standard input" if arguments.file == "-" else arguments.file)
    except ManifestError as error:
        print(f"sidecar inject: {error}", file=sys.stderr)
        return 1
    for note in made.notes:
        print(f"sidecar inject: note: {note}", file=sys.stderr)
    sys.stdout.buffer.write(made.text.encode())
    return 0


def _read(file: str) -> str:
    """A text with its line ends as they are."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return content.decode()
    except OSError as error:
        unusable(f"{file} can't be read: {error.strerror}")
    except UnicodeDecodeError as error:
        unusable(f"{file} is not UTF-8 (byte {error.start}); manifests are")


def _demo(arguments: argparse.Namespace) -> int:
    from sidecar.demo import DemoError, run_demo

    try:
        return run_demo(keep=arguments.keep)
    except DemoError as error:
        print(f"sidecar demo: {error}", file=sys.stderr)
        return 1


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


def _unix_time(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < 10**11:
        raise argparse.ArgumentTypeError(f"{text!r} is not unix time in seconds, for example {int(time.time())}")
    return value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
