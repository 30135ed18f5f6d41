"""Makes docs/configuration.md from the configuration's schema and config/full.yaml: `make docs`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sidecar.config.keys import json_schema

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/configuration.md"
#: Where a secret's own keys stand on the page.
SECRET = "secrets[]"  # noqa: S105 - a place
INTRODUCTION = """\
# Configuration

<!-- Made by `make docs` from sidecar/config/keys.py and config/full.yaml. Don't edit it here. -->

One YAML file. This is a whole one:

```yaml
{small}```

`sidecar check FILE` tells every mistake at once, with its line and what to write instead. `sidecar schema` prints what this page says as JSON
Schema; with it an editor completes keys and shows their meaning:

```console
$ sidecar schema > sidecar.schema.json
```

```yaml
# yaml-language-server: $schema=sidecar.schema.json
```

An unknown key, a key that stands there twice and an empty value are mistakes: nothing is ignored. What a key that is left out does
stands under *default*. The file is read again when it changes; a change of `listen`, `admin`,
`workers`, `proxy_protocol`, `replay_store` or `tracing` needs a restart.

## Values

| value | is | for example |
|---|---|---|
| duration | a number and `ms`, `s`, `m` or `h`; without a unit seconds; never 0 | `500ms`, `30s`, `5m`, `1h` |
| rate | a number, and a second, a minute or an hour (`s`, `m`, `h`) | `10/s`, `60/m`, `500/h` |
| share | a number above 0 and up to 1 | `0.1` |
| size | a number and `KiB`, `MiB`, `GiB` (1024), `KB`, `MB`, `GB` (1000) or `B`; without a unit bytes | `64KiB`, `5MiB`, `1GB` |
| address | `HOST:PORT`, or a unix socket | `0.0.0.0:8080`, `[::]:8080`, `unix:/run/sidecar.sock` |
| network | an address, or a network without host bits | `203.0.113.0/24`, `2001:db8::/32`, `198.51.100.7` |
| name | up to 63 letters, digits, `.`, `_` and `-` | `github-main` |
| secret | where it stands, never the secret itself: [these keys](#{secret}) | `{{env: GITHUB_SECRET}}` |
| place in JSON | names with dots between them, `[]` for each element of a list | `event.signature` |
| text | as YAML has it; quote what YAML would take for something else | `"sha256="` |
"""


class Section(NamedTuple):
    """A mapping of the configuration: its place (`routes[].limits`), what it is about, its part of the JSON Schema."""

    path: str
    about: str
    schema: dict[str, Any]

    def below(self, name: str) -> "Section | None":
        """The section that a key opens, if it opens one."""
        value = self.schema["properties"][name]
        inner = mapping(value)
        if inner is None or is_secret(inner):
            return None
        return Section(f"{self.path}.{name}".strip(".") + "[]" * is_list(value), about(value), inner)


def sections(at: Section) -> Iterator[Section]:
    """Every mapping with known keys, outer ones first."""
    yield at
    for name in at.schema["properties"]:
        below = at.below(name)
        if below is not None:
            yield from sections(below)


def mapping(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The mapping with known keys that a value may be, or that the items of a list may be; all of them in one."""
    item = schema.get("items", schema)
    found = [each for each in (item, *item.get("anyOf", ())) if "properties" in each]
    if not found:
        return None
    properties = {name: value for each in reversed(found) for name, value in each["properties"].items()}
    return found[0] | {"properties": properties}


def is_list(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "array"


def is_secret(schema: dict[str, Any]) -> bool:
    return schema.get("title") == "secret"


def anchor(path: str) -> str:
    return "".join(letter for letter in path.lower() if letter.isalnum() or letter in "_-")


def table(section: Section) -> str:
    lines = ["| key | value | default | for example | what it is |", "|---|---|---|---|---|"]
    for name, schema in section.schema["properties"].items():
        required = name in section.schema.get("required", ())
        default = "required" if required else code(schema["default"]) if "default" in schema else ""
        example = ", ".join(code(each) for each in schema.get("examples", ())[:3] if each != schema.get("default"))
        lines.append(f"| `{name}` | {takes(section, name)} | {default} | {example} | {about(schema)} |")
    if one_of := section.schema.get("oneOf"):
        names = [f"`{each['required'][0]}`" for each in one_of]
        lines += ["", f"Exactly one of {', '.join(names)}."]
    return "\n".join(lines)


def takes(section: Section, name: str) -> str:
    """What kind of value a key has."""
    schema = section.schema["properties"][name]
    item = schema.get("items", schema)
    inner, below = mapping(schema), section.below(name)
    if item.get("title") == "preset":
        word = "[preset](providers.md)"
    elif "enum" in item:
        word = " ".join(code(each) for each in item["enum"])
    elif inner is not None and is_secret(inner):
        word = f"[secret](#{anchor(SECRET)})"
    elif below is not None:
        word = f"[{item.get('title', 'keys')}](#{anchor(below.path)})"
    else:
        word = item["title"]
    if "minimum" in item and "maximum" in item:
        word += f", {item['minimum']} to {item['maximum']}"
    return f"list of: {word}" if is_list(schema) else word


def about(schema: dict[str, Any]) -> str:
    return str(schema.get("description", "")).replace("|", "\\|")


def code(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000, sort_keys=False, allow_unicode=True)
    return f"`{text.strip().removesuffix('...').strip()}`".replace("|", "\\|")


def page() -> str:
    """The whole page."""
    whole = json_schema()
    text = INTRODUCTION.format(small=(ROOT / "config/begini.yaml").read_text(), secret=anchor(SECRET))
    for section in sections(Section("", "", whole)):
        title = f"`{section.path}`" if section.path else "The file"
        said = f"{section.about[:1].upper()}{section.about[1:]}.\n\n" if section.about else ""
        text += f"\n## {title}\n\n{said}{table(section)}\n"
    secret = whole["properties"]["routes"]["items"]["properties"]["secrets"]["items"]
    text += f"\n## `{SECRET}`\n\nA secret, wherever one stands.\n\n{table(Section(SECRET, '', secret))}\n"
    text += "\n## Every key\n\n[config/full.yaml](../config/full.yaml), with every default:\n\n```yaml\n"
    return text + (ROOT / "config/full.yaml").read_text() + "```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
