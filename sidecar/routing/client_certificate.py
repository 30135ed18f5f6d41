"""The sender's client certificate, as a trusted proxy that ended TLS passes it on: a check beside the signature.

    X-Forwarded-Client-Cert   Envoy and Istio: one element of pairs, `Hash=...;Subject="...";URI=...;DNS=...`
                              (https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers)
    Client-Cert               RFC 9440: the DER in base64, between colons
    any other                 the PEM, percent-encoded, as nginx writes $ssl_client_escaped_cert. Beside a header that begins with
                              X-SSL-Client-, X-SSL-Client-Verify must be SUCCESS

The proxy has verified the certificate; this module compares its fields. Only a trusted proxy is believed.
"""

import binascii
import re
from base64 import b64decode
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from sidecar.http1.head import RequestHead
from sidecar.outcomes import Reason, Rejected
from sidecar.routing.client_ip import Client

XFCC: Final = b"x-forwarded-client-cert"
RFC_9440: Final = b"client-cert"
_NGINX: Final = b"x-ssl-client-"
#: Bytes of a header that is read.
MAX_FIELD: Final = 16 * 1024
#: A pair of an XFCC element, and what follows it.
_PAIR: Final = re.compile(rb'([A-Za-z]+)=(?:"((?:[^"\\]|\\.)*)"|([^",;]*))(;|,|$)')


class ClientCertificate(NamedTuple):
    """A route's `client_certificate:`. Empty texts are not compared; at least one is not empty."""

    header: str
    subject: str = ""
    san: str = ""
    issuer: str = ""
    fingerprint: str = ""  #: SHA-256, 64 lower-case hex digits

    @property
    def asked(self) -> dict[str, str]:
        """The fields to compare, by name."""
        return {name: value for name, value in self._asdict().items() if name != "header" and value}


class Certificate(NamedTuple):
    """A certificate, as a proxy describes it."""

    subject: str
    issuer: str  #: empty if the proxy doesn't send it
    sans: tuple[str, ...]
    fingerprint: str


class CertificateUnreadableError(ValueError):
    """A header that can't be read; the message says why, and quotes none of it."""


def check_certificate(rule: ClientCertificate, head: RequestHead, client: Client) -> None:
    """Raises `Rejected(client_certificate_mismatch)` unless a trusted proxy passed on a certificate that matches."""
    if not client.trusted_peer:
        raise _mismatch("the connection is not a trusted proxy's, whose header alone counts")
    try:
        found = read_certificate(rule.header.lower().encode(), head)
    except CertificateUnreadableError as error:
        raise _mismatch(f"{rule.header} {error}") from None
    wrong = [name for name, value in rule.asked.items() if not _fits(found, name, value)]
    if wrong:
        raise _mismatch(f"the certificate has another {' and another '.join(wrong)}")


def read_certificate(name: bytes, head: RequestHead) -> Certificate:
    """The certificate in the header `name` (lower case). Raises `CertificateUnreadableError`."""
    values = head.values(name)
    if not values or not values[0]:
        raise CertificateUnreadableError("is absent: the proxy got no certificate, or does not pass it on")
    if len(values) > 1:
        raise CertificateUnreadableError(f"appears {len(values)} times; expected once")
    if len(values[0]) > MAX_FIELD:
        raise CertificateUnreadableError(f"is longer than {MAX_FIELD} bytes")
    if name == XFCC:
        return _read_xfcc(values[0])
    if name.startswith(_NGINX) and head.values(_NGINX + b"verify") != (b"SUCCESS",):
        raise CertificateUnreadableError("is not used, because X-SSL-Client-Verify is not SUCCESS")
    return _parse(values[0], name == RFC_9440)


def _read_xfcc(value: bytes) -> Certificate:
    pairs: dict[bytes, list[str]] = {}
    at = 0
    while at < len(value):
        match = _PAIR.match(value, at)
        if match is None:
            raise CertificateUnreadableError("is not in Envoy's form")
        if match[4] == b",":
            raise CertificateUnreadableError("has several elements; have the proxy replace it (SANITIZE_SET)")
        text = re.sub(rb"\\(.)", rb"\1", match[2]) if match[2] is not None else match[3]
        pairs.setdefault(match[1].lower(), []).append(text.decode("utf-8", "replace"))
        at = match.end()
    if any(len(pairs.get(key, ())) > 1 for key in (b"hash", b"subject", b"cert")):
        raise CertificateUnreadableError("has the same pair twice")
    if b"cert" in pairs:
        return _parse(pairs[b"cert"][0].encode(), False)
    subject, digest = pairs.get(b"subject", [""])[0], pairs.get(b"hash", [""])[0]
    return Certificate(subject, "", (*pairs.get(b"uri", ()), *pairs.get(b"dns", ())), digest.lower())


@lru_cache(maxsize=64)  # a proxy's clients are few, and only what a trusted proxy sent is parsed
def _parse(value: bytes, rfc_9440: bool) -> Certificate:
    from cryptography import x509  # noqa: PLC0415 - memory that other routes do without
    from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415

    try:
        if rfc_9440:
            if len(value) < 2 or value[:1] != b":" or value[-1:] != b":":
                raise CertificateUnreadableError("is not a byte sequence (RFC 9440): base64 between colons")
            parsed = x509.load_der_x509_certificate(b64decode(value[1:-1], validate=True))
        else:
            parsed = x509.load_pem_x509_certificate(unquote_to_bytes(value))
        return Certificate(
            parsed.subject.rfc4514_string(),
            parsed.issuer.rfc4514_string(),
            _names(parsed, x509),
            parsed.fingerprint(SHA256()).hex(),
        )
    except (ValueError, binascii.Error) as error:
        if isinstance(error, CertificateUnreadableError):
            raise
        raise CertificateUnreadableError("is not a certificate") from None


def _names(parsed: Any, x509: Any) -> tuple[str, ...]:
    try:
        extension = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    kinds = (x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name)
    return tuple(name for kind in kinds for name in extension.get_values_for_type(kind))


def _fits(found: Certificate, name: str, value: str) -> bool:
    if name == "san":
        return value.lower() in [each.lower() for each in found.sans]
    return bool(getattr(found, name) == value)


def _mismatch(detail: str) -> Rejected:
    return Rejected(Reason.CLIENT_CERTIFICATE_MISMATCH, detail)
