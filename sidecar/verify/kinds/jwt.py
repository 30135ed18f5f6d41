"""`kind: jwt`: a JSON Web Token, whose claims say what is signed (RFC 7519). `verify/token_verifier.py` verifies it."""

from typing import Any

from sidecar.verify.keys import SHARED_FORMS, KeyForm, key_bytes
from sidecar.verify.kinds.kind import Kind


def read_key(form: KeyForm, text: bytes) -> Any:
    """The secret of an HMAC as it is, or a public key."""
    if form is not KeyForm.PEM:
        return key_bytes(form, text)
    from sidecar.verify.kinds.public_key import not_the_public_key  # noqa: PLC0415

    wrong = not_the_public_key("tokens")
    try:
        from sidecar.verify.jose import read_public_key  # noqa: PLC0415

        return read_public_key(text.decode("ascii", "replace"))
    except ValueError:
        raise wrong from None


def read_private_key(form: KeyForm, text: bytes) -> Any:
    if form is not KeyForm.PEM:
        return key_bytes(form, text)
    from sidecar.verify.kinds.public_key import not_a_private_key, read_private_pem  # noqa: PLC0415

    return read_private_pem(text, lambda key: hasattr(key, "sign"), not_a_private_key("tokens"))


JWT = Kind(
    name="jwt",
    title="JWT ({algorithm})",
    key_forms=(*SHARED_FORMS, KeyForm.PEM),
    read_key=read_key,
    read_private_key=read_private_key,
    claims=True,
    shown_as="a JSON Web Token, three parts of base64url",
)
