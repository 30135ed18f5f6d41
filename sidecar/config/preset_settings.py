"""Settings of presets: values that only the operator knows, which a route gives next to `preset:`.

A preset declares them under `settings:`, and has `{setting:NAME}` where each belongs. They are filled in before the preset is
read as a scheme, so every check of a scheme also checks them.
"""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from sidecar.config.fields.base import Grammar, InvalidValueError, JSONSchema, ValueType, quote, read_each
from sidecar.config.fields.mapping import Items, Key, Section, read_present
from sidecar.config.fields.number import Tolerance, whole_number
from sidecar.config.fields.reference import SecretReference
from sidecar.config.fields.text import Choice, Flag, NonEmpty, OnlyTrue, RegularExpression, Text
from sidecar.config.token_keys import Scalar
from sidecar.verify.scheme import Setting


class Settings(ValueType[tuple[Setting, ...]]):
    """Names of settings, with the meaning of each."""

    title = "settings"

    def read(self, value: Any) -> tuple[Setting, ...]:
        if not isinstance(value, Mapping) or not value:
            raise InvalidValueError("must be a mapping of settings; for example {audience: {about: ..., example: ...}}")
        return tuple(read_each(value.items(), lambda name, each: Setting(name=name, **SETTING.read(each))))

    def json_schema(self) -> JSONSchema:
        return {
            "title": self.title,
            "type": "object",
            "minProperties": 1,
            "additionalProperties": SETTING.json_schema(),
        }


class ScalarOrList(ValueType[Any]):
    """A text, a whole number, or a list of them."""

    title = "value or list"

    def read(self, value: Any) -> Any:
        if isinstance(value, list):
            return Items(Scalar()).read(value)
        return Scalar().read(value)

    def json_schema(self) -> JSONSchema:
        return {"title": self.title, "anyOf": [Scalar().json_schema(), Items(Scalar()).json_schema()]}


class SettingForm(StrEnum):
    """The form of a setting, if its example does not show it."""

    DURATION = "duration"
    LIST = "list"
    SECRET = "secret"  # noqa: S105 - a word of the file: a reference to a secret


class Example(ScalarOrList):
    """An example of a setting; for a secret, a reference to one."""

    def read(self, value: Any) -> Any:
        return SecretReference().read(value) if isinstance(value, Mapping) else super().read(value)

    def json_schema(self) -> JSONSchema:
        schema = super().json_schema()
        return schema | {"anyOf": [*schema["anyOf"], SecretReference().json_schema()]}


SETTING: Section[dict[str, Any]] = Section(
    None,
    {
        "about": Key(
            NonEmpty(),
            "what it is, and where the provider shows it",
            ["your tenant, in the console under Settings"],
            required=True,
        ),
        "example": Key(Example(), "an example", ["acme"], required=True),
        "signed": Key(OnlyTrue(), "true: it is part of the signed message, and not of the delivery", [True]),
        "lines": Key(OnlyTrue(), "true: text of several lines, such as a certificate", [True]),
        "form": Key(
            Choice(SettingForm),
            "duration, secret, or list, which may be empty; default: like the example",
            ["duration"],
            default=None,
        ),
        "many": Key(OnlyTrue(), "true: a list is possible, of which any may match", [True]),
        "optional": Key(OnlyTrue(), "true: without it, what uses it is left out", [True]),
        "advised": Key(OnlyTrue(), "true: a route without it gets a warning", [True]),
        "default": Key(ScalarOrList(), "the value of a route that doesn't set it", ["acme"]),
        "pattern": Key(RegularExpression(), "a regular expression for the whole text", ["[a-z]+"]),
    },
)

#: A mapping of a preset that has this key is left out if none of the settings that the key names is given. A route
#: gives all of them or none.
ONLY_WITH = "only_with"

_SETTING = re.compile(r"\{setting:([a-z0-9_]+)\}")
_LEFT_OUT: Any = object()


def fill_settings(preset: Mapping[str, Any], given: Mapping[str, Any], *, examples: bool = False) -> dict[str, Any]:
    """The preset's values with its settings filled in. One that is not given has its default or, with `examples`, its example.

    Raises `InvalidValueError` for a missing setting, and for one that is not valid.
    """
    values: dict[str, Any] = {}
    mistakes: list[tuple[tuple[str | int, ...], str]] = []
    declared: Mapping[str, Any] = preset.get("settings", {})
    for name, setting in declared.items():
        if name in given:
            try:
                values[name] = read_present(SettingValue(setting), given[name])
            except InvalidValueError as error:
                mistakes += error.below(name)
        elif "default" in setting:
            values[name] = setting["default"]
        elif setting.get("optional"):
            values[name] = _LEFT_OUT
        elif examples:
            values[name] = setting["example"]
        else:
            mistakes.append(
                ((), f"needs `{name}`: {setting['about']}; for example {name}: {_show(setting['example'])}")
            )
    if mistakes:
        raise InvalidValueError(mistakes)
    filled = _fill(preset, values) if declared else dict(preset)
    assert isinstance(filled, dict)
    return filled


def _show(example: Any) -> str:
    """An example as in YAML."""
    if isinstance(example, Mapping):
        return f"{{{', '.join(f'{key}: {value}' for key, value in example.items())}}}"
    return f"[{', '.join(map(str, example))}]" if isinstance(example, list) else str(example)


class SettingValue(ValueType[Any]):
    """The value that a route gives to a setting: text, a whole number or a truth value, like its example; or a list (`many`)."""

    title = "setting"

    def __init__(self, setting: Mapping[str, Any]) -> None:
        example = setting["example"]
        first = example[0] if isinstance(example, list) else example
        self._flag = isinstance(first, bool)
        self._numeric = isinstance(first, int) and not self._flag
        self._many = bool(setting.get("many"))
        self._lines = bool(setting.get("lines"))
        self._form = setting.get("form", "")
        #: A brace would begin a place.
        self._grammar = Grammar(setting.get("pattern", r"[^{}]*[^ \t\r\n{}][^{}]*"))
        self._about = setting["about"]

    def read(self, value: Any) -> Any:
        if self._form == SettingForm.DURATION:
            Tolerance().read(value)
            return value
        if self._form == SettingForm.SECRET:
            SecretReference().read(value)
            return value
        if self._form == SettingForm.LIST and value == []:
            return []
        if isinstance(value, list) and self._many:
            return list(Items(_One(self)).read(value))
        return self.read_one(value)

    def read_one(self, value: Any) -> Any:
        """A single value, or one of a list."""
        if self._flag:
            return Flag().read(value)
        if self._numeric:
            number = whole_number(value)
            if number is None:
                raise InvalidValueError("must be a whole number")
            return number
        text = Text().read(value)
        if self._lines:
            return NonEmpty().read(text)
        if self._grammar.match(text) is None:
            raise InvalidValueError(f"{quote(text)} is not valid; use {self._about}")
        return text

    def json_schema(self) -> JSONSchema:
        if self._form == SettingForm.DURATION:
            return {"title": self.title} | {k: v for k, v in Tolerance().json_schema().items() if k != "title"}
        if self._form == SettingForm.SECRET:
            return SecretReference().json_schema()
        if self._flag:
            return Flag().json_schema()
        one = {"title": self.title} | ({"type": "integer"} if self._numeric else self._grammar.json_schema())
        if self._lines:
            one = NonEmpty().json_schema()
        if not self._many:
            return one
        least = 0 if self._form == SettingForm.LIST else 1
        return {"title": self.title, "anyOf": [one, {"type": "array", "minItems": least, "items": one}]}


class _One(ValueType[Any]):
    def __init__(self, setting: SettingValue) -> None:
        self.read = setting.read_one  # type: ignore[method-assign]


def check_own_scheme(value: Mapping[str, Any]) -> None:
    """A scheme that isn't a preset has values where a preset has settings. Raises `InvalidValueError`."""
    if "settings" in value:
        raise InvalidValueError(
            "is for presets; write each value where {setting:NAME} is, or use {preset: NAME, ...} with the settings",
            "settings",
        )
    for path in _find_settings(value, ()):
        raise InvalidValueError("holds a preset's {setting:NAME}; write the value there", *path)


def _find_settings(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, str) and "{setting:" in value:
        yield path
    below = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, each in below:
        yield from _find_settings(each, (*path, key))


def required_settings(preset: Mapping[str, Any]) -> list[str]:
    """The settings that a route can't leave out."""
    declared: Mapping[str, Any] = preset.get("settings", {})
    return [name for name, it in declared.items() if not it.get("optional") and "default" not in it]


def _fill(value: Any, settings: Mapping[str, Any]) -> Any:
    """`value` with its `{setting:NAME}` replaced; `_LEFT_OUT` if it needs one that is left out."""
    if isinstance(value, Mapping):
        if ONLY_WITH in value:
            given = [name for name in value[ONLY_WITH] if settings[name] is not _LEFT_OUT]
            if not given:
                return _LEFT_OUT
            for name in value[ONLY_WITH]:
                if name not in given:
                    raise InvalidValueError(f"has `{given[0]}` and no `{name}`; give both")
            value = {key: item for key, item in value.items() if key != ONLY_WITH}
        filled = {key: _fill(item, settings) for key, item in value.items() if key != "settings"}
        return {key: item for key, item in filled.items() if item is not _LEFT_OUT} | (
            {"settings": value["settings"]} if "settings" in value else {}
        )
    if isinstance(value, list):
        items = [_fill(item, settings) for item in value]
        return [
            each for item in items if item is not _LEFT_OUT for each in (item if isinstance(item, list) else [item])
        ]
    if not isinstance(value, str) or "{setting:" not in value:
        return value
    whole = _SETTING.fullmatch(value)
    if whole is not None:
        return settings[whole[1]]
    names = dict.fromkeys(_SETTING.findall(value))
    texts = [value]
    for name in names:
        setting = settings[name]
        if setting is _LEFT_OUT:
            return _LEFT_OUT
        each = setting if isinstance(setting, list) else [setting]
        place = f"{{setting:{name}}}"
        # An issuer may end with a slash, and the path that is added to it begins with one.
        texts = [
            text.replace(f"{place}/", str(item).removesuffix("/") + "/").replace(place, str(item))
            for text in texts
            for item in each
        ]
    return texts if len(texts) > 1 else texts[0]
