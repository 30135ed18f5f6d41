"""docs/configuration.md is what the schema says, and the schema says enough of every key."""

import re
from collections.abc import Iterator
from typing import Any

import configuration_page
import pytest
from jsonschema import Draft202012Validator
from marshmallow import Schema, ValidationError, missing
from marshmallow.fields import Field, List, Nested
from pages import named, read, rows

from sidecar.config.fields.text import Value
from sidecar.config.keys import ConfigKeys, json_schema
from sidecar.config.scheme_keys import SchemeKeys

Described = tuple[str, dict[str, Any]]


def described(schema: dict[str, Any], path: str = "") -> Iterator[Described]:
    """Every key of a JSON Schema with its path, in every alternative."""
    for name, below in schema.get("properties", {}).items():
        yield f"{path}.{name}".lstrip("."), below
        yield from described(below, f"{path}.{name}".lstrip("."))
    for below in [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else ())]:
        yield from described(below, path)


def unsaid(schema: dict[str, Any]) -> list[str]:
    """What a reader would miss of a key: what it is about, which values it takes, one of them."""
    item = schema.get("items", schema)
    is_section = "properties" in item or any("properties" in each for each in item.get("anyOf", ()))
    shows = {"default", "examples"} & (schema.keys() | item.keys()) or "enum" in item or item.get("type") == "boolean"
    return [
        *(["a description"] if not schema.get("description") else []),
        *(["a title: what kind of value it is"] if not is_section and not {"title", "enum"} & item.keys() else []),
        *(["a default or an example"] if not is_section and not shows and "const" not in item else []),
    ]


def fields(schema: Schema, path: str = "") -> Iterator[tuple[str, Field[Any]]]:
    for name, field in schema.fields.items():
        here = f"{path}.{field.data_key or name}".lstrip(".")
        yield here, field
        inner = field.inner if isinstance(field, List) else field
        if isinstance(inner, Nested):
            yield from fields(inner.schema, here)


FIELDS = [*fields(ConfigKeys()), *fields(SchemeKeys(), "verify")]


def test_the_page_is_what_the_schema_says() -> None:
    page = configuration_page.PAGE.read_text(encoding="utf-8")
    assert page == configuration_page.page(), "docs/configuration.md is out of date: run `make docs`"


def test_pages_and_chart_say_which_keys_need_a_restart() -> None:
    source = (configuration_page.ROOT / "sidecar/process/reload.py").read_text(encoding="utf-8")
    fixed = re.findall(r'^        \("(\w+)", old', source, re.M)
    sentence = re.search(r"a change of ([^.]*) needs a restart", configuration_page.page())
    assert sentence is not None
    assert sorted(re.findall(r"`(\w+)`", sentence[1])) == sorted(fixed)
    chart = (configuration_page.ROOT / "helm/templates/deployment.yaml").read_text(encoding="utf-8")
    restarts = re.search(r"needs-restart: {{ pick \.Values\.config ([^|]*)", chart)
    assert restarts is not None
    assert sorted(re.findall(r'"(\w+)"', restarts[1])) == sorted(fixed), "the chart replaces the pods for these"
    row = next(row for row in rows(read("docs/kubernetes.md"), "## What a change does") if "config.listen" in row[0])
    assert sorted(named(row[0].replace("config.", ""))) == sorted(fixed)


def test_every_key_says_what_it_is_about_what_it_takes_and_an_example() -> None:
    assert [(path, missed) for path, schema in described(json_schema()) if (missed := unsaid(schema))] == []


@pytest.mark.parametrize(
    ("schema", "missed"),
    [
        ({"type": "string", "title": "text", "examples": ["a"]}, ["a description"]),
        ({"type": "string", "description": "a", "examples": ["a"]}, ["a title: what kind of value it is"]),
        ({"type": "string", "title": "text", "description": "a"}, ["a default or an example"]),
        ({"type": "array", "items": {"title": "text"}, "description": "a"}, ["a default or an example"]),
        ({"type": "object", "properties": {}}, ["a description"]),
    ],
)
def test_a_key_that_says_too_little_is_found(schema: dict[str, Any], missed: list[str]) -> None:
    assert unsaid(schema) == missed


def test_defaults_and_examples_are_what_the_schema_takes() -> None:
    for path, schema in described(json_schema()):
        for value in [*schema.get("examples", ()), *([schema["default"]] if "default" in schema else ())]:
            assert Draft202012Validator(schema).is_valid(value), f"{path}: {value!r}"


@pytest.mark.parametrize(("path", "field"), FIELDS, ids=[path for path, _ in FIELDS])
def test_defaults_and_examples_are_what_the_program_takes(path: str, field: Field[Any]) -> None:
    examples = field.metadata.get("examples", [])
    if isinstance(field, Value):
        examples = [*field.json_schema().get("examples", ()), *examples]
        if field.load_default is not missing:
            assert field.read(field.write(field.load_default)) == field.load_default
    for value in examples:
        field.deserialize(value)


def test_an_example_that_the_program_refuses_is_found() -> None:
    with pytest.raises(ValidationError):
        test_defaults_and_examples_are_what_the_program_takes(
            "", type(FIELDS[0][1])(metadata={"examples": ["nowhere"]})
        )
