"""X.509 certificates of senders: a chain to a pinned root, the leaf's name, its dates, its extensions.

`cryptography`'s own path validation (`x509.verification`) requires a subject alternative name and an extended key usage, which
Apple's leaf lacks, and compares alternative names, while these senders' rule is the common name. So the chain is walked here:
each certificate is verified by the next one's key. Nothing is fetched: no OCSP, no issuer's URL.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID

#: Certificates of one document or chain.
MAX_CERTIFICATES: Final = 10
#: Certificates between a leaf and its root.
MAX_INTERMEDIATES: Final = 4

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


class CertificateError(ValueError):
    """A certificate that proves nothing; the message says why."""


#: Errors of `cryptography` about a part of a certificate that it reads only when it is asked for.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    KeyError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """Raises `CertificateError` for a part that can't be read."""
    try:
        yield
    except CertificateError:
        raise
    except _UNREADABLE:
        raise CertificateError("a certificate can't be read") from None


def read_certificates(text: bytes) -> list[x509.Certificate]:
    """Every certificate of a PEM text, at most `MAX_CERTIFICATES`. Raises `ValueError` if there is none, or a broken one."""
    found = _PEM.findall(text)[:MAX_CERTIFICATES]
    if not found:
        raise ValueError("not a certificate in PEM")
    try:
        return [x509.load_pem_x509_certificate(each) for each in found]
    except x509.InvalidVersion as error:
        raise ValueError(str(error)) from None


def read_der(der: bytes) -> x509.Certificate:
    """Raises `CertificateError`."""
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion):
        raise CertificateError("a certificate can't be read") from None


@_reading()
def validity(certificate: x509.Certificate) -> tuple[float, float]:
    """From and to, in unix seconds."""
    return certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()


@_reading()
def check_chain(
    leaf: x509.Certificate,
    intermediates: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    now: float | None,
) -> list[x509.Certificate]:
    """The chain from `leaf` to one of `roots`, both included. Raises `CertificateError`.

    `now` is in unix seconds; with None dates are not compared.
    """
    chain = [leaf]
    known = {each.public_bytes(Encoding.DER) for each in roots}
    check_dates(leaf, now)
    if leaf.public_bytes(Encoding.DER) in known:
        return chain
    while len(chain) <= MAX_INTERMEDIATES:
        issuer = _find_issuer(chain[-1], [*roots, *intermediates], len(chain) - 1, now)
        if issuer is None:
            raise CertificateError("no certificate of the chain is issued by a pinned root")
        chain.append(issuer)
        if issuer.public_bytes(Encoding.DER) in known:
            return chain
    raise CertificateError("the chain is too long")


def _find_issuer(
    certificate: x509.Certificate, candidates: Sequence[x509.Certificate], below: int, now: float | None
) -> x509.Certificate | None:
    """The first candidate that issued it, may issue, and is valid. `below` counts intermediates under the candidate."""
    for candidate in candidates:
        if candidate.subject != certificate.issuer or not _may_issue(candidate, below) or not _is_valid(candidate, now):
            continue
        try:
            certificate.verify_directly_issued_by(candidate)
        except (InvalidSignature, *_UNREADABLE):
            continue
        return candidate
    return None


def _may_issue(certificate: x509.Certificate, below: int) -> bool:
    """RFC 5280, 4.2.1.9 and 4.2.1.3: basic constraints, path length, key usage."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        if not constraints.ca or (constraints.path_length is not None and below > constraints.path_length):
            return False
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound as missing:
        return missing.oid == ExtensionOID.KEY_USAGE
    except _UNREADABLE:
        return False
    return usage.key_cert_sign


def check_dates(certificate: x509.Certificate, now: float | None) -> None:
    """Raises `CertificateError`."""
    if not _is_valid(certificate, now):
        raise CertificateError("the certificate has expired, or is not valid yet")


def _is_valid(certificate: x509.Certificate, now: float | None) -> bool:
    begin, end = validity(certificate)
    return now is None or begin <= now <= end


@_reading()
def check_name(certificate: x509.Certificate, patterns: Sequence[str]) -> None:
    """The leaf's one common name matches one of `patterns`, in which `*` is one label. Raises `CertificateError`."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value).lower() if len(names) == 1 else ""
    for pattern in patterns:
        if re.fullmatch(re.escape(pattern).replace(r"\*", "[a-z0-9-]+"), name):
            return
    raise CertificateError("the certificate is somebody else's: its common name is not the sender's")


@_reading()
def check_extension(certificate: x509.Certificate, oid: str) -> None:
    """Raises `CertificateError` if it lacks the extension with this object identifier."""
    try:
        certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(oid))
    except (x509.ExtensionNotFound, ValueError):
        raise CertificateError(f"the certificate lacks the extension {oid}") from None


def public_key(certificate: x509.Certificate) -> Any:
    """Its public key. Raises `ValueError` for one that can't be read, or of a kind that `cryptography` doesn't know."""
    try:
        return certificate.public_key()
    except UnsupportedAlgorithm:
        raise ValueError("a key of an unknown kind") from None


def key_of(certificate: x509.Certificate) -> Any:
    """Its public key. Raises `CertificateError` for one of a kind that no sender uses."""
    try:
        key = public_key(certificate)
    except ValueError:
        key = None
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey):
        raise CertificateError("the certificate's key is of another kind")
    return key
