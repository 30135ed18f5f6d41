"""The template of a signed message, as in `signed: "{timestamp}.{body}"`.

`message.py` fills it from a delivery.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum


class Piece(Enum):
    """A placeholder that is filled from the delivery."""

    BODY = "body"
    TIMESTAMP = "timestamp"  # as the sender wrote it
    METHOD = "method"
    URL = "url"  # the URL that the sender called: `public_url` and the request's target
    URL_WITHOUT_QUERY = "url_without_query"
    PATH_QUERY = "path_query"
    HOST = "host"
    FORM_SORTED = (
        "form_sorted"  # the form in the body: pairs of name and value, sorted, without duplicates or separators
    )
    BODY_SHA256_B64 = "body_sha256_b64"
    BODY_SHA512_B64 = "body_sha512_b64"
    SECRET = "secret"


BODY = Piece.BODY
TIMESTAMP = Piece.TIMESTAMP
#: Placeholders that need the public URL.
URL_PIECES = frozenset({Piece.URL, Piece.URL_WITHOUT_QUERY})
#: Placeholders that cover the body.
BODY_PIECES = frozenset({Piece.BODY, Piece.FORM_SORTED, Piece.BODY_SHA256_B64, Piece.BODY_SHA512_B64})


@dataclass(frozen=True, slots=True)
class HeaderValue:
    """A placeholder for another header's value (lower-case name)."""

    name: bytes


@dataclass(frozen=True, slots=True)
class JsonValue:
    """A placeholder for a value of the body's JSON document."""

    path: str


_PIECES = {piece.value: piece for piece in Piece}
Part = bytes | Piece | HeaderValue | JsonValue

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
#: A header's name (RFC 9110, 5.6.2).
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: `signature.timestamp`, `value[].clientState`.
JSON_PATH = re.compile(r"[A-Za-z0-9_-]+(\[\])?(\.[A-Za-z0-9_-]+(\[\])?)*")
PLACEHOLDERS = ", ".join(f"{{{piece.value}}}" for piece in Piece) + ", {id}, {header:NAME} and {json:PATH}"


class TemplateError(ValueError):
    """An invalid template; the message names the placeholder and the remedy."""


def parse_template(text: str, delivery_id: str | None = None) -> tuple[Part, ...]:
    """`"v0:{timestamp}:{body}"` → `(b"v0:", TIMESTAMP, b":", BODY)`; `{id}` is the header `delivery_id`.

    Raises `TemplateError`.
    """
    parts: list[Part] = []
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        parts.extend(_literal(text[end : match.start()]))
        parts.append(_placeholder(match[1], delivery_id))
        end = match.end()
    parts.extend(_literal(text[end:]))
    if not parts:
        raise TemplateError("is empty; for example '{body}'")
    for piece in BODY_PIECES:
        if parts.count(piece) > 1:
            raise TemplateError(f"has {{{piece.value}}} {parts.count(piece)} times; use it once")
    return tuple(parts)


def _literal(text: str) -> list[Part]:
    if "{" in text or "}" in text:
        raise TemplateError("has a brace outside a placeholder; write {body}, {timestamp} or {header:NAME}")
    return [text.encode()] if text else []


def _placeholder(name: str, delivery_id: str | None) -> Part:
    if name in _PIECES:
        return _PIECES[name]
    if name == "id":
        if not delivery_id:
            raise TemplateError("signs {id}, but there is no delivery_id: section; add one that names its header")
        return HeaderValue(delivery_id.lower().encode())
    if name.startswith("header:") and HEADER_NAME.fullmatch(name[7:]):
        return HeaderValue(name[7:].lower().encode())
    if name.startswith("json:") and JSON_PATH.fullmatch(name[5:]) and "[]" not in name:
        return JsonValue(name[5:])
    raise TemplateError(f"has the unknown placeholder {{{name}}}; known are {PLACEHOLDERS}")


def describe_template(parts: Sequence[Part], shown: Mapping[Piece, str]) -> str:
    """For people: `timestamp "." body`. It holds no values, but `shown` may say more about some places."""
    names = []
    for part in parts:
        if isinstance(part, bytes):
            names.append(json.dumps(part.decode()))
        elif isinstance(part, HeaderValue):
            names.append(f"header {part.name.decode()}")
        elif isinstance(part, JsonValue):
            names.append(f"JSON value {part.path}")
        else:
            names.append(shown.get(part, part.value))
    return " ".join(names)
