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
from sidecar.verify.composite import Combine

ROOT = Path(__file__).parent.parent
HELM = ROOT / "helm"
TABLE = re.compile(r"(?<=<!-- values -->\n).*(?=<!-- /values -->)", re.DOTALL)
#: Keys, and keys below them, whose patterns are left out because the program has a better message.
CHECKED_BY_TEMPLATES: dict[str, tuple[str, ...]] = {
    "listen": (), "admin": (), "upstream": (), "public_url": (), "path": (), "name": (), "drain": (), "replay": (),
    "allow": (), "trusted_proxies": (),
    "limits": ("body", "buffer", "header_timeout", "body_timeout", "refusals"),
    "timeouts": ("connect", "response", "total", "idle"),
    "ip_ranges": ("refresh",),
}  # fmt: skip


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
    """The configuration's schema, without the parts for which the program has better messages."""
    schema = {key: value for key, value in json_schema().items() if key not in ("$schema", "title", "required")}
    route = schema["properties"]["routes"]["items"]
    schema["properties"]["routes"].pop("minItems", None)
    for keys in (schema["properties"], route["properties"]):
        for key, inner in CHECKED_BY_TEMPLATES.items():
            checked = keys.get(key, {})
            below = (checked.get("properties", {}).get(name, {}) for name in inner)
            either = checked.get("anyOf", [])
            urls = [each["properties"]["url"] for each in either if "url" in each.get("properties", {})]
            for each in (checked, checked.get("items", {}), *below, *either, *urls):
                each.pop("pattern", None)
                each.pop("not", None)
    schema["properties"]["replay_store"] = {"description": schema["properties"]["replay_store"]["description"]}
    _open_secrets(schema)
    # One alternative instead of three (a preset's name, a scheme, a preset with changes), so that errors name the wrong key.
    sign = route["properties"]["sign"]["properties"]
    for keys, name in ((route["properties"], "verify"), (sign, "scheme")):
        *combined, changed = keys[name]["anyOf"]
        changed["properties"]["preset"].pop("enum", None)
        # The program checks what the entries hold: three times the size of everything else otherwise.
        changed["properties"] |= {
            key: {"description": below["description"], "type": "array", "minItems": 2, "maxItems": below["maxItems"]}
            for each in combined
            for key, below in each.get("properties", {}).items()
            if key in tuple(Combine)
        }
        keys[name] = changed | {"type": ["string", "object"], "required": [], "description": keys[name]["description"]}
    return schema


def _open_secrets(schema: Any) -> None:
    """Lets references to secrets be anything: the templates check them, without repeating what may be the secret itself."""
    for key, below in list(schema.items() if isinstance(schema, dict) else enumerate(schema)):
        if isinstance(below, dict) and {"env", "file"} <= set(below.get("properties", ())):
            schema[key] = {"description": "a reference to a secret: {file: ...} or {env: ...}"}
        elif isinstance(below, dict | list):
            _open_secrets(below)


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
