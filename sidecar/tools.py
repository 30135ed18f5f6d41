"""The commands that work on deliveries without a running sidecar: `presets`, `sign`, `send`, `explain`.

Loaded when one of them runs, so that `serve` starts without what they need.
"""

import argparse
import difflib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sidecar.catalogue import preset_list, preset_yaml
from sidecar.config.fields.reference import SecretReference
from sidecar.config.loader import load_config
from sidecar.config.presets import load_preset, load_scheme, preset_names
from sidecar.config.problems import ConfigError
from sidecar.config.secrets import SecretRef, SecretUnavailableError, read_secret
from sidecar.diagnosis.capture import MAX_CAPTURE, UnusableCaptureError, read_capture
from sidecar.diagnosis.explain import Subject
from sidecar.diagnosis.explain import explain as explained
from sidecar.routing.networks import parse_address
from sidecar.secret import Secret
from sidecar.send import Sender, curl_line, read_body, takes_connections
from sidecar.send import send as sent
from sidecar.usage import unusable
from sidecar.verify.keys import KeyFormError, key_problem
from sidecar.verify.scheme import Piece, Scheme
from sidecar.verify.sign import SigningError
from sidecar.verify.verifier import Verifier


def presets(arguments: argparse.Namespace) -> int:
    if arguments.name is None:
        print(preset_list())
        return 0
    try:
        print(preset_yaml(arguments.name), end="")
    except KeyError:
        print(f"sidecar presets: {_no_preset(arguments.name)}", file=sys.stderr)
        return 1
    return 0


def sign(arguments: argparse.Namespace) -> int:
    name = Path(arguments.preset).stem if "/" in arguments.preset else arguments.preset
    url = arguments.url or (f"http://127.0.0.1:8080/webhooks/{name}" if arguments.curl else "")
    sender = _sender(arguments, url, delivery_id=arguments.id)
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


def send(arguments: argparse.Namespace) -> int:
    import httpx

    if arguments.expect == "none":
        return _expect_nobody(arguments.url)
    sender = _sender(arguments, arguments.url, arguments.public_url)
    try:
        statuses, last = sent(
            sender, count=arguments.count, tamper=arguments.tamper, progress=_progress(arguments.count)
        )
    except KeyFormError as error:
        unusable(f"the secret in {arguments.secret} {error}")
    except SigningError as error:
        unusable(str(error))
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        unusable(f"{arguments.url} is not a URL to send to: {error}")
    except httpx.HTTPError as error:
        print(f"sidecar send: no answer from {arguments.url}: {error or type(error).__name__}", file=sys.stderr)
        return 1
    if arguments.count > 1:
        print(", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())))
    else:
        print(f"{last.status_code} {last.reason_phrase}")
    print(last.text)
    expected = arguments.expect.rstrip("x")
    if all(str(status).startswith(expected) for status in statuses):
        return 0
    if arguments.expect != "2xx":
        print(f"sidecar send: expected {arguments.expect}", file=sys.stderr)
    return 1


def _expect_nobody(url: str) -> int:
    try:
        open_to_us = takes_connections(url)
    except (OSError, ValueError) as error:  # a test that could not be made must not look like one that went well
        print(f"sidecar send: {url} can't be tried: {error}", file=sys.stderr)
        return 1
    print(f"{url} {'takes connections' if open_to_us else 'takes no connection'}")
    return int(open_to_us)


def explain(arguments: argparse.Namespace) -> int:
    peer = None
    if arguments.client_ip is not None and (peer := parse_address(arguments.client_ip)) is None:
        unusable(f"--client-ip {arguments.client_ip!r} is no IP address; for example 203.0.113.7")
    config_file = arguments.config or os.environ.get("SIDECAR_CONFIG")
    if arguments.preset is None and not config_file:
        unusable("nothing to hold it against; give --preset NAME and --secret REF, or --config FILE")
    secrets = _secrets(arguments.secret)
    config = verifier = None
    in_wrong_form: list[tuple[Secret, str]] = []
    if arguments.preset is None:
        try:
            config = load_config(str(config_file), os.environ, resolve_secrets=not secrets)
        except ConfigError as error:
            unusable(f"the configuration has mistakes:\n{error}")
    else:
        scheme = _scheme(arguments.preset)
        if not secrets:
            unusable("--preset needs a secret to verify with; give --secret env:NAME or --secret file:PATH")
        if scheme.needs_url and not arguments.public_url:
            unusable("this scheme signs the URL that is called; give it with --public-url https://your.host")
        in_wrong_form = [(secret, why) for secret in secrets if (why := key_problem(scheme, secret))]
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
        unusable=in_wrong_form,
        public_url=arguments.public_url,
        peer_known=peer is not None,
    )
    try:
        made = explained(capture, subject, now=arguments.now if arguments.now is not None else time.time())
    except ValueError as error:  # a secret that is not in the form of the route's scheme
        unusable(f"a given secret {error}")
    print(made.as_json() if arguments.json else made.as_text())
    return 0 if made.reason is None else 1


def _sender(arguments: argparse.Namespace, url: str, public_url: str = "", delivery_id: str = "") -> Sender:
    scheme = _scheme(arguments.preset)
    try:
        body = read_body(arguments.body, scheme)
    except OSError as error:
        unusable(f"the body {arguments.body} can't be read: {error.strerror}")
    return Sender(
        scheme=scheme,
        secret=_secret(arguments.secret),
        body=body,
        url=url,
        public_url=public_url,
        delivery_id=delivery_id,
    )


def _progress(count: int) -> Callable[[int], None]:
    """A bar on standard error, where many deliveries are sent and somebody watches."""
    if count == 1 or not sys.stderr.isatty():
        return lambda done: None

    def show(done: int) -> None:
        filled = "#" * (30 * done // count)
        print(f"\r[{filled:30}] {done}/{count}", end="\n" if done == count else "", file=sys.stderr, flush=True)

    return show


def _scheme(preset: str) -> Scheme:
    """A preset by name, or a scheme of one's own from a file."""

    if "/" in preset or preset.endswith((".yaml", ".yml")):
        try:
            return load_scheme(preset)
        except ConfigError as error:
            unusable(f"the scheme has mistakes:\n{error}")
    try:
        return load_preset(preset)
    except KeyError:
        unusable(_no_preset(preset))


def _no_preset(name: str) -> str:

    close = difflib.get_close_matches(name.lower(), preset_names(), n=3, cutoff=0.5)
    close += [known for known in preset_names() if known.startswith(name.lower()) and known not in close][:3]
    meant = f"did you mean {' or '.join(close)}?" if close else "`sidecar presets` lists them"
    return f"there is no preset {name!r}; {meant}"


def _secret(reference: str) -> Secret:
    """A secret by `env:NAME` or `file:PATH`. What was given is not shown: it may be the secret itself."""
    kind, _, name = reference.partition(":")
    if kind not in ("env", "file") or not name:
        unusable("--secret takes env:NAME or file:PATH, never the secret itself: arguments show in process lists")
    ref: SecretRef = SecretReference().read({kind: name})
    try:
        return Secret(ref.id, read_secret(ref, os.environ))
    except SecretUnavailableError as error:
        unusable(str(error))
    except ValueError:
        unusable(f"the secret in {reference} is empty")


def _secrets(references: Sequence[str]) -> list[Secret]:
    """Several, with ids that differ: the id says which one matched."""
    secrets: list[Secret] = []
    for reference in references:
        secret = _secret(reference)
        same = sum(other.id.partition("#")[0] == secret.id for other in secrets)
        secrets.append(Secret(f"{secret.id}#{same + 1}", secret.reveal()) if same else secret)
    return secrets
