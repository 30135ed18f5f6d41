"""The forms of a signed message: templates, alternatives, and the allowed values of places."""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Generic, NamedTuple, TypeVar

from sidecar.config.fields.base import Grammar, InvalidValueError, JSONSchema, NamedValues, ValueType, quote, read_each
from sidecar.config.fields.mapping import Key, Section
from sidecar.config.fields.text import NonEmpty, PatternText, Scalars
from sidecar.verify.scheme import Expected
from sidecar.verify.template import FIELD_NAME, HEADER_NAME, Part, parse_place

T = TypeVar("T")
#: The most alternatives; each is tried with every secret.
MAX_ALTERNATIVES = 8


class SignedText(NamedTuple):
    """One message as written: its template, and its conditions."""

    text: str
    when: tuple[tuple[Part, Expected], ...] = ()


class FieldName(PatternText):
    """The name of a form's field."""

    title = "form field"
    grammar = Grammar(FIELD_NAME.pattern)
    expected = "a valid name of a form field; use letters, digits, '.', '_', '~', '-' and brackets"


class TextOr(ValueType[T], Generic[T]):
    """A mapping of keys, with a text as its short form."""

    def __init__(self, text: ValueType[str], make: Callable[[str], T], full: ValueType[T], example: str) -> None:
        self._text = text
        self._make = make
        self._full = full
        self._example = example

    def read(self, value: Any) -> T:
        if isinstance(value, Mapping):
            return self._full.read(value)
        if isinstance(value, str):
            return self._make(self._text.read(value))
        raise InvalidValueError(f"must be a text or a mapping; use for example {self._example}")

    def json_schema(self) -> JSONSchema:
        return {"title": "text or keys", "anyOf": [self._text.json_schema(), self._full.json_schema()]}


#: A place that can be absent, without its braces.
PLACE_NAME = Grammar(
    rf"header:{HEADER_NAME.pattern}|json:[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*|(query|query_lower|form):{FIELD_NAME.pattern}"
    "|query_sorted|form_sorted|form_sorted_all"
)


class PlaceValues(NamedValues[T]):
    """Places of a template, without their braces, with a value for each."""

    title = "places"

    def read(self, value: Any) -> dict[Any, T]:
        return {parse_place(name): read for name, read in super().read(value).items()}

    def read_one(self, name: str, value: Any) -> T:
        if PLACE_NAME.match(name) is None:
            raise InvalidValueError(
                f"{quote(name)} is not a place that can be absent; use a header, JSON value, query parameter or form field, "
                "for example json:type"
            )
        return self.read_value(value)

    def read_value(self, value: Any) -> T:
        raise NotImplementedError

    def json_schema(self) -> JSONSchema:
        return super().json_schema() | {"propertyNames": PLACE_NAME.json_schema()}


class Conditions(PlaceValues[Expected]):
    """The required values of places: one value, one of several, true (any value) or false (none)."""

    expected = "places to values; for example {'json:type': order}"

    def read_value(self, value: Any) -> Expected:
        if isinstance(value, bool):
            return frozenset() if value else None
        values = value if isinstance(value, list) and value else [value]
        return frozenset(read_each(enumerate(values), lambda _, each: _read_scalar(each).encode()))

    def json_schema(self) -> JSONSchema:
        scalar = {"type": ["string", "integer", "boolean"]}
        several = {"type": "array", "minItems": 1, "items": {"type": ["string", "integer"]}}
        return super().json_schema() | {"additionalProperties": {"anyOf": [scalar, several]}}


def _read_scalar(value: Any) -> str:
    return str(Scalars().read_one("", value))


class PlainPlaces(PlaceValues[str]):
    """Places, each with the characters that its value may have."""

    expected = "places to characters; for example {'query:id': '[0-9A-Za-z]+'}"
    #: One class of characters, so that no value costs more than reading each of its bytes once.
    grammar = Grammar(
        r"\[(?:[ -Z^-~]|\\[\\\[\]^nrt-])+\](?:\+|\{[0-9]{1,4}(?:,[0-9]{0,5})?\})", excluded=r"--|&&|\|\||~~"
    )

    def read_value(self, value: Any) -> str:
        if self.grammar.match(value) is not None:
            with suppress(re.error):
                re.compile(value)
                return str(value)
        raise InvalidValueError(f"{quote(value)} is not one class of characters; use for example '[0-9A-Za-z_-]+'")

    def json_schema(self) -> JSONSchema:
        return super().json_schema() | {"additionalProperties": self.grammar.json_schema()}


class RequiredValues(NamedValues[str | None]):
    """Names, each with the value that it must have, or true for any."""

    title = "names and values"
    expected = "names to values; for example {app_id: '2021'}; true is any value"

    def __init__(self, names: PatternText) -> None:
        self._names = names

    def read_one(self, name: str, value: Any) -> str | None:
        self._names.read(name)
        return None if value is True else _read_scalar(value)

    def json_schema(self) -> JSONSchema:
        values = {"anyOf": [{"const": True}, {"type": ["string", "integer"]}]}
        names = self._names.grammar.json_schema()
        return super().json_schema() | {"propertyNames": names, "additionalProperties": values}


class JsonPlace(PatternText):
    """One place in a JSON document: `a.b`."""

    title = "place in JSON"
    grammar = Grammar(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
    expected = "a valid place in a JSON document; use one such as account.id"


#: One of several messages, with its conditions.
CONDITIONAL: Section[SignedText] = Section(
    None,
    {
        "when": Key(
            Conditions(),
            "places and the value that each must have; a list: any of these values; true: any value; false: no value",
            [{"json:type": ["order", "refund"]}],
            required=True,
        ),
        "is": Key(NonEmpty(), "the message that is signed in this case", ["{json:order.id}.{body}"], required=True),
    },
    make=lambda given: SignedText(given["is"], tuple(given["when"].items())),
)


class SignedMessages(ValueType[tuple[SignedText, ...]]):
    """A template, or a list of them: alternatives, any of which may be signed."""

    title = "template"
    _template = NonEmpty()

    def read(self, value: Any) -> tuple[SignedText, ...]:
        if not isinstance(value, list):
            return (SignedText(self._template.read(value)),)
        if not 0 < len(value) <= MAX_ALTERNATIVES:
            raise InvalidValueError(f"has {len(value)} alternatives; use 1 to {MAX_ALTERNATIVES}")
        return tuple(read_each(enumerate(value), lambda _, each: self._read_one(each)))

    def _read_one(self, value: Any) -> SignedText:
        return CONDITIONAL.read(value) if isinstance(value, Mapping) else SignedText(self._template.read(value))

    def write(self, value: tuple[SignedText, ...]) -> Any:
        return value[0].text  # the default is one template without conditions

    def json_schema(self) -> JSONSchema:
        template = self._template.json_schema()
        several = {"type": "array", "minItems": 1, "maxItems": MAX_ALTERNATIVES}
        choice = [template, several | {"items": {"anyOf": [template, CONDITIONAL.json_schema()]}}]
        return {"title": "template, or list of templates", "anyOf": choice}
