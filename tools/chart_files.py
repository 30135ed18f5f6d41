"""Generates files in helm/, for `make docs`. Don't edit them by hand.

values.schema.json  its `$defs.config`, from `sidecar schema`
README.md           its table of values, from the comments in values.yaml
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from sidecar.config.keys import json_schema

ROOT = Path(__file__).parent.parent
HELM = ROOT / "helm"
TABLE = re.compile(r"(?<=<!-- values -->\n).*(?=<!-- /values -->)", re.DOTALL)
#: A longer list of words is one of presets, which the program knows.
MANY = 50


def generate() -> dict[Path, str]:
    """Every generated file with its text."""
    schema = HELM / "values.schema.json"
    values = json.loads(schema.read_text())
    values["$defs"]["config"] = config_schema()
    readme = HELM / "README.md"
    table = values_table((HELM / "values.yaml").read_text())
    return {
        schema: json.dumps(values, indent=2, ensure_ascii=False) + "\n",
        readme: TABLE.sub(lambda _: table, readme.read_text()),
    }


def config_schema() -> dict[str, Any]:
    """The form of the configuration: its keys and types. The program judges the rest, with better messages.

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
            for word in ("not", "allOf", "examples"):  # what keys say together is the program's to judge
                below.pop(word, None)
            if len(below.get("enum", ())) > MANY:
                del below["enum"]
        _simplify(below)


def _take_one(schema: dict[str, Any]) -> None:
    """Text or a mapping with keys, instead of alternatives; of several mappings the last, which has every key."""
    mappings = [each for each in schema.get("anyOf", ()) if "properties" in each]
    if mappings:
        kinds = {
            each.get("type", "string") for each in schema.pop("anyOf") if isinstance(each.get("type", "string"), str)
        }
        schema |= mappings[-1] | {"type": sorted(kinds | {"string"}, reverse=True)}
        schema.pop("required", None)


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
