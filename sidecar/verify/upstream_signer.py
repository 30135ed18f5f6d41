"""Signing verified deliveries for the receiver in any scheme that a shared secret can sign.

The default, Standard Webhooks, has its own signer (standard_webhooks.py), which the compiled data path calls. This one signs as
`sign.py` does, so that a receiver that expects GitHub's signature, or GitLab's token, gets just that.
"""

from collections.abc import Sequence
from typing import Final

from sidecar.http1.head import field_lines
from sidecar.outcomes import Rejected
from sidecar.secret import Secret
from sidecar.verify.claim import MAX_NUMBERED
from sidecar.verify.message import PublicURL
from sidecar.verify.scheme import Scheme
from sidecar.verify.sign import SigningError, sign_delivery
from sidecar.verify.template import HeaderValue
from sidecar.verify.upstream_request import UpstreamRequest

#: A body that is neither JSON nor a form, and a URL: a scheme that can sign these can sign any delivery.
_TRIAL: Final = UpstreamRequest("POST", b"/", b"receiver.invalid", b"msg_0", (), 1e9, (b"\x00",))


_WRITES: Final = "would change the body or the URL, which are forwarded unchanged; use a scheme with a header"


def scheme_problem(scheme: Scheme, secrets: int, public_url: str) -> str:
    """Why a scheme can't sign for a receiver with this many secrets, and the remedy; empty if it can."""
    if scheme.signature.kind.read_private_key is not None:
        return "needs a private key; use a scheme with a shared secret, such as github"
    if scheme.needs_url and not public_url:
        return "signs the URL that senders use, which is unknown; add `public_url`"
    if secrets > 1 and not _takes_several(scheme):
        return "has one signature in a delivery; use one secret"
    if scheme.signature.field or scheme.body_hash or (scheme.timestamp is not None and scheme.timestamp.field):
        return _WRITES
    return ""


class SchemeSigner:
    """Signs with the secrets of a route's `sign:`."""

    __slots__ = ("_carried", "_public_url", "_secrets", "name", "replaces", "scheme")

    def __init__(
        self, scheme: Scheme, secrets: Sequence[Secret], public_url: str = "", *, resolved: bool = True
    ) -> None:
        """Raises `SigningError` for a scheme that can't sign what is forwarded, and `KeyFormError` for a secret that is not in
        its form. With `resolved=False` the secrets are not tried.
        """
        self.scheme = scheme
        self.name = scheme.name or "custom scheme"
        self._secrets = tuple(secrets)
        self._public_url = PublicURL(public_url) if public_url and scheme.uses_url else None
        #: Header fields of the sender that are removed, in lower case: those with which the receiver verifies.
        self.replaces = frozenset(_names(scheme))
        self._carried = [part.name for part in scheme.parts if isinstance(part, HeaderValue)]
        if problem := scheme_problem(scheme, len(self._secrets), public_url):
            raise SigningError(problem)
        if resolved:
            try:
                self.lines(_TRIAL)
            except (Rejected, SigningError):
                raise SigningError("can't sign every body; use a scheme that signs the body as it is") from None

    def lines(self, request: UpstreamRequest) -> bytes:
        """The header lines, with a signature by each secret. Raises `SigningError`."""
        body = b"".join(request.body)
        url = self._public_url.of(request.target) if self._public_url is not None else b""
        url = url or b"http://%b%b" % (request.host, request.target)
        carried = [(name.decode(), value.decode("latin-1")) for name, value in self._fields(request)]
        signed = [
            sign_delivery(
                self.scheme,
                secret,
                body=body,
                now=request.now,
                method=request.method,
                url=url.decode("latin-1"),
                headers=[("Host", request.host.decode("latin-1")), *carried],
                delivery_id=request.message_id.decode(),
            )
            for secret in self._secrets
        ]
        if signed[0].body != body or signed[0].url != url.decode("latin-1"):
            raise SigningError(_WRITES)
        (name, value), *others = signed[0].headers
        listed = self.scheme.signature.list
        if listed is not None:
            separator = listed.separator[-1]
            value = separator.join([value, *(each.headers[0][1].rpartition(separator)[2] for each in signed[1:])])
        unsigned_id = "" if self.scheme.signs_id else (self.scheme.delivery_id or "").lower()
        lines = [(name, value), *(each for each in others if each[0].lower() != unsigned_id), *carried]
        return field_lines([(name.encode(), value.encode("latin-1")) for name, value in lines])

    def _fields(self, request: UpstreamRequest) -> list[tuple[bytes, bytes]]:
        """The signed headers that the delivery came with: those that its own scheme has verified."""
        known = dict(request.signed_fields)
        return [(name, known[name]) for name in self._carried if name in known]


def _names(scheme: Scheme) -> list[bytes]:
    """The names of the headers with which the scheme's receiver verifies, in lower case."""
    field = scheme.signature
    named = [field.header, *field.also, *(name for name, _ in scheme.require)]
    if field.header.endswith("{n}"):
        named += [field.header.removesuffix("{n}") + str(number) for number in range(1, MAX_NUMBERED + 1)]
    named.append(scheme.timestamp.header if scheme.timestamp is not None else "")
    signed = [part.name for part in scheme.parts if isinstance(part, HeaderValue)]
    return [*(name.lower().encode() for name in named if name), *signed]


def _takes_several(scheme: Scheme) -> bool:
    """Whether any of several signatures in one header may match."""
    listed = scheme.signature.list
    return listed is not None and not listed.versions
