"""What a provider signs, with what, and how it writes the result: a scheme, as data.

A preset file and a user's own `verify:` have this one form:

    signature: {header: X-Acme-Signature, algorithm: sha256, encoding: hex, prefix: "v1="}
    timestamp: {header: X-Acme-Timestamp, unit: s, tolerance: 5m}
    signed: "{timestamp}.{body}"
    delivery_id: {header: X-Acme-Delivery}

Every part is optional data with a place for more: where the signature stands, how the secret's text becomes key
bytes, which clock counts, which pieces make the signed message. Providers differ in these alone.
"""

import re
from dataclasses import dataclass, field
from enum import StrEnum


class Algorithm(StrEnum):
    """Hash function of the HMAC (RFC 2104)."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"


#: Digest sizes in bytes.
DIGEST_SIZES = {Algorithm.SHA1: 20, Algorithm.SHA256: 32, Algorithm.SHA384: 48, Algorithm.SHA512: 64}


class Encoding(StrEnum):
    """How the MAC is written. `base64url` is RFC 4648 section 5, with or without padding."""

    HEX = "hex"
    BASE64 = "base64"
    BASE64URL = "base64url"


class Unit(StrEnum):
    """Unit of a numeric timestamp."""

    SECONDS = "s"
    MILLISECONDS = "ms"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureField:
    """Where the signature stands and how it is written."""

    header: str
    algorithm: Algorithm = Algorithm.SHA256
    encoding: Encoding = Encoding.HEX
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimestampField:
    """The signed clock. `tolerance` in seconds, applied in both directions."""

    header: str
    unit: Unit = Unit.SECONDS
    tolerance: float = 300.0


class Body:
    """The place of the raw body in a template."""


class Timestamp:
    """The place of the timestamp, as the sender wrote it."""


@dataclass(frozen=True, slots=True)
class HeaderValue:
    """The place of another header's value (lower-case name)."""

    name: bytes


BODY = Body()
TIMESTAMP = Timestamp()
Part = bytes | Body | Timestamp | HeaderValue

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class TemplateError(ValueError):
    """A template that can't be compiled; the message names the piece and the remedy."""


def parse_template(text: str) -> tuple[Part, ...]:
    """`"v0:{timestamp}:{body}"` → `(b"v0:", TIMESTAMP, b":", BODY)`. Raises `TemplateError`."""
    parts: list[Part] = []
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        parts.extend(_literal(text[end : match.start()]))
        parts.append(_placeholder(match[1]))
        end = match.end()
    parts.extend(_literal(text[end:]))
    if parts.count(BODY) != 1:
        raise TemplateError(
            "must contain {body} exactly once, or the body would not be signed; for example '{timestamp}.{body}'"
        )
    return tuple(parts)


def _literal(text: str) -> list[Part]:
    if "{" in text or "}" in text:
        raise TemplateError("has a brace that belongs to no placeholder; write {body}, {timestamp} or {header:NAME}")
    return [text.encode()] if text else []


def _placeholder(name: str) -> Part:
    if name == "body":
        return BODY
    if name == "timestamp":
        return TIMESTAMP
    if name.startswith("header:") and _TOKEN.fullmatch(name[7:]):
        return HeaderValue(name[7:].lower().encode())
    raise TemplateError(
        f"has the unknown placeholder {{{name}}}; known are {{body}}, {{timestamp}} and {{header:NAME}}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A provider's signature scheme. `title`, `docs`, `evidence` and `notes` are for people."""

    signature: SignatureField
    timestamp: TimestampField | None = None
    signed: str = "{body}"
    parts: tuple[Part, ...] = field(default=(BODY,))
    delivery_id: str | None = None
    name: str = ""  #: the preset's name; empty for a scheme written in the configuration
    title: str = ""
    docs: str = ""
    evidence: str = ""
    notes: str = ""
