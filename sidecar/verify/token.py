"""Compact JWS (RFC 7515, 3.1): from text to head, payload and signature, strictly. Nothing is verified here.

Two parsers must never read a token differently, so everything that parsers may read in different ways is rejected: padding,
unused bits, further parts, a member twice, NaN, deep nesting. The length of the text bounds all work, and is checked first.
"""

import json
import re
from base64 import urlsafe_b64encode
from binascii import Error, a2b_base64
from functools import lru_cache
from typing import Any, Final, NoReturn

#: Bytes of a token in a header. Microsoft's with many groups have 6 KiB.
MAX_TOKEN: Final = 16 * 1024
#: Bytes of a token that is a body, or one field of it. Apple's hold two more tokens, each with its chain of certificates: 19 KiB.
MAX_BODY_TOKEN: Final = 256 * 1024
#: Bytes of a head that is remembered once it is parsed. Usual ones have 150; those with certificates in them are not remembered.
MAX_KNOWN_HEAD: Final = 1024
#: Nesting of a head or payload, counted before the parser sees it.
MAX_DEPTH: Final = 32
#: Objects and lists of a head or payload, those in strings included.
MAX_BRACKETS: Final = 5000

#: From base64url to base64. Characters that are only of the latter become ones that are of neither.
_FROM_URL: Final = bytes.maketrans(b"-_+/=", b"+/!!!")
#: By the length of the text modulo four: what it lacks as base64, and its possible last characters, whose unused bits are zero.
_PADDING: Final = (b"", b"", b"==", b"=")
_LAST: Final[tuple[bytes, ...]] = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NOT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")


class TokenError(ValueError):
    """Text that is not a token; the message says why, and quotes nothing."""


class Token:
    """The parts of a token."""

    __slots__ = ("head", "payload", "signature", "signed")

    def __init__(self, head: dict[str, Any], payload: bytes, signed: bytes, signature: bytes) -> None:
        """`payload` is decoded; the signature is over `signed`."""
        self.head = head
        self.payload = payload
        self.signed = signed
        self.signature = signature


def read_token(text: bytes, payload: bytes | None = None, most: int = MAX_TOKEN) -> Token:
    """The parts of a compact JWS; `payload` is that of a detached one (RFC 7515, appendix F). Raises `TokenError`.

    `most` is how many bytes the text may have.
    """
    if len(text) > most:
        raise TokenError(f"longer than {most} bytes")
    parts = text.split(b".", 3)
    if len(parts) != 3:
        raise TokenError("not three parts, separated by '.'")
    head, middle, end = parts
    signature = decode_base64url(end)
    if not signature and payload is None and head:
        raise TokenError("without a signature")
    if payload is not None:
        if middle:
            raise TokenError("not detached: its second part isn't empty")
    else:
        payload = decode_base64url(middle)
    made = _read_known_head(head) if len(head) <= MAX_KNOWN_HEAD else read_object(decode_base64url(head), "head")
    return Token(made, payload, text[: len(head) + 1 + len(middle)], signature)


@lru_cache(maxsize=64)
def _read_known_head(text: bytes) -> dict[str, Any]:
    """A sender writes the same head into each token, so it is parsed once. No caller changes the result. Raises `TokenError`."""
    return read_object(decode_base64url(text), "head")


def decode_base64url(text: bytes) -> bytes:
    """Canonical base64url without padding (RFC 7515, 2). Raises `TokenError`."""
    rest = len(text) & 3
    if rest and text[-1] not in _LAST[rest]:
        raise TokenError("not the shortest base64url, or not without padding")
    try:
        # Strict: no character that is not of the alphabet, none after the end (binascii skips them otherwise).
        return a2b_base64(text.translate(_FROM_URL) + _PADDING[rest], strict_mode=True)
    except Error:
        raise TokenError("not base64url without padding") from None


def encode_base64url(data: bytes) -> bytes:
    """Base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=")


def read_object(text: bytes, what: str) -> dict[str, Any]:
    """A JSON object in UTF-8: no member twice, no NaN, no number beyond a float, nested at most `MAX_DEPTH` deep.

    Raises `TokenError`, which names `what`.
    """
    if _is_too_deep(text):
        raise TokenError(f"its {what} is nested more than {MAX_DEPTH} deep")
    try:
        decoded = text.decode()
        # `decode` also takes white space around it, which costs two regular expressions and is not usual.
        value, end = _STRICT.raw_decode(decoded) if decoded.startswith("{") else (None, -1)
        if end != len(decoded):
            value = _STRICT.decode(decoded)
    except (ValueError, RecursionError):
        raise TokenError(f"its {what} is not one JSON object without duplicate members") from None
    if not isinstance(value, dict):
        raise TokenError(f"its {what} is not a JSON object")
    return value


def _is_too_deep(text: bytes) -> bool:
    brackets = text.count(b"{") + text.count(b"[")
    if brackets <= MAX_DEPTH or brackets > MAX_BRACKETS:
        return brackets > MAX_BRACKETS
    depth = 0
    for bracket in _STRING.sub(b"", text).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:  # 1e400 is infinite
        raise ValueError
    return value


#: Made once: making a decoder costs as much as reading a small token.
_STRICT: Final = json.JSONDecoder(
    object_pairs_hook=_without_duplicates, parse_constant=_no_constant, parse_float=_finite
)
