"""From a secret's text to the key: bytes of a shared one, or a provider's public key.

`cryptography` is imported by the first route that needs it and by no other: it is 10 MB of a process that should be small.
"""

import binascii
import hashlib
import unicodedata
from base64 import b64decode
from typing import TYPE_CHECKING

from sidecar.secret import Secret
from sidecar.verify.scheme import PUBLIC_KEY_KINDS, KeyForm, Kind, Scheme

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
    PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class KeyFormError(ValueError):
    """A secret that is not in the scheme's form; the message is a remedy and shows nothing of it."""


def key_bytes(form: KeyForm, text: bytes) -> bytes:
    """The key that `text` stands for. Raises `KeyFormError`."""
    if form is KeyForm.HEX:
        return _hex(text)
    if form is KeyForm.BASE64:
        return _base64(text, "is not base64; copy the secret as the provider shows it")
    if form is KeyForm.WHSEC:
        return _base64(
            text.removeprefix(b"whsec_"),
            "is not 'whsec_' and base64 after it; copy the secret as the provider shows it",
        )
    if form is KeyForm.SHA256:
        return hashlib.sha256(text).digest()
    if form is KeyForm.NFKD:
        try:
            return unicodedata.normalize("NFKD", text.decode()).encode()
        except UnicodeDecodeError:
            raise KeyFormError("is not UTF-8 text; copy the secret as the provider shows it") from None
    if form is KeyForm.AFTER_COLON:
        _, colon, rest = text.partition(b":")
        if not colon or not rest:
            raise KeyFormError("has no ':' with the key after it; copy the whole API key, name and secret")
        return rest
    return text


def check_key(scheme: Scheme, text: bytes) -> None:
    """Raises `KeyFormError` if `text` can't be the scheme's key."""
    if scheme.signature.kind in PUBLIC_KEY_KINDS:
        public_key(scheme.signature.kind, scheme.key, text)
    elif scheme.signature.kind is Kind.BASIC:
        if not text.partition(b":")[2]:
            raise KeyFormError("is not user:password; write both into the secret with a colon between")
    else:
        key_bytes(scheme.key, text)


def key_problem(scheme: Scheme, secret: Secret) -> str:
    """Why a secret can't be the scheme's key; empty if it can."""
    try:
        check_key(scheme, secret.reveal())
    except KeyFormError as error:
        return str(error)
    return ""


def public_key(kind: Kind, form: KeyForm, text: bytes) -> "PublicKey":
    """The public key in `text`: PEM, base64 of a DER, or for Ed25519 its 32 bytes in hex or base64. Raises `KeyFormError`."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415

    wrong = KeyFormError(f"is not the provider's public key for {kind}; copy it as the provider shows it")
    try:
        if form in (KeyForm.HEX, KeyForm.BASE64):
            return ed25519.Ed25519PublicKey.from_public_bytes(key_bytes(form, text))
        if b"-----BEGIN" in text:
            key = serialization.load_pem_public_key(text)
        else:
            key = serialization.load_der_public_key(_base64(b"".join(text.split()), ""))
    except (ValueError, UnsupportedAlgorithm):
        raise wrong from None
    if kind is Kind.ED25519 and isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if kind is Kind.ECDSA and isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1":
        return key
    if kind in (Kind.RSA_PKCS1, Kind.RSA_PSS) and isinstance(key, rsa.RSAPublicKey) and key.key_size >= 1024:
        return key
    raise wrong


def private_key(kind: Kind, form: KeyForm, text: bytes) -> "PrivateKey":
    """The private key that signs what `public_key` verifies: PEM, or for Ed25519 its 32 bytes. Raises `KeyFormError`."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415

    wrong = KeyFormError(f"is not a private key for {kind}; signing needs one, in PEM: a public key only verifies")
    try:
        if b"-----BEGIN" in text:
            key = serialization.load_pem_private_key(text, password=None)
        elif form in (KeyForm.HEX, KeyForm.BASE64):
            key = ed25519.Ed25519PrivateKey.from_private_bytes(key_bytes(form, text))
        else:
            raise wrong
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise wrong from None
    expected = {Kind.ED25519: ed25519.Ed25519PrivateKey, Kind.ECDSA: ec.EllipticCurvePrivateKey}
    if not isinstance(key, expected.get(kind, rsa.RSAPrivateKey)):
        raise wrong
    return key  # type: ignore[return-value]  # the line above narrows it, by a table


def _hex(text: bytes) -> bytes:
    try:
        return binascii.unhexlify(text)
    except binascii.Error:
        raise KeyFormError("is not hex; copy the secret as the provider shows it, without blanks or a prefix") from None


def _base64(text: bytes, remedy: str) -> bytes:
    """RFC 4648 section 4, the padding may be missing."""
    try:
        key = b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise KeyFormError(remedy)
    return key
