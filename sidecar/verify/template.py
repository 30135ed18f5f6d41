"""The template of a signed message, as in `signed: "{timestamp}.{body}"`.

`message.py` fills it from a delivery. `[[...]]` is an optional group: it is left out where one of its places is absent.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import product


class Piece(Enum):
    """A placeholder that is filled from the delivery."""

    BODY = "body"
    TIMESTAMP = "timestamp"  # as the sender wrote it
    METHOD = "method"
    URL = "url"  # the URL that the sender called: `public_url` and the request's target
    URL_WITHOUT_QUERY = "url_without_query"
    PATH_QUERY = "path_query"
    #: What JavaScript's encodeURI makes of the path and the query, after encodeURIComponent escaped the latter.
    PATH_QUERY_ESCAPED = "path_query_escaped"
    #: The path with a slash added at its end, or removed there, and the query.
    PATH_QUERY_OTHER_SLASH = "path_query_other_slash"
    QUERY_SORTED = "query_sorted"  # the query's decoded parameters as name=value, sorted and joined by &
    HOST = "host"
    FORM_SORTED = (
        "form_sorted"  # the form in the body: pairs of name and value, sorted, without duplicates or separators
    )
    FORM_SORTED_ALL = "form_sorted_all"  # the same with duplicates
    BODY_SHA256_HEX = "body_sha256_hex"
    BODY_SHA256_B64 = "body_sha256_b64"
    BODY_SHA256_B64URL = "body_sha256_b64url"  # without padding
    BODY_SHA512_HEX = "body_sha512_hex"
    BODY_SHA512_B64 = "body_sha512_b64"
    BODY_SHA512_B64URL = "body_sha512_b64url"
    BODY_SHA1_HEX = "body_sha1_hex"
    BODY_CRC32 = "body_crc32"  # decimal; it protects nothing: anybody can make another body with the same CRC
    SECRET = "secret"


BODY = Piece.BODY
TIMESTAMP = Piece.TIMESTAMP
#: Placeholders that need the public URL.
URL_PIECES = frozenset({Piece.URL, Piece.URL_WITHOUT_QUERY})
#: Placeholders for a hash of the body.
HASH_PIECES = frozenset(
    {
        Piece.BODY_SHA256_HEX,
        Piece.BODY_SHA256_B64,
        Piece.BODY_SHA256_B64URL,
        Piece.BODY_SHA512_HEX,
        Piece.BODY_SHA512_B64,
        Piece.BODY_SHA512_B64URL,
        Piece.BODY_SHA1_HEX,
    }
)
#: Placeholders for the whole form in the body.
FORM_PIECES = frozenset({Piece.FORM_SORTED, Piece.FORM_SORTED_ALL})
#: Placeholders that cover the body.
BODY_PIECES = frozenset({Piece.BODY}) | FORM_PIECES | HASH_PIECES


@dataclass(frozen=True, slots=True)
class HeaderValue:
    """A placeholder for another header's value (lower-case name)."""

    name: bytes


@dataclass(frozen=True, slots=True)
class JsonValue:
    """A placeholder for a value of the body's JSON document."""

    path: str


@dataclass(frozen=True, slots=True)
class QueryValue:
    """A placeholder for a query parameter, decoded."""

    name: str
    lower: bool = False  #: in lower case


@dataclass(frozen=True, slots=True)
class FormValue:
    """A placeholder for a field of the form in the body, decoded."""

    name: str


@dataclass(frozen=True, slots=True)
class FormJoined:
    """A placeholder for the form's decoded fields as name=value, sorted and joined by &."""

    without: tuple[str, ...]  #: fields that are not signed


@dataclass(frozen=True, slots=True)
class ListedHeaders:
    """A placeholder for the headers that the list in a header names: name:value, sorted and joined by `;`."""

    name: bytes  #: of the header with the list (lower-case); it must name itself
    must: tuple[bytes, ...] = ()  #: the other headers that it must name, such as the timestamp's


@dataclass(frozen=True, slots=True)
class ListedInHead:
    """A placeholder for the headers that a member of a detached token's head names: a line `Name: value` for each."""

    member: str


@dataclass(frozen=True, slots=True)
class Group:
    """`[[...]]`: left out where one of its places is absent or empty."""

    parts: tuple["Part", ...]


_PIECES = {piece.value: piece for piece in Piece}
#: A placeholder that has a name or a path.
NamedPlace = HeaderValue | JsonValue | QueryValue | FormValue | FormJoined | ListedHeaders | ListedInHead
Part = bytes | Piece | NamedPlace | Group

_TOKEN = re.compile(r"\{([^{}]*)\}|(\[\[)|(\]\])")
#: A header's name (RFC 9110, 5.6.2).
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: `signature.timestamp`, `value[].clientState`.
JSON_PATH = re.compile(r"[A-Za-z0-9_-]+(\[\])?(\.[A-Za-z0-9_-]+(\[\])?)*")
#: The name of a form's field or of a query parameter.
FIELD_NAME = re.compile(r"[A-Za-z0-9._~\[\]-]+")
_NAMES = ("id", "header:NAME", "json:PATH", "query:NAME", "query_lower:NAME", "form:NAME", "form_joined:WITHOUT,...")
PLACEHOLDERS = (
    ", ".join(f"{{{name}}}" for name in (*_PIECES, *_NAMES)) + ", {listed_headers:HEADER} and {listed:MEMBER}"
)
#: Optional groups of one template: each doubles the number of messages.
MAX_GROUPS = 4


class TemplateError(ValueError):
    """An invalid template; the message names the placeholder and the remedy."""


def parse_template(text: str, delivery_id: str | None = None) -> tuple[Part, ...]:
    """`"v0:{timestamp}:{body}"` → `(b"v0:", TIMESTAMP, b":", BODY)`; `{id}` is the header `delivery_id`.

    Raises `TemplateError`.
    """
    parts: list[Part] = []
    group: list[Part] | None = None
    end = 0
    for match in _TOKEN.finditer(text):
        within = parts if group is None else group
        within.extend(_literal(text[end : match.start()]))
        end = match.end()
        if match[1] is not None:
            within.append(_placeholder(match[1], delivery_id))
        elif match[2] and group is None:
            group = []
        elif match[3] and group is not None:
            parts.append(_make_group(group))
            group = None
        else:
            raise TemplateError(f"has {match[0]} in the wrong place; write [[...]] without another one in it")
    if group is not None:
        raise TemplateError("has [[ without ]] after it; close the optional group")
    parts.extend(_literal(text[end:]))
    if not parts:
        raise TemplateError("is empty; for example '{body}'")
    flat = list(walk(parts))
    for piece in BODY_PIECES:
        if flat.count(piece) > 1:
            raise TemplateError(f"has {{{piece.value}}} {flat.count(piece)} times; use it once")
    if sum(isinstance(part, Group) for part in parts) > MAX_GROUPS:
        raise TemplateError(f"has more than {MAX_GROUPS} optional groups; use alternatives instead")
    return tuple(parts)


def parse_place(name: str) -> Part:
    """One placeholder without its braces, as in `json:Type`. Raises `TemplateError`."""
    return _placeholder(name, None)


def _make_group(parts: list[Part]) -> Group:
    places = [part for part in parts if not isinstance(part, bytes)]
    if not places or not all(can_be_absent(part) for part in places):
        raise TemplateError(
            "has [[...]] with no place that can be absent, or another one beside it; "
            "use a header, JSON value, query parameter or form field"
        )
    return Group(tuple(parts))


def can_be_absent(part: Part) -> bool:
    """Whether a delivery may be without it."""
    return isinstance(part, HeaderValue | JsonValue | QueryValue | FormValue) or part in _MAY_BE_EMPTY


_MAY_BE_EMPTY = FORM_PIECES | {Piece.QUERY_SORTED}


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
    kind, _, rest = name.partition(":")
    if kind in ("header", "listed_headers") and HEADER_NAME.fullmatch(rest):
        header = rest.lower().encode()
        return HeaderValue(header) if kind == "header" else ListedHeaders(header)
    if kind == "json" and JSON_PATH.fullmatch(rest) and "[]" not in rest:
        return JsonValue(rest)
    if kind in ("query", "query_lower", "form") and FIELD_NAME.fullmatch(rest):
        return FormValue(rest) if kind == "form" else QueryValue(rest, lower=kind == "query_lower")
    if kind == "form_joined" and all(map(FIELD_NAME.fullmatch, rest.split(","))):
        return FormJoined(tuple(rest.split(",")))
    if kind == "listed" and FIELD_NAME.fullmatch(rest):
        return ListedInHead(rest)
    raise TemplateError(f"has the unknown placeholder {{{name}}}; known are {PLACEHOLDERS}")


def walk(parts: Sequence[Part]) -> Iterator[Part]:
    """Every part, those of optional groups included, but not the groups."""
    for part in parts:
        if isinstance(part, Group):
            yield from walk(part.parts)
        else:
            yield part


def expand(parts: Sequence[Part]) -> Iterator[tuple[Part, ...]]:
    """The message with each optional group present or absent."""
    groups = [part for part in parts if isinstance(part, Group)]
    for present in product((True, False), repeat=len(groups)):
        chosen = iter(present)
        yield tuple(
            inner
            for part in parts
            for inner in ((part.parts if next(chosen) else ()) if isinstance(part, Group) else (part,))
        )


def describe_template(parts: Sequence[Part], shown: Mapping[Piece, str]) -> str:
    """For people: `timestamp "." body`. It never holds values; `shown` may say more about some places."""
    return " ".join(_describe(part, shown) for part in parts)


def _describe(part: Part, shown: Mapping[Piece, str]) -> str:
    if isinstance(part, bytes):
        return json.dumps(part.decode())
    if isinstance(part, HeaderValue):
        return f"header {part.name.decode()}"
    if isinstance(part, JsonValue):
        return f"JSON value {part.path}"
    if isinstance(part, QueryValue):
        return f"query parameter {part.name}" + (" in lower case" if part.lower else "")
    if isinstance(part, FormValue):
        return f"form field {part.name}"
    if isinstance(part, FormJoined):
        return f"all form fields but {', '.join(part.without)}"
    if isinstance(part, ListedHeaders):
        return f"the headers that {part.name.decode()} lists"
    if isinstance(part, ListedInHead):
        return f"the headers that {part.member} in the signature's head lists"
    if isinstance(part, Group):
        return f"[if present: {describe_template(part.parts, shown)}]"
    return shown.get(part, part.value)
