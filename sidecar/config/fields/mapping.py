"""Mappings and lists of a configuration, and the JSON Schema of them all."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from marshmallow import EXCLUDE, Schema, ValidationError, fields, missing, validates_schema

from sidecar.config.fields.text import _MESSAGES, JSONSchema, Value


class Keys(Schema):
    """A mapping of known keys; an unknown one is an error that names what was probably meant."""

    error_messages: dict[str, str] = {"type": "must be a mapping (key: value)"}  # noqa: RUF012 - marshmallow's own form
    #: Keys of the public contract that this version does not have yet.
    later: ClassVar[frozenset[str]] = frozenset()
    #: Keys of which exactly one must be there, and an example; for sections where there is no default.
    one_of: ClassVar[tuple[str, ...]] = ()
    example: ClassVar[str] = ""

    class Meta:
        unknown = EXCLUDE  # so that the hook below reports them, with a suggestion

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def refuse_unknown_keys(self, data: Any, original: Any, **kwargs: Any) -> None:
        if not isinstance(original, Mapping):
            return
        known = [item.data_key or name for name, item in self.fields.items()]
        problems = {key: [self._unknown(key, known)] for key in original if key not in known}
        if problems:
            raise ValidationError(problems)

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def refuse_another_number(self, data: Any, original: Any, **kwargs: Any) -> None:
        if self.one_of and isinstance(original, Mapping) and sum(key in original for key in self.one_of) != 1:
            *some, last = self.one_of
            raise ValidationError(f"needs exactly one of {', '.join(some)} and {last}; for example {self.example}")

    def _unknown(self, key: str, known: list[str]) -> str:
        if key in self.later:
            return "is not available in this version; remove it"
        close = alike(key, known)
        return (
            f"unknown key; did you mean '{close[0]}'?" if close else f"unknown key; known keys are {', '.join(known)}"
        )


def alike(word: str, known: Iterable[str]) -> list[str]:
    """The one of `known` that was probably meant, if there is one."""
    import difflib  # noqa: PLC0415 - memory that a right configuration does without

    return difflib.get_close_matches(word, list(known), n=1)


class Section(fields.Nested):
    """A mapping with its own schema."""

    default_error_messages = _MESSAGES


class Items(fields.List[Any]):
    """A list; empty is a mistake, because absent and empty must never mean the same."""

    default_error_messages = _MESSAGES | {"invalid": "must be a list: [a, b]"}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if value == []:
            raise ValidationError("is an empty list; remove the key, or list what it should hold")
        return super()._deserialize(value, attr, data, **kwargs)


class OneOrMore(Items):
    """A list, or its only item as it is."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if isinstance(value, list):
            return super()._deserialize(value, attr, data, **kwargs)
        return [self.inner.deserialize(value, attr, data, **kwargs)]


def json_schema_of(schema: Schema) -> JSONSchema:
    """JSON Schema (2020-12) of a marshmallow schema made of the fields above."""
    properties = {}
    for name, item in schema.fields.items():
        properties[item.data_key or name] = _field_schema(item)
    required = [item.data_key or name for name, item in schema.fields.items() if item.required]
    result: JSONSchema = {"type": "object", "properties": properties, "additionalProperties": False}
    if one_of := getattr(schema, "one_of", ()):
        result["oneOf"] = [{"required": [name]} for name in one_of]
    return result | ({"required": required} if required else {})


def _field_schema(item: fields.Field[Any]) -> JSONSchema:
    if isinstance(item, fields.Nested):
        made = json_schema_of(item.schema)
    elif isinstance(item, fields.List):
        one = _field_schema(item.inner)
        made = {"type": "array", "minItems": 1, "items": one}
        if isinstance(item, OneOrMore):
            made = {"anyOf": [one, made]}
    else:
        assert isinstance(item, Value)
        made = item.json_schema()
    if "about" in item.metadata:
        made["description"] = item.metadata["about"]
    if "examples" in item.metadata:
        made["examples"] = item.metadata["examples"]
    if isinstance(item, Value) and item.load_default is not missing:
        made["default"] = item.write(item.load_default)
    return made
