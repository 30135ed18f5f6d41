"""`kind: rfc9421` (HTTP Message Signatures) and `kind: cavage` (their draft): the delivery lists what is signed.

`verify/listed_verifier.py` verifies them.
"""

from typing import Any

from sidecar.verify.components import DRAFT_ALGORITHMS, HTTP_ALGORITHMS
from sidecar.verify.keys import SHARED_FORMS, KeyForm, key_bytes
from sidecar.verify.kinds.ed25519 import ED25519
from sidecar.verify.kinds.jwt import JWT
from sidecar.verify.kinds.kind import Kind


def _read_public_key(form: KeyForm, text: bytes) -> Any:
    """A key in PEM, or the 32 bytes of one for Ed25519."""
    return JWT.read_key(form, text) if form is KeyForm.PEM else ED25519.read_key(form, text)


def _read_private_key(form: KeyForm, text: bytes) -> Any:
    """A PEM, even if public keys have another form; or the shared secret, or the 32 bytes of an Ed25519 key."""
    if form is KeyForm.PEM or b"-----BEGIN" in text:
        return JWT.read_signing_key(KeyForm.PEM, text)
    return key_bytes(form, text)


def _make_kind(name: str, title: str, algorithms: dict[str, str], package: str = "", extra: str = "") -> Kind:
    return Kind(
        name=name,
        title=title,
        key_forms=(*SHARED_FORMS, KeyForm.PEM, KeyForm.WHPK),
        read_key=key_bytes,
        read_public_key=_read_public_key,
        read_private_key=_read_private_key,
        listed=True,
        package=package,
        extra=extra,
        algorithms=tuple(algorithms),
        shown_as="a signature and the list of what it covers",
    )


RFC9421 = _make_kind("rfc9421", "HTTP Message Signatures ({algorithm})", HTTP_ALGORITHMS, "http_sf", "httpsig")
CAVAGE = _make_kind("cavage", "HTTP Signatures, draft-cavage ({algorithm})", DRAFT_ALGORITHMS)
