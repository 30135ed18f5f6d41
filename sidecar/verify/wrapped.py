"""Signatures in a JSON object that is itself base64, beside the id of the key: `wrapped:` of a signature (eBay)."""

from base64 import b64decode
from binascii import Error
from typing import Any, NamedTuple

from sidecar.outcomes import Reason, Rejected
from sidecar.verify.scheme import Wrapping
from sidecar.verify.token import TokenError, read_object

#: Bytes of the header's value.
MAX_WRAPPED = 8192


class Unwrapped(NamedTuple):
    """The content of the object."""

    signature: bytes  #: as text
    key_id: Any  #: whatever was sent


def unwrap(wrapping: Wrapping, text: bytes) -> Unwrapped:
    """Raises `Rejected` for a value that is not in this form."""
    try:
        if len(text) > MAX_WRAPPED:
            raise TokenError("too long")
        document = read_object(b64decode(text, validate=True), "header")
    except (TokenError, Error, ValueError):
        raise Rejected(Reason.SIGNATURE_MALFORMED, "the signature is not base64 of one JSON object") from None
    for name, value in wrapping.members:
        if document.get(name) != value:
            raise Rejected(Reason.SIGNATURE_MALFORMED, f"the signature's {name} is not {value!r}")
    signature = document.get(wrapping.signature)
    if not isinstance(signature, str) or not signature.isascii():
        raise Rejected(Reason.SIGNATURE_MALFORMED, f"the signature's {wrapping.signature} is not text")
    return Unwrapped(signature.encode(), document.get(wrapping.id))
