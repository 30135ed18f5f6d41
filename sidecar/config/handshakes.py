"""Handshakes by name, and the values of `handshake:` on a route and in a scheme."""

from functools import cache
from typing import Any, NamedTuple

from sidecar.config.fields.address import WebURL
from sidecar.config.fields.base import InvalidValueError, JSONSchema, ValueType, quote
from sidecar.config.fields.mapping import Items, Key, Section, find_close
from sidecar.config.fields.text import Choice, NonEmpty
from sidecar.config.handshake_keys import HANDSHAKE
from sidecar.config.yaml_source import read_shipped, shipped_names
from sidecar.verify.handshake import HandshakeMode, Shape


class NamedHandshake(NamedTuple):
    """A handshake that comes with the program."""

    name: str
    title: str
    notes: str
    shapes: tuple[Shape, ...]


#: A file of sidecar/handshakes.
_FILE: Section[dict[str, Any]] = Section(
    None,
    {
        "title": Key(NonEmpty(), "whose handshake it is", required=True),
        "docs": Key(WebURL(), "the page that describes it", required=True),
        "source": Key(NonEmpty(), "where the description was taken from", required=True),
        "notes": Key(NonEmpty(), "what a user should know", required=True),
        "handshake": Key(Items(HANDSHAKE), "its requests and responses", required=True),
    },
)


@cache
def handshake_names() -> tuple[str, ...]:
    """Names of the handshakes in the package, sorted."""
    return shipped_names("handshakes")


@cache
def load_handshake(name: str) -> NamedHandshake:
    """Raises `KeyError` for an unknown name."""
    data = read_shipped("handshakes", name, handshake_names())
    read = _FILE.read(data)
    return NamedHandshake(name, read["title"], read["notes"], read["handshake"])


class HandshakeName(ValueType[NamedHandshake]):
    """The name of a handshake in the package."""

    title = "name of a handshake"

    def read(self, value: Any) -> NamedHandshake:
        if not isinstance(value, str) or value not in handshake_names():
            close = find_close(value, handshake_names()) if isinstance(value, str) else None
            remedy = f"did you mean '{close}'?" if close else f"use one of {', '.join(handshake_names())}"
            raise InvalidValueError(f"{quote(value)} is not a handshake; {remedy}")
        return load_handshake(value)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "type": "string", "enum": list(handshake_names())}


class SchemeHandshake(ValueType[tuple[Shape, ...]]):
    """A handshake of a scheme: its name, or its keys."""

    title = "name or keys"

    def read(self, value: Any) -> tuple[Shape, ...]:
        return HandshakeName().read(value).shapes if isinstance(value, str) else (HANDSHAKE.read(value),)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "anyOf": [HANDSHAKE.json_schema(), HandshakeName().json_schema()]}


class RouteHandshake(ValueType[HandshakeMode | tuple[NamedHandshake, ...]]):
    """`answer` or `pass`, or the names of handshakes that the route adds."""

    title = "answer, pass or names"
    mode = Choice(HandshakeMode)
    names = Items(HandshakeName())

    def read(self, value: Any) -> HandshakeMode | tuple[NamedHandshake, ...]:
        if isinstance(value, list):
            return self.names.read(value)
        if isinstance(value, str) and value in handshake_names():
            raise InvalidValueError(f"{quote(value)} must be in a list; use [{value}]")
        return self.mode.read(value)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "anyOf": [self.mode.json_schema(), self.names.json_schema()]}
