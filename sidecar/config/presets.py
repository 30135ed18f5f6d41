"""Presets by name, and the values of `verify:`."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any, TypeVar

from sidecar.config.combination import NO_SCHEME, Combination, combination_section, is_combination
from sidecar.config.fields.base import InvalidValueError, JSONSchema, ValueType, quote
from sidecar.config.fields.mapping import find_close
from sidecar.config.fields.reference import SecretReference
from sidecar.config.files import read_file
from sidecar.config.preset_settings import SettingForm, SettingValue, check_own_scheme, fill_settings, required_settings
from sidecar.config.problems import ConfigError, Problem
from sidecar.config.scheme_keys import SCHEME
from sidecar.config.yaml_source import MAX_YAML_BYTES, read_shipped, read_yaml, shipped_names
from sidecar.verify.scheme import Scheme

#: The preset that `sign:` uses by default.
DEFAULT_SIGNING = "standard-webhooks"


def load_scheme(file: str) -> Scheme:
    """A scheme from its own file, in the form of `verify:`. Raises `ConfigError` with every mistake."""
    try:
        source = read_yaml(read_file(file, MAX_YAML_BYTES + 1), file)
    except OSError as error:
        raise ConfigError(
            [Problem(file, 1, "", f"can't be read: {error.strerror}; check its path and permissions")]
        ) from None
    if isinstance(source.value, dict) and "routes" in source.value:
        source.problem((), "is a whole configuration, not a scheme; use it with --config")
    if not source.problems:
        try:
            if isinstance(source.value, dict) and isinstance(scheme := Verify().read(source.value), Scheme):
                return scheme
            source.problem((), "holds no scheme; begin with signature: {header: ...}")
        except InvalidValueError as error:
            for path, message in error.mistakes:
                source.problem(path, message)
    raise ConfigError(source.problems)


@cache
def preset_names() -> tuple[str, ...]:
    """Names of the presets in the package, sorted."""
    return shipped_names("presets")


@cache
def preset_aliases() -> Mapping[str, str]:
    """Names that aren't presets, each with the preset that it leads to. Reads every preset: for errors only."""
    return {alias: name for name in preset_names() for alias in load_preset(name).aliases}


@cache
def load_preset(name: str) -> Scheme:
    """The preset `name`, read like a user's custom scheme. Raises `KeyError` for an unknown name.

    Settings without a default have the value of their example: such a scheme can be described, and verifies nothing.
    """
    return replace(SCHEME.read(fill_settings(read_preset(name), {}, examples=True)), name=name)


@cache
def read_preset(name: str) -> dict[str, Any]:
    """The keys of the preset `name`: shared, never changed. Raises `KeyError` for an unknown name.

    A file with `preset: OTHER` is that preset with the changes in the file: a provider's sandbox differs in a few words.
    """
    values: dict[str, Any] = read_shipped("presets", name, preset_names())
    if not is_derived(values):
        return values
    base = {key: value for key, value in read_preset(values["preset"]).items() if key != "aliases"}
    return _derive(base, {key: value for key, value in values.items() if key != "preset"})


def is_derived(values: Mapping[str, Any]) -> bool:
    """Whether a preset's file holds changes of another preset."""
    return "preset" in values


def _derive(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`: mappings key by key, everything else replaced."""
    made = dict(base)
    for key, value in changes.items():
        below = made.get(key)
        made[key] = _derive(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return made


#: The place of a signature or a timestamp: a scheme that changes it replaces all of these keys of the preset.
_PLACES = ("header", "field", "form", "query", "path", "tag", "first", "body", "each", "claim", "parameter")
#: Sections of a preset that are changed key by key. Others are replaced.
_MERGED = ("signature", "timestamp", "claims")


def apply_changes(preset: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a preset with those of `{preset: NAME, ...}`: its settings, then changes. Raises `InvalidValueError`."""
    declared = preset.get("settings", {})
    _check_names(value, declared)
    filled = fill_settings(preset, {key: item for key, item in value.items() if key in declared})
    return _merge(filled, {key: item for key, item in value.items() if key != "preset" and key not in declared})


def _check_names(value: Mapping[str, Any], declared: Mapping[str, Any]) -> None:
    """Raises `InvalidValueError` for a key that is neither of a scheme nor one of the preset's settings."""
    known = {"preset": None, **declared, **SCHEME.keys}
    for name in value:
        close = find_close(name, declared) if name not in known else None
        if close is not None:
            raise InvalidValueError(f"unknown key; did you mean the setting '{close}'?", name)
        if declared and name not in known:
            raise InvalidValueError(f"unknown key; the settings of {value['preset']} are {', '.join(declared)}", name)


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`, section by section."""
    if any(key in changes for key in _PLACES):
        base = {key: value for key, value in base.items() if key not in _PLACES}
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        if key in _MERGED and isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _merge(below, value)
        elif key == "claims" and isinstance(below, list) and isinstance(value, Mapping):
            merged[key] = [{**each, **value} for each in below]  # they hold whatever is chosen
        else:
            merged[key] = value
    return merged


Loaded = TypeVar("Loaded")


class OneScheme(ValueType[Scheme | str]):
    """The name of a preset, `none`, a custom scheme, or `preset: NAME` with changes.

    Read as a `Scheme`, or as the text `none`.
    """

    title = "preset, scheme or none"

    def read(self, value: Any) -> Scheme | str:
        if isinstance(value, Mapping) and "preset" in value:
            name = value["preset"]
            return replace(SCHEME.read(apply_changes(self._load(name, read_preset), value)), name=name)
        if isinstance(value, Mapping):
            check_own_scheme(value)
            for key, item in value.items():
                if key not in SCHEME.keys and isinstance(item, str) and item in preset_names():
                    raise InvalidValueError("unknown key; did you mean 'preset'?", key)
            return SCHEME.read(value)
        if value == NO_SCHEME:
            return NO_SCHEME
        preset = self._load(value, load_preset)
        if preset.settings:
            return replace(SCHEME.read(apply_changes(read_preset(value), {})), name=value)
        return preset

    def _load(self, name: Any, load: Callable[[str], Loaded]) -> Loaded:
        if not isinstance(name, str):
            raise InvalidValueError("must be the name of a preset, a scheme, or none; for example github")
        try:
            return load(name)
        except KeyError:
            raise InvalidValueError(f"{quote(name)} is not a preset; {_remedy(name)}") from None

    def json_schema(self) -> JSONSchema:
        scheme = SCHEME.json_schema()
        presets = {name: read_preset(name) for name in preset_names()}
        settings = {name: preset["settings"] for name, preset in presets.items() if "settings" in preset}
        names = [name for name, preset in presets.items() if not required_settings(preset)]
        preset = {
            "preset": {
                "title": "preset",
                "enum": list(presets),
                "description": "the preset that the other keys modify; with it, only its settings are required",
                "examples": ["stripe"],
            }
        }
        changes = {
            key: _partial(section) if key in _MERGED else section for key, section in scheme["properties"].items()
        }
        # A setting is a key of the presets that declare it, and of no other.
        others = {name: list(settings) for name in sorted({name for each in settings.values() for name in each})}
        for name, declaring in others.items():
            declaring[:] = [each for each in declaring if name in settings[each]]
        of_settings = [
            {"if": {"required": [name]}, "then": {"properties": {"preset": {"enum": declaring}}}}
            for name, declaring in others.items()
        ]
        of_settings += [
            {
                "if": {"properties": {"preset": {"const": name}}},
                "then": {
                    "required": required_settings(presets[name]),
                    "properties": {key: SettingValue(setting).json_schema() for key, setting in declared.items()},
                },
            }
            for name, declared in settings.items()
        ]
        described = {
            name: {
                "title": "setting",
                "type": ["string", "integer", "boolean", "array"],
                "items": {"title": "setting", "type": ["string", "integer"]},
                "description": f"a setting of {', '.join(declaring)}",
                "examples": [settings[declaring[0]][name]["example"]],
            }
            for name, declaring in others.items()
        }
        for name, declaring in others.items():
            if settings[declaring[0]][name].get("form") == SettingForm.SECRET:
                described[name] = SecretReference().json_schema() | {"description": described[name]["description"]}
        changed = scheme | {
            "properties": preset | described | changes,
            "required": ["preset"],
            "allOf": of_settings,
        }
        return {"title": self.title, "anyOf": [{"enum": [NO_SCHEME, *names]}, scheme, changed]}


class Verify(ValueType[Scheme | Combination | str]):
    """One scheme, or several under `any_of` or `all_of`."""

    title = OneScheme.title
    one = OneScheme()
    several = combination_section(one)

    def read(self, value: Any) -> Scheme | Combination | str:
        if isinstance(value, list):
            raise InvalidValueError("must be one scheme; for several write {any_of: [...]} or {all_of: [...]}")
        return self.several.read(value) if is_combination(value) else self.one.read(value)

    def json_schema(self) -> JSONSchema:
        named, scheme, changed = self.one.json_schema()["anyOf"]
        return {"title": self.title, "anyOf": [named, scheme, self.several.json_schema(), changed]}


class SigningScheme(ValueType[Scheme | None]):
    """The scheme of `sign:`, in the form of `verify:`. None means the default, Standard Webhooks."""

    title = "preset or scheme"

    def read(self, value: Any) -> Scheme | None:
        if value == DEFAULT_SIGNING:
            return None
        scheme = OneScheme().read(value)
        if not isinstance(scheme, Scheme):
            raise InvalidValueError(
                f"{quote(value)} is not a scheme; use a preset such as github, or write out a scheme"
            )
        return scheme

    def json_schema(self) -> JSONSchema:
        schemes = [each for each in OneScheme().json_schema()["anyOf"] if "signature" in each.get("properties", ())]
        names = [name for name in preset_names() if not required_settings(read_preset(name))]
        return {"title": self.title, "anyOf": [{"enum": names}, *schemes]}


def _remedy(name: str) -> str:
    """The remedy for an unknown name."""
    if alias := preset_aliases().get(name.lower()):
        return f"use {alias}"
    if close := find_close(name, preset_names()):
        return f"did you mean '{close}'?"
    return "run `sidecar presets` for the list, or write out a scheme: signature: {header: ...}"


def _partial(section: JSONSchema) -> JSONSchema:
    """A section of changes: at most one of the keys of which the whole section needs exactly one."""
    if "oneOf" not in section:
        return section
    pairs = [{"required": [*one["required"], *other["required"]]} for one, other in combinations(section["oneOf"], 2)]
    return {key: value for key, value in section.items() if key not in ("oneOf", "required")} | {
        "not": {"anyOf": pairs}
    }
