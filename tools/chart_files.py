"""Generates files in helm/, for `make docs`. Don't edit them by hand.

values.schema.json  its `$defs.config`, from `sidecar schema`
README.md           its table of values, from the comments in values.yaml
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sidecar.config.keys import json_schema

ROOT = Path(__file__).parent.parent
HELM = ROOT / "helm"
TABLE = re.compile(r"(?<=<!-- values -->\n).*(?=<!-- /values -->)", re.DOTALL)
#: A longer list of words is the list of presets, which the program checks.
MANY = 50
#: A repeated part is written once, unless a reference to it would be as long.
SHORT = 60


def generate() -> dict[Path, str]:
    """Every generated file with its text."""
    schema = HELM / "values.schema.json"
    values = json.loads(schema.read_text())
    values["$defs"] = {"config": config_schema()}
    share_parts(values["$defs"])
    readme = HELM / "README.md"
    table = values_table((HELM / "values.yaml").read_text())
    return {
        schema: json.dumps(values, indent=2, ensure_ascii=False) + "\n",
        readme: TABLE.sub(lambda _: table, readme.read_text()),
    }


def config_schema() -> dict[str, Any]:
    """The form of the configuration: its keys and types. The program checks the rest, with better messages.

    Patterns are left out, because Helm shows the value that does not match, which may hold a password; so is the form of
    references to secrets. Of several alternatives one is left, so that an error names the key and not every alternative.
    """
    schema = {key: value for key, value in json_schema().items() if key not in ("$schema", "title", "required")}
    schema["properties"]["routes"].pop("minItems", None)
    schema["properties"]["replay_store"] = {"description": schema["properties"]["replay_store"]["description"]}
    _simplify(schema)
    return schema


def _simplify(schema: Any) -> None:
    for key, below in list(schema.items() if isinstance(schema, dict) else enumerate(schema)):
        if not isinstance(below, dict | list):
            continue
        if isinstance(below, dict):
            _take_one(below)
            if {"env", "file"} <= set(below.get("properties", ())):
                schema[key] = {"description": "a reference to a secret: {file: ...} or {env: ...}"}
                continue
            if isinstance(below.get("pattern"), str):  # not a property of this name
                del below["pattern"]
            for word in ("not", "allOf", "oneOf", "examples"):  # the program checks combinations of keys
                below.pop(word, None)
            if isinstance(below.get("title"), str):
                del below["title"]
            if str(below.get("description")).startswith("a setting of "):  # the rest are names of presets
                del below["description"]
            if len(below.get("enum", ())) > MANY:
                del below["enum"]
        _simplify(below)


def _take_one(schema: dict[str, Any]) -> None:
    """Text or a mapping with keys, instead of alternatives; of several mappings the last, with the keys that only others have."""
    mappings = [each for each in schema.get("anyOf", ()) if "properties" in each]
    if mappings:
        kinds = {
            each.get("type", "string") for each in schema.pop("anyOf") if isinstance(each.get("type", "string"), str)
        }
        keys = {name: key for each in mappings for name, key in each["properties"].items()}
        schema |= mappings[-1] | {"type": sorted(kinds | {"string"}, reverse=True), "properties": keys}
        schema.pop("required", None)


def share_parts(definitions: dict[str, Any]) -> None:
    """Writes each repeated part of `config` once, as a definition.

    A Helm release contains the schema, and its Secret has at most 1 MiB.
    """
    seen: Counter[str] = Counter()

    def count(schema: dict[str, Any]) -> None:
        seen[_text(schema)] += 1
        for below in _parts(schema):
            count(below)

    names: dict[str, str] = {}

    def share(schema: dict[str, Any], name: str) -> None:
        """`name` is the key of its first place."""
        text = _text(schema)
        again = text in names
        for key, below in [] if again else list(_named_parts(schema)):
            share(below, key)
        if seen[text] > 1 and len(text) > SHORT:
            about = {key: schema.pop(key) for key in ABOUT if key in schema}
            if not again:
                numbered = (name, *(f"{name}{number}" for number in range(2, 1000)))
                names[text] = next(each for each in numbered if each not in definitions)
                definitions[names[text]] = dict(schema)
            schema.clear()
            schema |= about | {"$ref": f"#/$defs/{names[text]}"}

    config = definitions["config"]
    count(config)
    share(config, "config")


#: Keywords that describe a part in one place only.
ABOUT = ("description", "default")


def _text(schema: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in schema.items() if key not in ABOUT}, sort_keys=True)


def _named_parts(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from schema.get("properties", {}).items()
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield key, schema[key]
    for each in schema.get("anyOf", ()):
        yield "choice", each


def _parts(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    return (below for _, below in _named_parts(schema))


def values_table(text: str) -> str:
    lines = ["| value | default | |\n", "|---|---|---|\n"]
    values = yaml.safe_load(text)
    for path, about in documented_keys(text):
        default: Any = values
        for key in path:
            default = default[key]
        shown = json.dumps(default, ensure_ascii=False)
        lines.append(f"| `{'.'.join(path)}` | `{shown}` | {about} |\n")
    return "".join(lines)


def documented_keys(text: str) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path of each key that has a comment beginning with `# --`, and the comment."""
    path: list[tuple[int, str]] = []
    about = ""
    for line in text.splitlines():
        if match := re.fullmatch(r" *# -- (.*)", line):
            about = match[1]
        elif about and (match := re.fullmatch(r" *# ?(.*)", line)):
            about += " " + match[1]
        elif match := re.match(r"( *)([A-Za-z]\w*):", line):
            path = [step for step in path if step[0] < len(match[1])]
            path.append((len(match[1]), match[2]))
            if about:
                yield tuple(name for _, name in path), about
            about = ""
        else:
            about = ""


if __name__ == "__main__":
    for file, text in generate().items():
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
