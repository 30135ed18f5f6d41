"""How the bytes of a signature are written as text, and read back: each signature has exactly one valid text."""

from base64 import b64encode, urlsafe_b64encode
from binascii import a2b_base64, hexlify, unhexlify
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Final


class Encoding(StrEnum):
    """How a signature's bytes are written. `base64url` is RFC 4648 section 5, with or without padding."""

    HEX = "hex"  # lower case
    HEX_ANY_CASE = "hex-any-case"
    BASE64 = "base64"
    BASE64URL = "base64url"


#: From a signature's text to its bytes; None if it is malformed.
Decoder = Callable[[bytes], bytes | None]
#: Longest signature of a public key: RSA-8192 has 1024 bytes.
MAX_SIGNATURE: Final = 1024


def encode(encoding: Encoding, signature: bytes) -> str:
    """The text of a signature, as most senders write it."""
    text = _ENCODE[encoding](signature).decode()
    return text.rstrip("=") if encoding is Encoding.BASE64URL else text


def text_length(encoding: Encoding, size: int) -> int:
    """Characters of the text of `size` bytes, with padding."""
    return 2 * size if encoding in (Encoding.HEX, Encoding.HEX_ANY_CASE) else 4 * -(-size // 3)


def make_decoder(encoding: Encoding, size: int) -> Decoder:
    """A decoder that accepts only the canonical text of `size` bytes; with `size` 0, of up to `MAX_SIGNATURE` bytes."""
    # No nested functions: compiled, they and what they share are a reference cycle, and the hints make many decoders.
    if encoding in (Encoding.HEX, Encoding.HEX_ANY_CASE):
        return partial(_from_hex, size, encoding is Encoding.HEX_ANY_CASE)
    return partial(_from_base64, size, encoding is Encoding.BASE64URL, _ENCODE[encoding])


def decode_as_is(text: bytes) -> bytes | None:
    """A decoder for text that is compared as it is: a token."""
    return text or None


def _check_size(size: int, signature: bytes) -> bytes | None:
    return signature if (len(signature) == size if size else 0 < len(signature) <= MAX_SIGNATURE) else None


def _from_hex(size: int, any_case: bool, text: bytes) -> bytes | None:
    if size and len(text) != 2 * size:
        return None
    try:
        signature = unhexlify(text)
    except ValueError:
        return None
    if not any_case and hexlify(signature) != text:
        return None
    return _check_size(size, signature)


def _from_base64(size: int, url: bool, write: Callable[[bytes], bytes], text: bytes) -> bytes | None:
    padded = text
    if url:
        if b"=" not in text:
            padded = text + b"=" * (-len(text) % 4)
        text = padded.translate(_FROM_URL)
    try:
        signature = a2b_base64(text)
    except ValueError:
        return None
    return _check_size(size, signature) if write(signature) == padded else None


_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")

#: From a signature's bytes to its text, padded.
_ENCODE: Final[dict[Encoding, Callable[[bytes], bytes]]] = {
    Encoding.HEX: hexlify,
    Encoding.HEX_ANY_CASE: hexlify,
    Encoding.BASE64: b64encode,
    Encoding.BASE64URL: urlsafe_b64encode,
}
