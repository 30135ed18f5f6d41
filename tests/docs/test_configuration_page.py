"""docs/configuration*.md are what the schema says, and the schema says enough of every key."""

import re
from collections.abc import Iterator
from typing import Any

import configuration_page
import pytest
import yaml
from jsonschema import Draft202012Validator
from pages import named, read, rows

from sidecar.config.fields.base import InvalidValueError
from sidecar.config.fields.mapping import MISSING, Items, Key, Section, ShortOrSection
from sidecar.config.keys import CONFIG, json_schema
from sidecar.config.scheme_keys import SCHEME

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


def keys_of(section: Section[Any], path: str = "") -> Iterator[tuple[str, Key]]:
    for name, key in section.keys.items():
        here = f"{path}.{name}".lstrip(".")
        yield here, key
        inner = key.type.item if isinstance(key.type, Items) else key.type
        if isinstance(inner, ShortOrSection):
            inner = inner.section
        if isinstance(inner, Section):
            yield from keys_of(inner, here)


KEYS = [*keys_of(CONFIG), *keys_of(SCHEME, "verify")]


@pytest.mark.parametrize("name", configuration_page.PAGES)
def test_a_page_is_what_the_schema_says(name: str) -> None:
    assert read(f"docs/{name}") == configuration_page.pages()[name], f"docs/{name} is out of date: run `make docs`"


def test_no_page_of_the_configuration_is_too_long_to_read() -> None:
    assert {name: text.count("\n") for name, text in configuration_page.pages().items() if text.count("\n") > 250} == {}


def test_the_anchors_that_sections_had_on_one_page_still_lead_to_them() -> None:
    index = read("docs/configuration.md")
    found = re.findall(r'^- <a id="([^"]+)"></a>\[`([^`]+)`\]\(([^)#]+)#([^)]+)\)', index, re.M)
    assert len(found) >= 50
    for name, path, page, anchor in found:
        assert name == anchor
        assert f"\n## `{path}`\n" in read(f"docs/{page}")


def test_pages_and_chart_say_which_keys_need_a_restart() -> None:
    source = (configuration_page.ROOT / "sidecar/process/reload.py").read_text(encoding="utf-8")
    fixed = re.findall(r'^        \("(\w+)", old', source, re.M)
    sentence = re.search(r"a change of ([^.]*) needs a restart", " ".join(read("docs/configuration.md").split()))
    assert sentence is not None
    assert sorted(re.findall(r"`(\w+)`", sentence[1])) == sorted(fixed)
    chart = (configuration_page.ROOT / "helm/templates/deployment.yaml").read_text(encoding="utf-8")
    restarts = re.search(r"needs-restart: {{ pick \.Values\.config ([^|]*)", chart)
    assert restarts is not None
    assert sorted(re.findall(r'"(\w+)"', restarts[1])) == sorted(fixed), "the chart replaces the pods for these"
    row = next(
        row for row in rows(read("docs/kubernetes-operation.md"), "## What a change does") if "config.listen" in row[0]
    )
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


@pytest.mark.parametrize(("path", "key"), KEYS, ids=[path for path, _ in KEYS])
def test_defaults_and_examples_are_what_the_program_takes(path: str, key: Key) -> None:
    examples = [*key.type.json_schema().get("examples", ()), *key.examples]
    if key.default not in (MISSING, None) and (written := key.type.write(key.default)) is not None:
        assert key.type.read(written) == key.default
    for value in examples:
        key.type.read(value)


def test_an_example_that_the_program_refuses_is_found() -> None:
    with pytest.raises(InvalidValueError):
        test_defaults_and_examples_are_what_the_program_takes("", KEYS[0][1]._replace(examples=["nowhere"]))


#: full.yaml leaves these to docs/scheme-keys.md.
ELSEWHERE = "verify.handshake."


def missing_from(text: str) -> list[str]:
    """Keys that the text of a configuration neither has nor names in a comment."""
    names = [path for path, _ in KEYS if not path.startswith(ELSEWHERE)]
    return [path for path in names if not re.search(rf"\b{path.rpartition('.')[2]}\b", text)]


def test_the_full_configuration_has_every_key() -> None:
    text = (configuration_page.ROOT / "config/full.yaml").read_text(encoding="utf-8")
    assert missing_from(text) == []
    assert missing_from(text.replace("proxy_protocol", "")) == ["proxy_protocol"]


def test_the_full_configuration_has_every_default_of_the_file() -> None:
    source = yaml.safe_load((configuration_page.ROOT / "config/full.yaml").read_text(encoding="utf-8"))
    for name, key in CONFIG.keys.items():
        section = key.type
        below = section.keys.items() if isinstance(section, Section) and name != "admin_token" else ()
        for path, each in ((name, key), *((f"{name}.{inner}", inner_key) for inner, inner_key in below)):
            if each.default in (MISSING, None) or (written := each.type.write(each.default)) is None:
                continue
            value = source
            for step in path.split("."):
                value = value[step]
            assert each.type.read(value) == each.default, f"{path}: {value!r} is not the default, {written!r}"
