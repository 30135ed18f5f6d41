"""Signs deliveries as a provider would; for `sign` and `send`."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from sidecar.cli.arguments import read_scheme, read_secret_ref
from sidecar.cli.errors import unusable
from sidecar.config.loader import load_config
from sidecar.config.problems import ConfigError
from sidecar.config.settings import Config
from sidecar.http1.sockets import ListenAddress
from sidecar.routing.routes import Route
from sidecar.secret import Secret
from sidecar.verify.composite import Combine, Composite
from sidecar.verify.message import PublicURL
from sidecar.verify.scheme import Scheme
from sidecar.verify.sign import SigningError, sign_delivery, with_token, writes_document
from sidecar.verify.verifier import Verifier

_FORM = "application/x-www-form-urlencoded"
#: The last segment of a path below a prefix route.
_BELOW_PREFIX = "sidecar-test"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}


class SignedDelivery(NamedTuple):
    """A signed delivery, ready to send."""

    url: str
    headers: list[tuple[str, str]]  #: those of the scheme, then Content-Type
    body: bytes


class Signer(NamedTuple):
    """A scheme and the secret that signs."""

    scheme: Scheme
    secret: Secret


@dataclass(frozen=True, kw_only=True)
class Sender:
    """Signs a body with each of `signers`. `url` is where it will be sent; `public_url` is signed instead if it is given."""

    signers: Sequence[Signer]
    body: bytes
    url: str = ""
    public_url: str = ""
    delivery_id: str = ""
    method: str = "POST"
    forged: bool = False  #: whether each signature is wrong

    @property
    def schemes(self) -> list[Scheme]:
        return [signer.scheme for signer in self.signers]

    def sign(self, now: float) -> SignedDelivery:
        """Raises `SigningError`, `KeyFormError`."""
        where = self.url
        for scheme, secret in self.signers:
            if scheme.signature.in_target:
                where = with_token(scheme, secret, where, forged=self.forged)
        parts = urlsplit(where)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        called = where
        if self.public_url:
            called = PublicURL(self.public_url).of(target.encode()).decode()
        content_type = ("Content-Type", _content_type(self.schemes, self.body))
        headers: list[tuple[str, str]] = []
        url, body = called, self.body
        # A scheme that writes into the body does so before another one signs it.
        writing = [signer for signer in self.signers if writes_document(signer.scheme)]
        if len(writing) > 1:
            raise SigningError("two schemes of this route write into the body; send each of them by --preset")
        for scheme, secret in [*writing, *(signer for signer in self.signers if signer not in writing)]:
            signed = sign_delivery(
                scheme,
                secret,
                body=body,
                now=now,
                method=self.method,
                url=url,
                headers=[content_type, *headers],
                delivery_id=self.delivery_id,
                forged=self.forged,
            )
            url, body = signed.url, signed.body
            headers += [header for header in signed.headers if header not in headers]
        suffix = url.removeprefix(called) if called else ""  # some schemes add to the query
        return SignedDelivery(where + suffix, [*headers, content_type], body)


def make_sender(
    arguments: argparse.Namespace, url: str, public_url: str = "", *, delivery_id: str = "", forged: bool = False
) -> Sender:
    """A sender with the scheme and secrets of `--preset` and `--secret`, or of `--config` and `--route`."""
    if arguments.route is not None:
        return _sender_of_route(arguments, url, public_url, delivery_id=delivery_id, forged=forged)
    if arguments.preset is None or arguments.secret is None:
        unusable("nothing to sign with; give --preset NAME and --secret REF, or --config FILE and --route NAME")
    scheme = read_scheme(arguments.preset, arguments.setting)
    secret = read_secret_ref(arguments.secret)
    return Sender(
        signers=[Signer(scheme, secret.with_id(arguments.key_id or "current") if scheme.names_secret else secret)],
        body=_body(arguments.body, [scheme]),
        url=url,
        public_url=public_url,
        delivery_id=delivery_id,
        forged=forged,
    )


def describe_secret(arguments: argparse.Namespace) -> str:
    """The secret that was used, for an error about it."""
    return (
        f"the secret {f'in {arguments.secret}' if arguments.secret is not None else f'of the route {arguments.route}'}"
    )


def _sender_of_route(
    arguments: argparse.Namespace, url: str, public_url: str, *, delivery_id: str, forged: bool
) -> Sender:
    """Signs with the first secret of the route's scheme: with `any_of` of the first scheme, with `all_of` of each."""
    if arguments.preset is not None:
        unusable("--preset and --route exclude each other; use one of them")
    file = arguments.config or os.environ.get("SIDECAR_CONFIG") or unusable("--route needs --config FILE")
    try:
        config = load_config(file, os.environ, resolve_secrets=arguments.secret is None)
    except ConfigError as error:
        unusable(f"the configuration is not valid:\n{error}")
    route = find_route(config, arguments.route)
    if route.verifier is None:
        unusable(
            f"the route {route.name} has no scheme, so nothing can be signed for it; choose another one with --route"
        )
    verifier = route.verifier
    several = isinstance(verifier, Composite) and verifier.combine is Combine.ALL
    members = verifier.members() if several else verifier.members()[:1]
    given = read_secret_ref(arguments.secret) if arguments.secret is not None else None
    public = [member.scheme for member in members if not member.scheme.shares_secret]
    if public and given is None:
        # The bytes of some public keys could be read as a private one, which signs something else.
        unusable(f"the route {route.name} has a public key, which only verifies; give a private key with --secret REF")
    signers = [Signer(member.scheme, _named(given, member, arguments.key_id)) for member in members]
    return Sender(
        signers=signers,
        body=_body(arguments.body, [signer.scheme for signer in signers]),
        url=url or url_of(config.listen, route),
        public_url=public_url or verifier.public_url,
        delivery_id=delivery_id,
        method="POST" if "POST" in route.methods else min(route.methods),
        forged=forged,
    )


def _named(given: Secret | None, member: Verifier, key_id: str | None) -> Secret:
    """The secret that signs, with the id that the signature names."""
    secret = given or member.secrets[0]
    if not member.scheme.names_secret:
        return secret
    return secret.with_id(key_id or member.secrets[0].id)


def find_route(config: Config, name: str) -> Route:
    """The route of this name."""
    routes = {route.name: route for route in config.routes.routes}
    return routes.get(name) or unusable(f"there is no route {name!r}; use one of {', '.join(routes)}")


def url_of(listen: ListenAddress, route: Route) -> str:
    """The URL of a route at the sidecar itself, on this machine."""
    if listen.path:
        unusable(f"the sidecar listens on {listen}; give a URL that leads to it")
    host = _EVERYWHERE.get(listen.host, listen.host)
    below = _BELOW_PREFIX if route.prefix and not route.hides_path else ""
    return f"http://{f'[{host}]' if ':' in host else host}:{listen.port}{route.path.decode()}{below}"


def _body(file: str | None, schemes: Sequence[Scheme]) -> bytes:
    try:
        return read_body(file, schemes)
    except OSError as error:
        unusable(f"the body {file} can't be read: {error.strerror}; check its path and permissions")


def read_body(file: str | None, schemes: Sequence[Scheme]) -> bytes:
    """The body: a file, `-` for standard input, or a small test document of the kind that the schemes sign."""
    if file is None:
        now = int(time.time())
        return (
            b"event=sidecar.test&sent_at=%d" % now
            if _is_form(schemes)
            else b'{"event":"sidecar.test","sent_at":%d}' % now
        )
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def _is_form(schemes: Sequence[Scheme]) -> bool:
    return any(scheme.reads_form for scheme in schemes)


def _content_type(schemes: Sequence[Scheme], body: bytes) -> str:
    if _is_form(schemes):
        return _FORM
    return "application/json" if body.lstrip().startswith((b"{", b"[")) else "application/octet-stream"
