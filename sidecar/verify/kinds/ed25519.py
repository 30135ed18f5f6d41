"""`kind: ed25519`: Ed25519 (RFC 8032) with the provider's public key."""

from typing import Any

from sidecar.verify.algorithms import Algorithm
from sidecar.verify.keys import KeyForm, key_bytes
from sidecar.verify.kinds.kind import Keys, Kind, Matcher, Pieces
from sidecar.verify.kinds.public_key import (
    PublicKeyMatcher,
    not_a_private_key,
    not_the_public_key,
    read_private_pem,
    read_public_pem,
)

_NAME = "ed25519"


def _read_key(form: KeyForm, text: bytes) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415

    wrong = not_the_public_key(_NAME, ", and set key: to its form (pem, hex or base64)")
    if form is KeyForm.PEM:
        return read_public_pem(text, lambda key: isinstance(key, Ed25519PublicKey), wrong)
    try:
        return Ed25519PublicKey.from_public_bytes(key_bytes(form, text))
    except ValueError:
        raise wrong from None


def _read_private_key(form: KeyForm, text: bytes) -> Any:
    """From a PEM, or the 32 bytes in the scheme's form."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    wrong = not_a_private_key(_NAME)
    if form is KeyForm.PEM or b"-----BEGIN" in text:
        return read_private_pem(text, lambda key: isinstance(key, Ed25519PrivateKey), wrong)
    try:
        return Ed25519PrivateKey.from_private_bytes(key_bytes(form, text))
    except ValueError:
        raise wrong from None


def _verify(key: Any, signature: bytes, message: bytes) -> None:
    key.verify(signature, message)


def _make_matcher(algorithm: Algorithm, keys: Keys) -> Matcher:
    return PublicKeyMatcher(keys, _verify, None)


def _sign(algorithm: Algorithm, key: Any, message: Pieces) -> bytes:
    signature: bytes = key.sign(b"".join(message))
    return signature


ED25519 = Kind(
    name=_NAME,
    key_forms=(KeyForm.PEM, KeyForm.HEX, KeyForm.BASE64, KeyForm.WHPK),
    read_key=_read_key,
    read_private_key=_read_private_key,
    make_matcher=_make_matcher,
    sign=_sign,
)
