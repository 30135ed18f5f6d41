"""Texts, names, words and flags."""

import re
import warnings
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

from sidecar.config.fields.base import Grammar, InvalidValueError, JSONSchema, NamedValues, ValueType, quote
from sidecar.config.fields.number import whole_number
from sidecar.verify.template import HEADER_NAME, JSON_PATH

Word = TypeVar("Word", bound=StrEnum)

#: A visible character. Text without one looks empty.
_VISIBLE = r"[^ \t\r\n]"


class Text(ValueType[str]):
    """Any text."""

    title = "text"

    def read(self, value: Any) -> str:
        if not isinstance(value, str):
            if isinstance(value, (list, Mapping)):
                raise InvalidValueError("must be one text; write it without brackets, on the line of its key")
            raise InvalidValueError(f'must be text; quote it: "{value}"')
        return value

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "type": "string"}


class NonEmpty(Text):
    """Text with at least one visible character."""

    def read(self, value: Any) -> str:
        text = super().read(value)
        if not re.search(_VISIBLE, text):
            raise InvalidValueError("is empty; set a value or remove the key")
        return text

    def json_schema(self) -> JSONSchema:
        return super().json_schema() | {"pattern": _VISIBLE}


class PatternText(Text):
    """Text with a grammar."""

    grammar: ClassVar[Grammar]
    expected: ClassVar[str]  #: completes "'...' is not ..."

    def read(self, value: Any) -> str:
        text = super().read(value)
        if self.grammar.match(text) is None:
            raise InvalidValueError(f"{quote(text)} is not {self.expected}")
        return text

    def json_schema(self) -> JSONSchema:
        return {"title": self.title} | self.grammar.json_schema()


class Label(PatternText):
    """A name that becomes a metric label and a header value."""

    title = "name"
    grammar = Grammar("[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
    expected = "a valid name; use up to 63 letters, digits, '.', '_' and '-', and begin with a letter or digit"


class HeaderName(PatternText):
    title = "header name"
    grammar = Grammar(HEADER_NAME.pattern)
    expected = "a valid header name; use one such as X-Signature"


class SignatureHeader(HeaderName):
    """A header name. A final `{n}` means 1, 2, 3 and so on."""

    grammar = Grammar(HEADER_NAME.pattern + r"(\{n\})?")


class JsonPath(PatternText):
    """A place in a JSON document: `a.b`, with `a[]` for each element of a list."""

    title = "place in JSON"
    grammar = Grammar(JSON_PATH.pattern)
    expected = "a valid place in a JSON document; use one such as signature.timestamp"


class Separator(PatternText):
    """Characters that each end an item of a list."""

    grammar = Grammar("[ -~]{1,4}")
    expected = "a valid separator; use one to four ASCII characters, for example ','"


class RoutePath(PatternText):
    title = "path"
    grammar = Grammar(
        r"""/[!"$-)+->@-~]*|/([!"$-)+->@-~]*/)?\*""",
        excluded=r"(^|/)\.{1,2}(/|$)|//",
    )

    def read(self, value: Any) -> str:
        text = str(value)
        if self.grammar.match(text) is not None:
            return text
        if Grammar(self.grammar.pattern).match(text) is not None:
            raise InvalidValueError(f"{quote(text)} has empty or dot segments; write the path as senders call it")
        raise InvalidValueError(
            f"{quote(text)} is not a valid path; begin with '/', escape as in a URL, leave out the query, "
            "and use '*' only at the end, after '/'"
        )


class Fingerprint(PatternText):
    """The SHA-256 of a certificate, in hex; colons between the bytes and upper case are allowed."""

    title = "fingerprint"
    grammar = Grammar("([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}")
    expected = "a valid fingerprint; use the 64 hex digits of: openssl x509 -noout -fingerprint -sha256 -in FILE"

    def read(self, value: Any) -> str:
        return super().read(value).replace(":", "").lower()


class TenantFileName(PatternText):
    """The name of a tenant's file; it contains `{tenant}`."""

    title = "file name"
    grammar = Grammar(r"([A-Za-z0-9_-][A-Za-z0-9._-]{0,63})?[{]tenant[}][A-Za-z0-9._-]{0,64}", excluded=r"[.]previous$")
    expected = "a valid file name; use {tenant} once, with letters, digits, '.', '_' and '-' around it"


class PathPrefix(PatternText):
    """Nothing, or a path without a final slash."""

    title = "path"
    grammar = Grammar(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
    expected = "a valid prefix; begin with '/' and end without one, for example /authorize"

    def read(self, value: Any) -> str:
        return super().read(str(value))


class Method(PatternText):
    title = "method"
    grammar = Grammar("[A-Z][A-Z-]{0,31}", excluded="^CONNECT$")
    expected = "a valid method; use upper case, for example POST"

    def read(self, value: Any) -> str:
        return super().read(str(value))


class RegularExpression(NonEmpty):
    """A regular expression in Python's syntax."""

    title = "regular expression"

    def read(self, value: Any) -> str:
        text = super().read(value)
        try:
            with warnings.catch_warnings(
                category=FutureWarning, action="ignore"
            ):  # `[[` may mean something else one day
                re.compile(text)
        except re.error as error:
            raise InvalidValueError(f"{quote(text)} is not a valid regular expression; correct it: {error}") from None
        return text

    def json_schema(self) -> JSONSchema:
        return super().json_schema() | {"format": "regex"}


class Flag(ValueType[bool]):
    title = "true or false"

    def read(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise InvalidValueError(f"{quote(value)} is not valid; use true or false")
        return value

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "type": "boolean"}


class OnlyTrue(ValueType[bool]):
    """A flag that is either true or left out."""

    title = "true"

    def read(self, value: Any) -> bool:
        if value is not True:
            raise InvalidValueError(f"{quote(value)} is not valid; use true, or remove the key")
        return True

    def write(self, value: bool) -> Any:
        return True if value else None

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "const": True}


class Choice(ValueType[Word]):
    """One word of an enumeration."""

    title = "one of"

    def __init__(self, words: type[Word]) -> None:
        self.words = words

    def read(self, value: Any) -> Word:
        try:
            return self.words(value)
        except ValueError:
            words = ", ".join(self.words)
            use = f"use one of {words}" if len(self.words) > 1 else f"use {words}"
            raise InvalidValueError(f"{quote(value)} is not valid; {use}") from None

    def write(self, value: Word) -> Any:
        return str(value)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "type": "string", "enum": [str(word) for word in self.words]}


class HeaderValues(NamedValues[str]):
    """Header names, with the value of each."""

    title = "header names and values"
    expected = "header names to values; for example {X-Version: '1'}"
    value_grammar = Grammar("[ -~]*[!-~][ -~]*")

    def read_one(self, name: str, value: Any) -> str:
        HeaderName().read(name)
        text = NonEmpty().read(value)
        if self.value_grammar.match(text) is None:
            raise InvalidValueError(f"{quote(text)} is not a valid header value; use visible ASCII characters")
        return text

    def json_schema(self) -> JSONSchema:
        names, values = HeaderName.grammar.json_schema(), self.value_grammar.json_schema()
        return super().json_schema() | {"propertyNames": names, "additionalProperties": values}


class Scalars(NamedValues[str | int]):
    """Names, with a text or whole number for each."""

    title = "names and values"
    expected = "names to values; for example {type: url_verification}"

    def read_one(self, name: str, value: Any) -> str | int:
        read = value if isinstance(value, str) else whole_number(value)
        if read is None:
            raise InvalidValueError("must be text or a whole number; quote it")
        return read

    def json_schema(self) -> JSONSchema:
        return super().json_schema() | {"additionalProperties": {"type": ["string", "integer"]}}
