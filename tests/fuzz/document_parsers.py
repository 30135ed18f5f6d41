"""Parsers of tokens, documents of keys and certificates, each as a function that takes any bytes and raises only for a bug.

`fuzz_parsers.py` looks for inputs that reach more of the code; `test_document_parsers.py` mutates real ones.
"""

import base64
import json
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sidecar.outcomes import Rejected
from sidecar.verify.certificates import (
    CertificateError,
    check_chain,
    check_name,
    key_of,
    read_certificates,
    read_der,
)
from sidecar.verify.jose import is_strong
from sidecar.verify.key_documents import read_keys
from sidecar.verify.published import Document, KeySource, linked_source
from sidecar.verify.scheme import Wrapping
from sidecar.verify.token import TokenError, encode_base64url, read_object, read_token
from sidecar.verify.wrapped import unwrap

HOST: Final = "issuer.example.com"
SOURCE: Final = KeySource(f"https://{HOST}/.well-known/openid-configuration", "fuzz", form="discovery")
FORMS: Final = ("jwks", "x509", "jwk", "pem", "certificate")
WRAPPING: Final = Wrapping("signature", "kid", (("alg", "ecdsa"),))


def token(data: bytes) -> None:
    """A JWS, compact and detached, and what eBay wraps."""
    for payload in (None, b""):
        try:
            read = read_token(data, payload)
            claims = read_object(read.payload, "payload") if payload is None else {}
        except TokenError:
            continue
        head, middle, end = data.split(b".")
        assert (head, end) == (data.partition(b".")[0], encode_base64url(read.signature))
        assert payload is None or not middle
        assert isinstance(claims, dict)
        json.dumps([read.head, claims], allow_nan=False)
    try:
        unwrapped = unwrap(WRAPPING, data)
    except Rejected:
        return
    assert unwrapped.signature.isascii()


def keys(data: bytes) -> None:
    """A document of keys in every form that one may have, and an OpenID configuration."""
    for form in FORMS:
        for at in ("", "key"):
            try:
                found = read_keys(form, data, at, "expired_at")
            except ValueError:
                continue
            assert 0 < len(found) <= 100
            assert all(is_strong(each.key) for each in found if form != "certificate")
    linked = linked_source(SOURCE, Document(data, 0.0))
    assert linked is None or linked.url.split("/")[2] == HOST


def certificate(data: bytes) -> None:
    """Certificates in PEM and DER, and a chain of them to a root that issued none."""
    found: list[x509.Certificate] = []
    readers: tuple[Callable[[bytes], list[x509.Certificate]], ...] = (read_certificates, lambda der: [read_der(der)])
    for read in readers:
        try:
            found += read(data)
        except ValueError:  # CertificateError is one
            continue
    for each in found:
        for check in (key_of, lambda it: check_name(it, ["*.example.com"])):
            try:
                check(each)
            except CertificateError:
                continue
    if found:
        try:
            chain = check_chain(found[0], found[1:], [ROOT], 1_700_000_000.0)
        except CertificateError:
            return
        assert chain[-1].public_bytes(Encoding.DER) == ROOT.public_bytes(Encoding.DER)


def seeds(kind: str) -> list[bytes]:
    """Real ones, from the senders' vectors."""
    from published_vectors import SENDERS, sender  # noqa: PLC0415 - only where tests/support is on the path

    found: list[bytes] = []
    for name in SENDERS:
        data = sender(name)
        for vector in data["vectors"]:
            found += [value.encode() for _, value in vector["headers"] if len(value) > 60] if kind == "token" else []
        pages = [page.get("content", "") for page in data["keys"].values()]
        found += [
            page.encode() for page in pages if kind == "keys" or (kind == "certificate" and "-----BEGIN C" in page)
        ]
    if kind == "certificate":
        found += [base64.b64decode("".join(each.decode().split("-----")[2].split()) + "==") for each in list(found)]
        found += [
            json.loads(each)[name].encode() for each in list(found) if each[:1] == b"{" for name in json.loads(each)
        ]
    return [each for each in found if each]


#: Whose key nobody has: nothing else ends in it.
ROOT: Final = x509.load_pem_x509_certificate(b"""-----BEGIN CERTIFICATE-----
MIIBIjCByKADAgECAgEBMAoGCCqGSM49BAMCMA8xDTALBgNVBAMMBHJvb3QwIBcN
MjAwMTAxMDAwMDAwWhgPMjA2MDAxMDEwMDAwMDBaMA8xDTALBgNVBAMMBHJvb3Qw
WTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATZpuBPkOAiNbrRrxC859QGOdJe9nQP
+IcIqYCmMPtPXSkmoRfoeYADNEbelkpx99TLzoJKtaj8DOm7KD2tGTHUoxMwETAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0kAMEYCIQC88PyWmoJLeY0hEQWe
qUEkq9ilis7mbuCXm7USg9zUugIhAOuCxDS8XtEyAi9xE1II9I+nZBfWrkt84AcF
MwQcyF6M
-----END CERTIFICATE-----
""")
TARGETS: Final[dict[str, Callable[[bytes], None]]] = {"token": token, "keys": keys, "certificate": certificate}
