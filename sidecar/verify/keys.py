"""From a secret's text to a key. Most code that needs a secret's value gets it here, as a key."""

import binascii
import hashlib
import re
import unicodedata
from base64 import b64decode
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sidecar.secret import Secret

if TYPE_CHECKING:
    from sidecar.verify.scheme import Scheme


class KeyForm(StrEnum):
    """How the secret's text becomes the key."""

    UTF8 = "utf8"  # the text itself
    HEX = "hex"
    BASE64 = "base64"
    WHSEC = "whsec"  # base64, after `whsec_` if the text begins with it
    WHPK = "whpk"  # a public key in base64, after `whpk_` if the text begins with it
    SHA256 = "sha256"  # the SHA-256 of the text
    NFKD = "nfkd"  # the text in Unicode normalisation form KD
    AFTER_COLON = "after-colon"  # the text after the first `:`
    SHA1_AFTER_COLON = "sha1-after-colon"  # the SHA-1 of the text after the first `:`
    PEM = "pem"  # a public key in PEM, or the base64 of its DER


#: Forms of a shared secret; the first is the default.
SHARED_FORMS = tuple(form for form in KeyForm if form not in (KeyForm.PEM, KeyForm.WHPK))
#: Characters that no sender escapes in a path (RFC 3986, 2.3); a segment of dots alone means another path.
_SEGMENT = re.compile(rb"[A-Za-z0-9._~-]*[A-Za-z0-9][A-Za-z0-9._~-]*")
_COPY = "copy the secret as the provider shows it"


class KeyFormError(ValueError):
    """A secret that is not in the scheme's form; the message is a remedy and shows nothing of the secret."""


def read_keys(scheme: "Scheme", secrets: Sequence[Secret]) -> list[tuple[str, Any]]:
    """The keys that verify, each with its secret's id. Raises `KeyFormError`."""
    kind = scheme.signature.kind
    if scheme.signature.path is not None and not all(_SEGMENT.fullmatch(secret.reveal()) for secret in secrets):
        raise KeyFormError(
            "can't be a segment of a path; use a secret of letters, digits, '-', '_', '~' and '.', with a letter or digit"
        )
    read = kind.read_key if kind.read_public_key is None or scheme.shares_secret else kind.read_public_key
    return [(secret.id, read(scheme.key, _key_text(scheme, secret))) for secret in secrets]


def read_signing_key(scheme: "Scheme", secret: Secret) -> Any:
    """The key that signs. Raises `KeyFormError`."""
    return scheme.signature.kind.read_signing_key(scheme.key, _key_text(scheme, secret))


def key_id(secret: Secret) -> bytes:
    """The id of a key in a secret of the form `ID:KEY`; empty for one without a colon."""
    before, colon, _ = secret.reveal().partition(b":")
    return before if colon else b""


def _key_text(scheme: "Scheme", secret: Secret) -> bytes:
    """The text of the key, without the id that a secret may begin with."""
    text = secret.reveal()
    if not scheme.signature.key_id or scheme.key in (KeyForm.AFTER_COLON, KeyForm.SHA1_AFTER_COLON):
        return text
    _, colon, rest = text.partition(b":")
    return rest if colon else text


def key_problem(scheme: "Scheme", secret: Secret) -> str:
    """Why a secret can't be the scheme's key; empty if it can."""
    try:
        read_keys(scheme, [secret])
    except KeyFormError as error:
        return str(error)
    return ""


def secret_bytes(form: KeyForm, secret: Secret) -> bytes:
    """The key of a shared secret. Raises `KeyFormError`."""
    return key_bytes(form, secret.reveal())


def key_bytes(form: KeyForm, text: bytes) -> bytes:
    """The key that `text` is a form of. Raises `KeyFormError`."""
    if form is KeyForm.HEX:
        try:
            return binascii.unhexlify(text)
        except binascii.Error:
            raise KeyFormError(f"is not hex; {_COPY}, without spaces or a prefix") from None
    if form is KeyForm.BASE64:
        return decode_base64(text, f"is not base64; {_COPY}")
    if form is KeyForm.WHSEC:
        return decode_base64(
            text.removeprefix(b"whsec_"), f"is not base64, with or without 'whsec_' before it; {_COPY}"
        )
    if form is KeyForm.WHPK:
        return decode_base64(text.removeprefix(b"whpk_"), f"is not base64, with or without 'whpk_' before it; {_COPY}")
    if form is KeyForm.SHA256:
        return hashlib.sha256(text).digest()
    if form is KeyForm.NFKD:
        try:
            return unicodedata.normalize("NFKD", text.decode()).encode()
        except UnicodeDecodeError:
            raise KeyFormError(f"is not UTF-8 text; {_COPY}") from None
    if form in (KeyForm.AFTER_COLON, KeyForm.SHA1_AFTER_COLON):
        _, colon, rest = text.partition(b":")
        if not colon or not rest:
            raise KeyFormError("has no ':' with the key after it; copy the whole API key, name and secret")
        return hashlib.sha1(rest).digest() if form is KeyForm.SHA1_AFTER_COLON else rest  # noqa: S324 - the sender's
    return text


def decode_base64(text: bytes, remedy: str = "") -> bytes:
    """RFC 4648, section 4; the padding may be missing. Raises `KeyFormError` with `remedy`."""
    try:
        key = b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        key = b""
    if not key:
        raise KeyFormError(remedy)
    return key
