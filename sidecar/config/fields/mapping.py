"""Sections and lists, which hold other values.

A section is declared by the class it becomes and its keys:

    Section(Timeouts, {"connect": Key(Duration(), "until the receiver accepts a connection"), ...})

The class is the source of each key's default: a field without one is a required key. The declaration adds how the key is
written and what it is about. From both come reading, the JSON Schema and the documentation.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import yaml

from sidecar.config.fields.base import InvalidValueError, JSONSchema, Mistake, ValueType, read_each

T = TypeVar("T")
S = TypeVar("S")
#: The default of a key that has none.
MISSING: Any = object()
#: How similar a misspelled name must be to a known one, from 0 to 1 (`difflib`). `audience` and `evidence` have 0.63.
_SIMILAR = 0.7
#: A mapping with more keys is not described by listing them.
_FEW = 8


class Key(NamedTuple):
    """One key of a section."""

    type: ValueType[Any]
    about: str
    examples: list[Any] = []  # noqa: RUF012 - never changed
    required: bool = False  #: for a key whose field has a default that no file can hold
    default: Any = MISSING  #: for a key that isn't a field


def _explain_required(name: str, key: Key) -> str:
    """The message for a missing key, with an example to copy if it has a short one."""
    example = (
        yaml.safe_dump({name: key.examples[0]}, default_flow_style=True, width=1000).strip()[1:-1]
        if key.examples
        else ""
    )
    return f"is required; add it, for example `{example}`" if 0 < len(example) <= 100 else "is required; add it"


class UnknownKeyMessage(str):
    """The message for a key that its section doesn't have; `places.py` adds the sections that have it."""

    guess: str | None  #: a key of the section that was probably meant

    def __new__(cls, known: Iterable[str], guess: str | None) -> "UnknownKeyMessage":
        more = f"did you mean '{guess}'?" if guess else f"known keys are {', '.join(known)}"
        message = super().__new__(cls, f"unknown key; {more}")
        message.guess = guess
        return message


class Section(ValueType[T], Generic[T]):
    """A mapping of known keys."""

    title = "keys"

    def __init__(
        self,
        made: type[T] | None,
        keys: Mapping[str, Key],
        *,
        one_of: tuple[str, ...] = (),
        example: str = "",
        make: Callable[[dict[str, Any]], T] | None = None,
        check: Callable[[T], None] | None = None,
    ) -> None:
        """`made` is the dataclass whose defaults hold; None if the section has no defaults.

        `one_of` are keys of which exactly one must be there, and `example` shows such a section.
        `make` builds the value from the keys that are given, if `made(**keys)` does not. `check` raises
        `InvalidValueError` for keys that contradict each other.
        """
        defaults = _defaults_of(made) if made is not None else {}
        self.keys = {
            name: key._replace(
                default=defaults.get(name, MISSING) if key.default is MISSING else key.default,
                required=key.required or (name in defaults and defaults[name] is MISSING),
            )
            for name, key in keys.items()
        }
        if made is not None and make is None and (unknown := keys.keys() - defaults.keys()):
            raise TypeError(f"{made.__name__} has no field for {', '.join(sorted(unknown))}")
        self.one_of = one_of
        self._example = example
        self._make = make if make is not None or made is None else lambda given: made(**given)
        self._check = check

    def read(self, value: Any) -> T:
        given, mistakes = self.read_keys(value)
        if mistakes:
            raise InvalidValueError(mistakes)
        made = self._make(given) if self._make is not None else given
        if self._check is not None:
            self._check(made)  # type: ignore[arg-type]
        return made  # type: ignore[return-value]

    def read_valid(self, value: Any) -> tuple[T, list[Mistake]]:
        """The object made of the valid keys, and the mistakes in the others. For a class with a default for every field."""
        given, mistakes = self.read_keys(value)
        assert self._make is not None
        return self._make(given), mistakes

    def read_keys(self, value: Any) -> tuple[dict[str, Any], list[Mistake]]:
        """The valid keys that are given, and every mistake: each key by itself, without checks of several keys."""
        if not isinstance(value, Mapping):
            return {}, [((), f"must be a mapping; write `key: value`{self._name_keys()}")]
        given: dict[str, Any] = {}
        mistakes: list[Mistake] = [((name,), self.explain_unknown(name)) for name in value if name not in self.keys]
        for name, key in self.keys.items():
            if name not in value:
                if key.required:
                    mistakes.append(((name,), _explain_required(name, key)))
                continue
            try:
                given[name] = read_present(key.type, value[name])
            except InvalidValueError as error:
                mistakes += error.below(name)
        if self.one_of and sum(name in value for name in self.one_of) != 1:
            *others, last = self.one_of
            mistakes.append(((), f"needs exactly one of {', '.join(others)} and {last}; for example {self._example}"))
        return given, mistakes

    def _name_keys(self) -> str:
        """The end of a sentence that names the keys, if they are few."""
        if len(self.keys) > _FEW:
            return ""
        return f" with {'the key' if len(self.keys) == 1 else 'the keys'} {', '.join(self.keys)}"

    def explain_unknown(self, name: str) -> str:
        return UnknownKeyMessage(self.keys, find_close(name, self.keys))

    def write(self, value: T) -> Any:
        return None  # a section's default is what its keys' defaults say

    def json_schema(self) -> JSONSchema:
        schema: JSONSchema = {
            "type": "object",
            "properties": {name: _key_schema(key) for name, key in self.keys.items()},
            "additionalProperties": False,
        }
        if self.one_of:
            schema["oneOf"] = [{"required": [name]} for name in self.one_of]
        if required := [name for name, key in self.keys.items() if key.required]:
            schema["required"] = required
        return schema


class Items(ValueType[tuple[T, ...]]):
    """A list of at least one item. An empty list is a mistake, because it could be mistaken for an absent key."""

    def __init__(self, item: ValueType[T], most: int | None = None) -> None:
        self.item = item
        self.most = most

    def read(self, value: Any) -> tuple[T, ...]:
        if not isinstance(value, list):
            remedy = "begin each item with `- `" if isinstance(value, Mapping) else "write [a, b]"
            raise InvalidValueError(f"must be a list; {remedy}")
        if not value:
            raise InvalidValueError("is an empty list; add an item or remove the key")
        if self.most is not None and len(value) > self.most:
            raise InvalidValueError(f"has {len(value)} items; use at most {self.most}")
        return tuple(read_each(enumerate(value), lambda _, each: read_present(self.item, each)))

    def json_schema(self) -> JSONSchema:
        most = {"maxItems": self.most} if self.most is not None else {}
        return {"type": "array", "minItems": 1} | most | {"items": self.item.json_schema()}


class OneOrMore(Items[T]):
    """A list, or a single item without one."""

    def read(self, value: Any) -> tuple[T, ...]:
        return super().read(value) if isinstance(value, list) else (self.item.read(value),)

    def json_schema(self) -> JSONSchema:
        return {"anyOf": [self.item.json_schema(), super().json_schema()]}


class ShortOrSection(ValueType[T]):
    """A mapping of keys, or a short form for its most common one."""

    def __init__(self, title: str, short: ValueType[S], section: Section[T], make: Callable[[S], T]) -> None:
        """`make` makes the section's value of the short form's."""
        self.title = title  # type: ignore[misc]
        self.short = short
        self.section = section
        self._make = make

    def read(self, value: Any) -> T:
        if isinstance(value, Mapping):
            return self.section.read(value)
        return self._make(self.short.read(value))

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "anyOf": [self.short.json_schema(), self.section.json_schema()]}


def read_present(type_: ValueType[T], value: Any) -> T:
    """Reads a value that is written in the file, where `key:` without a value is a mistake."""
    if value is None:
        raise InvalidValueError("has no value; set one or remove the key")
    return type_.read(value)


def find_close(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that was probably meant, if there is one."""
    import difflib  # noqa: PLC0415 - memory that a valid configuration does without

    return next(iter(difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=_SIMILAR)), None)


def _key_schema(key: Key) -> JSONSchema:
    schema = key.type.json_schema() | {"description": key.about}
    if key.examples:
        schema["examples"] = key.examples
    if key.default is not MISSING and key.default is not None and (default := key.type.write(key.default)) is not None:
        schema["default"] = default
    return schema


def _defaults_of(made: type) -> dict[str, Any]:
    return {
        field.name: field.default
        if field.default is not dataclasses.MISSING
        else MISSING
        if field.default_factory is dataclasses.MISSING
        else field.default_factory()
        for field in dataclasses.fields(made)
    }
