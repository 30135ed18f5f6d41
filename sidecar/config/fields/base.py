"""The base of every kind of value: its reader, its JSON Schema, and the error for an invalid value."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from sidecar.config.problems import Path
from sidecar.secret import mask_url

T = TypeVar("T")
K = TypeVar("K", str, int)
JSONSchema = dict[str, Any]
#: The place below the value, and the message.
Mistake = tuple[Path, str]


class InvalidValueError(Exception):
    """An invalid value, with all its mistakes."""

    def __init__(self, message: str | Sequence[Mistake], *at: str | int) -> None:
        """One message, at a place below the value or at the value itself; or several mistakes."""
        self.mistakes: list[Mistake] = [(at, message)] if isinstance(message, str) else list(message)
        super().__init__("; ".join(text for _, text in self.mistakes))

    def below(self, step: str | int) -> list[Mistake]:
        """The mistakes as seen from the mapping or list that holds the value at `step`."""
        return [((step, *path), message) for path, message in self.mistakes]


def read_each(items: Iterable[tuple[K, Any]], read: Callable[[K, Any], T]) -> list[T]:
    """The results of `read(key, value)` for the items of a mapping or list. Raises `InvalidValueError` with all mistakes."""
    values: list[T] = []
    mistakes: list[Mistake] = []
    for key, value in items:
        try:
            values.append(read(key, value))
        except InvalidValueError as error:
            mistakes += error.below(key)
    if mistakes:
        raise InvalidValueError(mistakes)
    return values


class ValueType(Generic[T]):
    """A kind of value. It has no state: one object can read any number of values."""

    title: ClassVar[str] = "value"

    def read(self, value: Any) -> T:
        """The value as the program uses it. Raises `InvalidValueError` with the remedy."""
        raise NotImplementedError

    def write(self, value: T) -> Any:
        """The text or number that a file holds for `value`; None if a file would leave the key out. For defaults."""
        return None if value in ("", (), {}) else value

    def json_schema(self) -> JSONSchema:
        """The same grammar as JSON Schema."""
        raise NotImplementedError


class NamedValues(ValueType[dict[str, T]]):
    """A mapping of names to values of one kind, with at least one of them."""

    expected: ClassVar[str]  #: completes "must be a mapping of ..."

    def read(self, value: Any) -> dict[str, T]:
        if not isinstance(value, Mapping) or not value:
            raise InvalidValueError(f"must be a mapping of {self.expected}")
        return dict(zip(value, read_each(value.items(), self.read_one)))

    def read_one(self, name: str, value: Any) -> T:
        """One value as the program uses it. Raises `InvalidValueError` for the name or the value."""
        raise NotImplementedError

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "type": "object", "minProperties": 1}


class Grammar(NamedTuple):
    """The form of a text on one line.

    Both expressions are in the syntax that Python, JSON Schema (ECMA-262) and Helm (RE2) share: no lookaround, and
    characters written out, because `\\d`, `\\s` and `\\w` differ between them.
    """

    pattern: str  #: the whole text
    excluded: str = ""  #: matches no part of the text

    def match(self, value: Any) -> re.Match[str] | None:
        if not isinstance(value, str) or "\n" in value or (self.excluded and re.search(self.excluded, value)):
            return None
        return re.fullmatch(self.pattern, value)

    def json_schema(self) -> JSONSchema:
        # Python's `$` also matches before a final newline, so newlines are excluded explicitly.
        excluded = rf"\n|{self.excluded}" if self.excluded else r"\n"
        return {"type": "string", "pattern": f"^(?:{self.pattern})$", "not": {"type": "string", "pattern": excluded}}


def quote(value: Any) -> str:
    """A configured value as an error message shows it: quoted, not longer than 60 characters, and URLs without credentials."""
    text = value if isinstance(value, str) else str(value)
    if "://" in text:
        text = mask_url(text)
    return repr(text if len(text) <= 60 else text[:57] + "...")
