"""The `sidecar` command: parse, call one function, print, exit.

What a command needs is imported when it runs: `serve` starts in a third of a second because it doesn't load `send`'s
HTTP client, and the other way round.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from sidecar import __version__
from sidecar.config import Config, ConfigError, SecretUnavailableError, load_config, load_scheme, read_secret
from sidecar.fields import SecretRef, SecretReference
from sidecar.files import Remembered
from sidecar.scheme import Scheme
from sidecar.secret import Secret

if TYPE_CHECKING:
    from sidecar.send import Sender

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

    presets = command("presets", _presets, "list the presets, or print one as YAML, ready to copy into verify:")
    presets.add_argument("name", nargs="?", metavar="NAME")

    sign = command("sign", _sign, "print the headers that make a body a valid delivery")
    _add_signing(sign)
    sign.add_argument("--url", metavar="URL", default="", help="what is called: part of what some schemes sign")
    sign.add_argument("--timestamp", type=_unix_time, metavar="N", help="when it is signed, unix seconds; default: now")
    sign.add_argument("--id", default="", metavar="ID", help="the delivery's id; default: made up")
    sign.add_argument("--curl", action="store_true", help="print a whole curl line instead")

    send = command("send", _send, "sign a delivery as a provider would, send it, and show the answer")
    send.add_argument("url", metavar="URL")
    _add_signing(send)
    send.add_argument("--public-url", metavar="URL", default="", help="what is signed as the URL; default: URL itself")
    send.add_argument("--count", type=_positive, default=1, metavar="N", help="how many, one after another; default 1")
    send.add_argument(
        "--tamper", action="store_true", help="change a byte after signing: the answer should be a refusal"
    )

    explain = command("explain", _explain, "say what each stage decides about a captured request, and why")
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

    health = command("healthcheck", _healthcheck, "ask the admin listener's /readyz; for images without a shell")
    _add_config(health)
    return parser


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


def _config_file(arguments: argparse.Namespace) -> str:
    file: str | None = arguments.config
    return file or _unusable("no configuration; give --config FILE or set SIDECAR_CONFIG")


def _serve(arguments: argparse.Namespace) -> int:
    files = Remembered()
    config = load_config(_config_file(arguments), os.environ, read=files)
    from sidecar.serve import ListenError, serve

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


def _presets(arguments: argparse.Namespace) -> int:
    from sidecar.catalogue import preset_list, preset_yaml

    if arguments.name is None:
        print(preset_list())
        return 0
    try:
        print(preset_yaml(arguments.name), end="")
    except KeyError:
        print(f"sidecar presets: {_no_preset(arguments.name)}", file=sys.stderr)
        return 1
    return 0


def _sender(arguments: argparse.Namespace, url: str, public_url: str = "", delivery_id: str = "") -> "Sender":
    from sidecar.send import Sender, read_body

    scheme = _scheme(arguments.preset)
    try:
        body = read_body(arguments.body, scheme)
    except OSError as error:
        _unusable(f"the body {arguments.body} can't be read: {error.strerror}")
    return Sender(
        scheme=scheme,
        secret=_secret(arguments.secret),
        body=body,
        url=url,
        public_url=public_url,
        delivery_id=delivery_id,
    )


def _sign(arguments: argparse.Namespace) -> int:
    from sidecar.keys import KeyFormError
    from sidecar.send import curl_line
    from sidecar.signing import SigningError

    url = arguments.url or (f"http://127.0.0.1:8080/webhooks/{arguments.preset}" if arguments.curl else "")
    sender = _sender(arguments, url, delivery_id=arguments.id)
    if sender.scheme.needs_url and not arguments.url:
        _unusable("this scheme signs the URL that is called; give it with --url")
    try:
        made = sender.sign(arguments.timestamp if arguments.timestamp is not None else time.time())
        if arguments.curl:
            print(curl_line(made, arguments.body))
            return 0
    except KeyFormError as error:
        _unusable(f"the secret in {arguments.secret} {error}")
    except SigningError as error:
        _unusable(str(error))
    except UnicodeError:
        _unusable("the body is not text, which a command line can't hold; give it as a file: --body FILE")
    for name, value in made.headers[:-1]:  # Content-Type is the sender's to choose
        print(f"{name}: {value}")
    if made.url != url:
        print(f"sidecar sign: call {made.url}", file=sys.stderr)
    if made.body != sender.body:  # the scheme stands in it
        print(f"\n{made.body.decode()}")
    return 0


def _send(arguments: argparse.Namespace) -> int:
    import httpx

    from sidecar.keys import KeyFormError
    from sidecar.send import send
    from sidecar.signing import SigningError

    sender = _sender(arguments, arguments.url, arguments.public_url)
    try:
        statuses, last = send(
            sender, count=arguments.count, tamper=arguments.tamper, progress=_progress(arguments.count)
        )
    except KeyFormError as error:
        _unusable(f"the secret in {arguments.secret} {error}")
    except SigningError as error:
        _unusable(str(error))
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


def _explain(arguments: argparse.Namespace) -> int:
    from sidecar.capture import UnusableCaptureError, read_capture
    from sidecar.client_ip import parse_address
    from sidecar.explain import Subject, explain
    from sidecar.keys import key_problem
    from sidecar.signature import Verifier

    peer = None
    if arguments.client_ip is not None and (peer := parse_address(arguments.client_ip)) is None:
        _unusable(f"--client-ip {arguments.client_ip!r} is no IP address; for example 203.0.113.7")
    file = arguments.config or os.environ.get("SIDECAR_CONFIG")
    if arguments.preset is None and not file:
        _unusable("nothing to hold it against; give --preset NAME and --secret REF, or --config FILE")
    secrets = _secrets(arguments.secret)
    config = verifier = None
    unusable: list[tuple[Secret, str]] = []
    if arguments.preset is None:
        try:
            config = load_config(str(file), os.environ, resolve_secrets=not secrets)
        except ConfigError as error:
            _unusable(f"the configuration has mistakes:\n{error}")
    else:
        scheme = _scheme(arguments.preset)
        if not secrets:
            _unusable("--preset needs a secret to verify with; give --secret env:NAME or --secret file:PATH")
        if scheme.needs_url and not arguments.public_url:
            _unusable("this scheme signs the URL that is called; give it with --public-url https://your.host")
        unusable = [(secret, why) for secret in secrets if (why := key_problem(scheme, secret))]
        usable = [secret for secret in secrets if not key_problem(scheme, secret)]
        verifier = Verifier(scheme, usable or secrets, arguments.public_url, resolved=bool(usable))
    name = "standard input" if arguments.request == "-" else arguments.request
    try:
        raw = sys.stdin.buffer.read() if arguments.request == "-" else Path(arguments.request).read_bytes()
        capture = read_capture(raw, peer=str(peer) if peer else None, needs_host=config is not None)
    except OSError as error:
        _unusable(f"{name}: can't be read: {error.strerror}")
    except UnusableCaptureError as error:
        _unusable(f"{name}: {error}")
    subject = Subject(
        config=config,
        verifier=verifier,
        secrets=secrets,
        unusable=unusable,
        public_url=arguments.public_url,
        peer_known=peer is not None,
    )
    try:
        made = explain(capture, subject, now=arguments.now if arguments.now is not None else time.time())
    except ValueError as error:  # a secret that is not in the form of the route's scheme
        _unusable(f"a given secret {error}")
    print(made.as_json() if arguments.json else made.as_text())
    return 0 if made.reason is None else 1


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


def _scheme(preset: str) -> Scheme:
    """A preset by name, or a scheme of one's own from a file."""
    from sidecar.schema import load_preset

    if "/" in preset or preset.endswith((".yaml", ".yml")):
        try:
            return load_scheme(preset)
        except ConfigError as error:
            _unusable(f"the scheme has mistakes:\n{error}")
    try:
        return load_preset(preset)
    except KeyError:
        _unusable(_no_preset(preset))


def _no_preset(name: str) -> str:
    import difflib

    from sidecar.schema import preset_names

    close = difflib.get_close_matches(name.lower(), preset_names(), n=3, cutoff=0.5)
    close += [known for known in preset_names() if known.startswith(name.lower()) and known not in close][:3]
    meant = f"did you mean {' or '.join(close)}?" if close else "`sidecar presets` lists them"
    return f"there is no preset {name!r}; {meant}"


def _secret(reference: str) -> Secret:
    """A secret by `env:NAME` or `file:PATH`. What was given is not shown: it may be the secret itself."""
    kind, _, name = reference.partition(":")
    if kind not in ("env", "file") or not name:
        _unusable("--secret takes env:NAME or file:PATH, never the secret itself: arguments show in process lists")
    ref: SecretRef = SecretReference().read({kind: name})
    try:
        return Secret(ref.id, read_secret(ref, os.environ))
    except SecretUnavailableError as error:
        _unusable(str(error))
    except ValueError:
        _unusable(f"the secret in {reference} is empty")


def _secrets(references: Sequence[str]) -> list[Secret]:
    """Several, with ids that differ: the id says which one matched."""
    secrets: list[Secret] = []
    for reference in references:
        secret = _secret(reference)
        same = sum(other.id.partition("#")[0] == secret.id for other in secrets)
        secrets.append(Secret(f"{secret.id}#{same + 1}", secret.reveal()) if same else secret)
    return secrets


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


def _unusable(message: str) -> NoReturn:
    raise UsageError(message)
