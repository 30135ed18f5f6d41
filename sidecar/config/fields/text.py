"""The kinds of value a configuration holds: each knows how to read itself, what to say when it can't, and its JSON Schema."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

from marshmallow import ValidationError, fields

from sidecar.verify.template import HEADER_NAME, JSON_PATH

JSONSchema = dict[str, Any]

_MESSAGES: dict[str, str | list[Any] | dict[Any, Any]] = {
    "required": "is required",
    "null": "has no value; give it one or remove the key",
    "invalid": "is not valid",
    "type": "must be a mapping (key: value)",
}
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Value(fields.Field[Any]):
    """A leaf: `read` returns the value or raises `ValidationError` with a sentence that names the remedy."""

    default_error_messages = _MESSAGES
    schema: ClassVar[JSONSchema] = {}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return self.read(value)

    def read(self, value: Any) -> Any:
        raise NotImplementedError

    def write(self, value: Any) -> Any:
        """What stands in a file for a value that was read; for defaults."""
        return value

    def json_schema(self) -> JSONSchema:
        return dict(self.schema)


def shown(value: Any) -> str:
    """A configured value as it may stand in an error: short, quoted."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


class Text(Value):
    schema: ClassVar[JSONSchema] = {"title": "text", "type": "string"}

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError(f'must be text; write it in quotes: "{value}"')
        return value


class NonEmpty(Text):
    schema: ClassVar[JSONSchema] = {"title": "text", "type": "string", "minLength": 1}

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not text.strip():
            raise ValidationError("is empty; give it a value or remove the key")
        return text


class Label(Text):
    """A name that becomes a metric label and a header value."""

    schema: ClassVar[JSONSchema] = {"title": "name", "type": "string", "pattern": f"^{_LABEL.pattern}$"}

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not _LABEL.fullmatch(text):
            raise ValidationError(f"{shown(text)} is not a name; use up to 63 letters, digits, '.', '_' and '-'")
        return text


class HeaderName(Text):
    schema: ClassVar[JSONSchema] = {
        "title": "header name",
        "type": "string",
        "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
    }

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not HEADER_NAME.fullmatch(text):
            raise ValidationError(f"{shown(text)} is not a header name; for example X-Signature")
        return text


class SignatureHeader(HeaderName):
    """A header's name; a final `{n}` stands for 1, 2, 3 ..."""

    schema: ClassVar[JSONSchema] = {
        "title": "header name",
        "type": "string",
        "pattern": r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+(\{n\})?$",
    }

    def read(self, value: Any) -> str:
        text = Text.read(self, value)
        return super().read(text.removesuffix("{n}")) + "{n}" * text.endswith("{n}")


class HeaderValues(Value):
    """Header names and the value that each must have."""

    schema: ClassVar[JSONSchema] = {
        "title": "header names and values",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": "string"},
    }

    def read(self, value: Any) -> dict[str, str]:
        if not isinstance(value, Mapping) or not value:
            raise ValidationError("must be a mapping of header names to values; for example {X-Version: '1'}")
        problems: dict[str, list[str]] = {}
        for name, text in value.items():
            try:
                HeaderName().read(name)
                if not NonEmpty().read(text).isascii() or not text.isprintable():
                    raise ValidationError(f"{shown(text)} is no header's value; use visible ASCII characters")
            except ValidationError as error:
                problems[name] = list(error.messages)
        if problems:
            raise ValidationError(problems)
        return dict(value)


class Scalars(Value):
    """Names, and a text or whole number for each."""

    schema: ClassVar[JSONSchema] = {
        "title": "names and values",
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": ["string", "integer"]},
    }

    def read(self, value: Any) -> dict[str, str | int]:
        if not isinstance(value, Mapping) or not value:
            raise ValidationError("must be a mapping of names to values; for example {type: url_verification}")
        problems = {
            name: ["must be text or a whole number"]
            for name, item in value.items()
            if not isinstance(item, str | int) or isinstance(item, bool)
        }
        if problems:
            raise ValidationError(problems)
        return dict(value)


class Pattern(NonEmpty):
    """A regular expression."""

    schema: ClassVar[JSONSchema] = NonEmpty.schema | {"title": "regular expression", "format": "regex"}

    def read(self, value: Any) -> str:
        text = super().read(value)
        try:
            re.compile(text)
        except re.error as error:
            raise ValidationError(f"{shown(text)} is not a regular expression: {error}") from None
        return text


class JsonPath(Text):
    """Where in a JSON document: `a.b`, with `a[]` for each element of a list."""

    schema: ClassVar[JSONSchema] = {"title": "place in JSON", "type": "string", "pattern": f"^{JSON_PATH.pattern}$"}

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not JSON_PATH.fullmatch(text):
            raise ValidationError(f"{shown(text)} is not a place in a JSON document; for example signature.timestamp")
        return text


class Flag(Value):
    schema: ClassVar[JSONSchema] = {"title": "true or false", "type": "boolean"}

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValidationError(f"{shown(value)} is neither true nor false")
        return value


class OnlyTrue(Flag):
    """A key that is there or not."""

    schema: ClassVar[JSONSchema] = {"title": "true", "const": True}

    def read(self, value: Any) -> bool:
        if value is not True:
            raise ValidationError(f"{shown(value)} is not true; remove the key instead")
        return True


class Separator(Text):
    """One to four characters that end an item of a list."""

    schema: ClassVar[JSONSchema] = {"title": "text", "type": "string", "minLength": 1, "maxLength": 4}

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not 1 <= len(text) <= 4 or not text.isascii():
            raise ValidationError(f"{shown(text)} is not one to four separators; for example ','")
        return text


class Choice(Value):
    """One word of an enumeration."""

    def __init__(self, kind: type[StrEnum], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind = kind

    def read(self, value: Any) -> StrEnum:
        try:
            return self.kind(value)
        except ValueError:
            raise ValidationError(f"{shown(value)} is not one of {', '.join(self.kind)}") from None

    def json_schema(self) -> JSONSchema:
        return {"title": "one of", "type": "string", "enum": [str(word) for word in self.kind]}

    def write(self, value: Any) -> str:
        return str(value)


class RoutePath(Value):
    schema: ClassVar[JSONSchema] = {"title": "path", "type": "string", "pattern": r"^/[!\"$-)+->@-~]*\*?$"}

    def read(self, value: Any) -> str:
        text = str(value)
        if not re.fullmatch(r"/[!\"$-)+->@-~]*(?<=/)\*|/[!\"$-)+->@-~]*", text):
            raise ValidationError(
                f"{shown(text)} is not a path: begin with '/', escape as a URL does, no query; a final '/*' takes all below"
            )
        if re.search(r"(^|/)\.{1,2}(/|$)|//", text):
            raise ValidationError(f"{shown(text)} has empty or dot segments; write the path as senders call it")
        return text


class Method(Value):
    schema: ClassVar[JSONSchema] = {"title": "method", "type": "string", "pattern": "^[A-Z-]+$"}

    def read(self, value: Any) -> str:
        if not re.fullmatch(r"[A-Z][A-Z-]{0,31}", str(value)) or value == "CONNECT":
            raise ValidationError(f"{shown(value)} is not a method; for example POST (upper case)")
        return str(value)
