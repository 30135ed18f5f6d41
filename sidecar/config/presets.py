"""Presets by name, and what `verify:` can hold."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from marshmallow import ValidationError

from sidecar import SHIPPED
from sidecar.config.fields.mapping import alike, json_schema_of
from sidecar.config.fields.text import JSONSchema, Value, shown
from sidecar.config.files import read_file
from sidecar.config.problems import ConfigError, Problem
from sidecar.config.scheme_keys import SchemeKeys, scheme_from
from sidecar.config.yaml_source import MAX_BYTES, read_yaml, report_messages
from sidecar.verify.scheme import Scheme


def load_scheme(file: str) -> Scheme:
    """A scheme from a file of its own, in the form of `verify:`. Raises `ConfigError` with every mistake."""
    try:
        source = read_yaml(read_file(file, MAX_BYTES + 1), file)
    except OSError as error:
        raise ConfigError([Problem(file, 1, "", f"can't be read: {error.strerror}")]) from None
    if not source.problems:
        try:
            if isinstance(source.value, dict) and (scheme := Verify().read(source.value)) is not None:
                return scheme
            source.problem((), "holds no scheme; begin with signature: {header: ...}")
        except ValidationError as error:
            report_messages(source, error.messages, ())
    raise ConfigError(source.problems)


@cache
def preset_names() -> tuple[str, ...]:
    """Names of the presets in the package, sorted."""
    return tuple(sorted(file.stem for file in (SHIPPED / "presets").glob("*.yaml")))


@cache
def load_preset(name: str) -> Scheme:
    """The preset `name`, read like a user's own scheme. Raises `KeyError` for an unknown name."""
    return scheme_from(SchemeKeys().load(_preset_values(name)), name)


def _preset_values(name: str) -> dict[str, Any]:
    if name not in preset_names():
        raise KeyError(name)
    source = read_yaml((SHIPPED / "presets" / f"{name}.yaml").read_bytes(), f"presets/{name}.yaml")
    if source.problems:
        raise ValueError(str(source.problems[0]))
    values: dict[str, Any] = source.value
    return values


#: Where a signature or a timestamp stands: a scheme that changes the place of a preset's replaces all of it.
_PLACES = ("header", "field", "tag", "first")


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, section by section."""
    if any(key in changes for key in _PLACES):
        base = {key: value for key, value in base.items() if key not in _PLACES}
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        nested = key in ("signature", "timestamp") and isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = _merged(below, value) if nested and below is not None else value
    return merged


Loaded = TypeVar("Loaded")


class Verify(Value):
    """A preset's name, `none`, a scheme of one's own, or `preset: NAME` and what differs from it.

    Read to a `Scheme`, or to None for `none`.
    """

    def read(self, value: Any) -> Scheme | None:
        if isinstance(value, Mapping) and "preset" in value:
            changes = {key: item for key, item in value.items() if key != "preset"}
            name = value["preset"]
            return scheme_from(SchemeKeys().load(_merged(self._named(name, _preset_values), changes)), name)
        if isinstance(value, Mapping):
            return scheme_from(SchemeKeys().load(value))
        if value == "none":
            return None
        return self._named(value, load_preset)

    def _named(self, value: Any, load: Callable[[str], Loaded]) -> Loaded:
        if not isinstance(value, str):
            raise ValidationError("must be a preset's name, a scheme, or none")
        try:
            return load(value)
        except KeyError:
            close = alike(value, preset_names())
            hint = (
                f"did you mean '{close[0]}'?"
                if close
                else "`sidecar presets` lists them; or write the scheme out: signature: {header: ...}"
            )
            raise ValidationError(f"{shown(value)} is not a preset; {hint}") from None

    def json_schema(self) -> JSONSchema:
        scheme = json_schema_of(SchemeKeys())
        preset = {
            "preset": {
                "title": "preset",
                "enum": list(preset_names()),
                "description": "a preset that the other keys differ from; then none of them is required",
                "examples": ["stripe"],
            }
        }
        changes = {key: {k: v for k, v in value.items() if k != "oneOf"} for key, value in scheme["properties"].items()}
        changed = scheme | {"properties": preset | changes, "required": ["preset"]}
        return {"title": "preset, scheme or none", "anyOf": [{"enum": ["none", *preset_names()]}, scheme, changed]}
